/** How long a disk is out of reach when the tab that has it crashes. */

import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type { BrowserContext, Page } from "playwright";
import sirv from "sirv";
import { build } from "vite";
import { ROOT } from "../../../scripts/setup.mjs";
import type { Lab } from "../lab.ts";
import type { Line } from "../line.ts";

/** What a browser needs at least: the lock, and the file opened. */
const BARE_WORKER = `
onmessage = () => navigator.locks.request("bare", async () => {
  const root = await navigator.storage.getDirectory();
  const file = await root.getFileHandle("bare", { create: true });
  const handle = await file.createSyncAccessHandle();
  handle.read(new Uint8Array(512), { at: 0 });
  postMessage("open");
  await new Promise(() => {});
});`;
const BARE_PAGE = `<!doctype html><script>
const worker = new Worker("bare.js");
window.opened = new Promise((resolve) => { worker.onmessage = resolve; });
worker.postMessage("stand");
</script>`;

export const HAND_OVER_LINES: readonly Line[] = [
  {
    name: "hand-over",
    unit: "ms",
    reference:
      "from the crash of a tab until a bare worker of another tab has its Web Lock and has opened and " +
      "read its OPFS file; ours: until a read of the other tab's guest is answered, by a new engine " +
      "that has brought back a domain of two qcow2 from the journal",
    aim: null,
    runs: 10,
    async prepare(lab) {
      const { url, close } = await serve(lab);
      const chromium = await lab.chromium();
      return {
        warmUp: true,
        ours: () =>
          crashed(chromium, url, {
            async isUp(page) {
              await page.waitForFunction(() => "tab" in window);
              await page.evaluate(() => window.tab.make());
            },
            look: (page) => page.evaluate(() => window.tab.look()),
          }),
        theirs: () =>
          crashed(chromium, `${url}bare.html`, {
            // The second one never has it before the first is gone.
            isUp: (page) => page.waitForFunction(() => "opened" in window),
            look: (page) =>
              page.evaluate(async () => {
                await (window as unknown as { opened: Promise<unknown> }).opened;
              }),
          }),
        done: close,
      };
    },
  },
];

interface Deed {
  isUp(page: Page): Promise<unknown>;
  look(page: Page): Promise<void>;
}

/** @returns how long it took, in ms */
async function crashed(chromium: BrowserContext, url: string, deed: Deed): Promise<number> {
  const owner = await chromium.newPage();
  await owner.goto(url);
  await deed.isUp(owner);
  await deed.look(owner);
  const other = await chromium.newPage();
  await other.goto(url);
  await deed.isUp(other);
  const session = await chromium.newCDPSession(owner);
  const crash = owner.waitForEvent("crash");
  const start = performance.now();
  session.send("Page.crash").catch(() => {});
  await crash;
  await deed.look(other);
  const ms = performance.now() - start;
  await owner.close();
  await other.close();
  return ms;
}

async function serve(lab: Lab): Promise<{ url: string; close: () => Promise<void> }> {
  const built = lab.file("tabs-page");
  await build({
    configFile: false,
    root: join(ROOT, "test", "e2e", "tabs", "page"),
    base: "./",
    logLevel: "error",
    build: { outDir: built, assetsInlineLimit: 0, target: "es2022" },
    worker: { format: "es" },
  });
  const files = sirv(built, { dev: true });
  const bare = new Map([
    ["/bare.html", ["text/html", BARE_PAGE]],
    ["/bare.js", ["text/javascript", BARE_WORKER]],
  ]);
  const answer = (request: IncomingMessage, response: ServerResponse) => {
    const [type, text] = bare.get(request.url ?? "") ?? [];
    if (type === undefined) return files(request, response);
    response.setHeader("content-type", type).end(text);
  };
  const server = createServer(answer);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const close = async () => {
    server.closeAllConnections();
    server.close();
  };
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, close };
}
