/** The page's entry: starts the engine, finds out what there is, and draws it from then on. */

import { signal } from "@preact/signals";
import { render } from "preact";
import { connectTab, type SharedApi, type SharedState, type Tab } from "../src/domain/client.ts";
import { App } from "./app.ts";
import { type Problem, problemOf } from "./hints.ts";
import { Keeping } from "./keeping.ts";
import { QmpLog } from "./log.ts";
import { Notices } from "./notices.ts";
import { chooseStore, obstacle } from "./platform.ts";
import { DiskError } from "./store.ts";
import "./style.css";
import { Page, Refused, Waiting } from "./views/page.tsx";

declare global {
  interface Window {
    /** For the console, and for tests. */
    blocktab?: { readonly client: SharedApi; readonly domains: Tab["domains"] };
  }
}

const root = document.getElementById("root")!;

async function main(): Promise<void> {
  const problem = obstacle();
  if (problem) return refuse(problem);
  const log = new QmpLog();
  const notices = new Notices();
  const keeping = new Keeping();
  const sharing = signal<SharedState | undefined>(undefined);
  root.replaceChildren();
  render(<Waiting notices={notices} sharing={sharing} />, root);
  const tab = await connectTab({
    log: (entry) => log.add(entry),
    onState: (state) => {
      sharing.value = state;
    },
  });
  window.blocktab = { client: tab.client, domains: tab.domains };
  const app = new App(tab, log, await chooseStore(tab.client), sharing);
  render(<Page app={app} notices={notices} keeping={keeping} />, root);

  document.addEventListener("visibilitychange", () => {
    void (document.visibilityState === "hidden" ? app.flush() : app.look());
  });
  await Promise.all([
    app.start(),
    app.loadTemplate(),
    keeping.watch(),
    // In development there is no sw.js: Vite serves modules one by one.
    ...(import.meta.env.PROD ? [notices.watch()] : []),
  ]);
}

main().catch((error: unknown) => {
  console.error(error);
  const { text } = problemOf(error);
  const hint =
    error instanceof DiskError
      ? "If it is a private window, open the page in a normal one."
      : "This page needs a current browser with WebAssembly SIMD and module workers.";
  refuse({ text: `The page could not start: ${text}`, hint });
});

function refuse(problem: Problem): void {
  root.replaceChildren();
  render(<Refused problem={problem} />, root);
}
