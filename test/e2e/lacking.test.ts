/**
 * Windows that lack what the page would like to have: what it says is true, what it offers works, and where
 * nothing can be kept it offers nothing.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Browser, type BrowserContext, chromium } from "playwright";
import sirv from "sirv";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { chromiumLaunchOptions } from "../../scripts/chromium.mjs";
import { ensurePage } from "../../scripts/page.ts";
import { PageDriver } from "../../scripts/page-driver.ts";
import { type RunningServer, startServer } from "../../scripts/server.ts";
import { resolveTemplate } from "../../scripts/template.ts";
import { MiB } from "../../src/base/bytes.ts";
import { flags } from "../../src/domain/client.ts";
import { NO_DATABASE, NO_LOCKS, NO_OPFS, NO_SYNC_HANDLES, takeAway } from "./lacking/without.ts";
import { makeRaw } from "./user.ts";

const DISK_BYTES = MiB;
/** Another machine's, to the browser. */
const ELSEWHERE = "elsewhere.test";
const bytes = (value: number) => new Uint8Array(512).fill(value);

let folder: string;
let server: RunningServer;
/** The same page, for whoever asks. */
let open: Server;
let browser: Browser;
let context: BrowserContext;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "blocktab-e2e-lacking-"));
  const page = await ensurePage();
  const template = await resolveTemplate(makeRaw(folder, "template", DISK_BYTES));
  server = await startServer({ page, template, port: 0 });
  open = createServer(sirv(page, { dev: true })).listen(0, "127.0.0.1");
  const { args, ...options } = chromiumLaunchOptions();
  const rules = `--host-resolver-rules=MAP ${ELSEWHERE} 127.0.0.1`;
  browser = await chromium.launch({ ...options, args: [...args, rules], headless: true });
});

afterEach(() => context.close());

afterAll(async () => {
  await browser.close();
  await server.close();
  open.closeAllConnections();
  open.close();
  rmSync(folder, { recursive: true, maxRetries: 5 });
});

/** A private window, as Playwright's contexts are. */
async function visit(
  without: Parameters<typeof takeAway>[1],
  url = server.url,
): Promise<PageDriver> {
  context = await browser.newContext();
  await takeAway(context, without);
  return openTab(url);
}

async function openTab(url = server.url): Promise<PageDriver> {
  const driver = new PageDriver(await context.newPage());
  await driver.goto(url);
  return driver;
}

const NOT_KEPT = expect.stringMatching(/has not promised to keep the disk/);
const banners = ({ page }: PageDriver) => page.locator(".banner").allInnerTexts();

it("a private window with all of it works like any other", async () => {
  const first = await visit({});
  await first.tryIt();
  expect(await banners(first)).toEqual([NOT_KEPT]);
  await first.writeSector(0, bytes(1));
  const second = await openTab();
  await second.waitForDisk();
  expect(await second.readSector(0)).toEqual(bytes(1));
});

it("says that the disk may go until the browser has promised to keep it, if it is asked", async () => {
  const first = await visit({});
  expect(await banners(first)).toEqual([]);
  await first.tryIt();
  const second = await openTab();
  await second.waitForDisk();
  await first.page.getByTestId("keep").click();
  await first.page.getByText("Asked, it said no").waitFor();
  expect(await banners(first)).toEqual([NOT_KEPT]);

  await allowKeeping(first);
  await first.page.getByTestId("keep").click();
  await first.page.getByTestId("not-kept").waitFor({ state: "detached" });
  expect(await banners(second)).toEqual([NOT_KEPT]);
  await second.page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
  await second.page.getByTestId("not-kept").waitFor({ state: "detached" });
});

it.each([
  ["OPFS is refused", { page: NO_OPFS, worker: NO_OPFS }],
  ["OPFS has no files that can be written in place", { worker: NO_SYNC_HANDLES }],
])(
  "where %s disks are kept in IndexedDB, tabs share them, and a banner says so",
  async (_, without) => {
    const first = await visit(without);
    await first.tryIt();
    expect(await banners(first)).toEqual([
      expect.stringMatching(/go to IndexedDB instead/),
      NOT_KEPT,
    ]);
    await first.waitForOutcome();
    expect(await first.chain()).toMatch(/\[indexeddb disk.qcow2\]$/);
    await first.writeSector(0, bytes(1));
    const second = await openTab();
    await second.waitForDisk();
    expect(await second.readSector(0)).toEqual(bytes(1));
    await first.page.close();
    await second.until("it has the disks", async () => (await second.role()) === "owner");
    expect(await second.readSector(0)).toEqual(bytes(1));
  },
);

it("without Web Locks one tab has the disk, the next is told, and a reload finds all images of it", async () => {
  const first = await visit({ page: NO_LOCKS });
  await first.tryIt();
  expect(await banners(first)).toEqual([expect.stringMatching(/use one tab at a time/), NOT_KEPT]);
  await first.waitForOutcome();
  await first.writeSector(0, bytes(1));
  await first.page.evaluate((diskOnly) => {
    const source = { driver: "opfs", filename: "later.qcow2" } as const;
    const disks = [{ name: "vda", format: "qcow2", source } as const];
    const domain = window.blocktab!.domains.domain("page");
    return domain.snapshotCreate({ name: "later", disks }, diskOnly);
  }, flags.SNAPSHOT_CREATE.DISK_ONLY);
  await first.writeSector(0, bytes(2));

  const second = await openTab();
  const error = second.page.getByTestId("error");
  await error.waitFor();
  expect(await error.innerText()).toMatch(/is open elsewhere/);
  expect(await second.page.getByTestId("try-it").count()).toBe(0);
  await second.page.getByTestId("delete-disk").click();
  await second.page.getByTestId("delete-disk-confirm").click();
  await error.nth(1).waitFor();
  expect(await error.allInnerTexts()).toEqual(
    Array(2).fill(expect.stringMatching(/open elsewhere/)),
  );
  await second.page.close();

  await first.reload();
  await first.waitForDisk();
  expect(await first.readSector(0)).toEqual(bytes(2));
  expect(await first.chain()).toMatch(/later/);
});

it.each([
  ["came by plain http from another machine", {}, /plain http/],
  ["has no IndexedDB", { page: NO_DATABASE }, /has no IndexedDB/],
  [
    "has neither OPFS nor Web Locks",
    { page: NO_LOCKS + NO_OPFS, worker: NO_OPFS },
    /no OPFS.*private/s,
  ],
])("a page that %s says that it can keep no disk, and offers none", async (why, without, says) => {
  const { port } = open.address() as AddressInfo;
  const isFar = why.startsWith("came");
  const driver = await visit(without, isFar ? `http://${ELSEWHERE}:${port}/` : server.url);
  const error = driver.page.getByTestId("error");
  await error.waitFor();
  expect(await error.innerText()).toMatch(says);
  expect(await banners(driver)).toEqual([]);
  expect(await driver.page.getByRole("button").count()).toBe(0);
});

/** As a user does who says yes. */
async function allowKeeping({ page }: PageDriver): Promise<void> {
  const devtools = await context.newCDPSession(page);
  const { targetInfo } = await devtools.send("Target.getTargetInfo");
  const { browserContextId } = targetInfo;
  const permissions = ["durableStorage" as const];
  await devtools.send("Browser.grantPermissions", {
    permissions,
    browserContextId: browserContextId!,
  });
}
