/** The page: what is shown in which stage. */

import type { ReadonlySignal } from "@preact/signals";
import type { SharedState } from "../../src/domain/client.ts";
import type { App, Stage } from "../app.ts";
import type { Problem } from "../hints.ts";
import type { Keeping } from "../keeping.ts";
import type { Notices } from "../notices.ts";
import { ChainPanel } from "./chain.tsx";
import { DisksPanel } from "./disks.tsx";
import { ImagesPanel } from "./images.tsx";
import { JobPanel } from "./job.tsx";
import { JobsPanel } from "./jobs.tsx";
import { NotKept } from "./keeping.tsx";
import { LogPanel } from "./log.tsx";
import { ProblemAt, ProblemBox } from "./parts.tsx";
import { ReopenPanel } from "./reopen.tsx";
import { SectorPanel } from "./sector.tsx";
import { StartPanel } from "./start.tsx";
import { NotShared, RecoveryBox, Role } from "./tabs.tsx";
import { ToolsPanel } from "./tools.tsx";
import { VerifyPanel } from "./verify.tsx";

interface PageProps {
  readonly app: App;
  readonly notices: Notices;
  readonly keeping: Keeping;
}

export function Page({ app, notices, keeping }: PageProps) {
  const { view } = app;
  const { kind } = app.stage.value;
  return (
    <>
      <Header notices={notices} sharing={app.sharing.value} />
      <main>
        <Banners app={app} notices={notices} />
        {kind === "open" || kind === "closed" ? <NotKept app={app} keeping={keeping} /> : null}
        <RecoveryBox app={app} />
        {view.fatal.value === undefined ? (
          <Panels app={app} stage={app.stage.value} />
        ) : (
          <ProblemBox
            problem={{
              text: view.fatal.value.text,
              hint: "Reload the page to start the engine again. The disk is as it was last written.",
            }}
          />
        )}
        <LogPanel log={app.log} />
      </main>
    </>
  );
}

interface HeaderProps {
  readonly notices: Notices;
  readonly sharing: SharedState | undefined;
}

export function Header({ notices, sharing }: HeaderProps) {
  return (
    <header>
      <h1>blocktab</h1>
      <p class="tagline">QEMU's block layer and background jobs in a browser tab</p>
      {sharing === undefined ? null : <Role state={sharing} />}
      {notices.isOfflineReady.value ? (
        <span
          class="chip"
          title="The page itself is kept in this browser: it loads with no server."
        >
          page kept for offline use
        </span>
      ) : null}
    </header>
  );
}

function Banners({ app, notices }: { readonly app: App; readonly notices: Notices }) {
  return (
    <>
      {app.tab.isShared ? null : <NotShared />}
      {app.store === "indexeddb" ? (
        <p class="banner" role="status">
          This window has no private file system (OPFS) that disks could be in, as some private
          windows. Disks go to IndexedDB instead: slower, and in a private window gone when it is
          closed.
        </p>
      ) : null}
      {notices.hasNewVersion.value ? (
        <p class="banner" role="status">
          A new version of this page is ready. It is used once all of its tabs are closed, never
          under a running job.
        </p>
      ) : null}
    </>
  );
}

function Panels({ app, stage }: { readonly app: App; readonly stage: Stage }) {
  switch (stage.kind) {
    case "working":
      return (
        <section class="panel working" aria-busy="true">
          <p role="status">{stage.text} …</p>
          <ProblemAt app={app} place="disk" />
        </section>
      );
    case "none":
      return <StartPanel app={app} />;
    case "closed":
      return (
        <>
          <ReopenPanel app={app} />
          <ToolsPanel app={app} />
        </>
      );
    case "open":
      return (
        <>
          <ChainPanel app={app} />
          <JobPanel app={app} stage={stage} />
          <SectorPanel app={app} stage={stage} />
          <DisksPanel app={app} />
          <JobsPanel app={app} />
          {app.store === "opfs" ? <ImagesPanel app={app} /> : null}
          <div class="columns">
            <VerifyPanel app={app} stage={stage} />
            <ToolsPanel app={app} />
          </div>
        </>
      );
  }
}

interface WaitingProps {
  readonly notices: Notices;
  readonly sharing: ReadonlySignal<SharedState | undefined>;
}

/** Before any tab serves: never an empty store. */
export function Waiting({ notices, sharing }: WaitingProps) {
  return (
    <>
      <Header notices={notices} sharing={undefined} />
      <main>
        <section class="panel working" aria-busy="true">
          <p role="status">{sharing.value?.text || "Starting the engine"} …</p>
        </section>
      </main>
    </>
  );
}

/** Nothing can be done here, and why. */
export function Refused({ problem }: { readonly problem: Problem }) {
  return (
    <>
      <header>
        <h1>blocktab</h1>
      </header>
      <main>
        <ProblemBox problem={problem} />
      </main>
    </>
  );
}
