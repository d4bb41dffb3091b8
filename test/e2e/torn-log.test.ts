/**
 * Chromium forgets all of IndexedDB after two kills, the first of which has torn a write: see
 * src/engine/browser-records.ts. Here that is made to happen; disks, exports and jobs are there nevertheless.
 */

import { readdirSync, statSync, truncateSync } from "node:fs";
import { join } from "node:path";
import type { Page } from "playwright";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { KillableChromium } from "./kill/chromium.ts";
import { OwnPage } from "./own-page.ts";
import { KINDS } from "./recovery/plan.ts";

let own: OwnPage;
let browser: KillableChromium | undefined;

beforeAll(async () => {
  own = await OwnPage.serve("recovery");
});

afterEach(() => browser?.kill());

afterAll(() => own.close());

async function open(): Promise<Page> {
  browser = await KillableChromium.launch(join(own.folder, "profile"));
  const { page } = browser;
  await page.goto(own.url);
  await page.waitForFunction(() => "life" in window);
  await page.evaluate(() => window.life.open());
  return page;
}

/** As a kill does that comes amid a write of more than a page of memory. */
function tearLog(): void {
  const databases = join(own.folder, "profile", "Default", "IndexedDB");
  const [database] = readdirSync(databases).filter((name) => name.endsWith(".leveldb"));
  const folder = join(databases, database!);
  const [log] = readdirSync(folder).filter((name) => name.endsWith(".log"));
  const path = join(folder, log!);
  truncateSync(path, statSync(path).size - 20);
}

/** How often the disks have changed hands, as IndexedDB has it. */
function epoch(page: Page): Promise<number> {
  return page.evaluate(async () => {
    const asked = <T>(request: IDBRequest<T>) =>
      new Promise<T>((resolve, reject) => {
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
      });
    const database = await asked(indexedDB.open("keyval-store"));
    const store = database.transaction("keyval").objectStore("keyval");
    const reign = await asked<{ epoch: number }>(store.get("blocktab:epoch"));
    return reign.epoch;
  });
}

it("jobs go on after Chromium has forgotten all that was in IndexedDB", async () => {
  const first = await open();
  await first.evaluate(() => window.life.make());
  await first.evaluate(() => window.life.look());
  await first.evaluate(() => window.life.start());
  expect(await epoch(first)).toBe(1);
  await browser!.kill();
  tearLog();

  const second = await open();
  expect((await second.evaluate(() => window.life.look())).problems).toEqual([]);
  expect(await epoch(second)).toBe(2);
  await browser!.kill();

  const third = await open();
  const found = await third.evaluate(() => window.life.look());
  expect(found.problems).toEqual([]);
  // The fast ones may have come to their end by now.
  expect([...found.atWork, ...Object.keys(found.ended)].sort()).toEqual([...KINDS].sort());
  // Or it was not forgotten.
  expect(await epoch(third)).toBe(1);
});
