/**
 * Tabs that Chromium puts to sleep, on the page as users have it: frozen while they have the disks, or work
 * through another tab; put aside for the way back. Whoever is awake goes on, what was flushed is there, and who
 * wakes works on as a client.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { PageDriver } from "../../scripts/page-driver.ts";
import { MiB } from "../../src/base/bytes.ts";
import { flags } from "../../src/domain/client.ts";
import { countFlushes, deafen, freeze, noteReturns, noteStages, thaw } from "./asleep/chromium.ts";
import { Guest } from "./asleep/guest.ts";
import { judge } from "./asleep/judge.ts";
import { KillableChromium } from "./kill/chromium.ts";
import { makeRaw, type User, visit } from "./user.ts";

const DISK_BYTES = 16 * MiB;
const SECTOR = 512;
/** Of the job, in bytes/s. */
const SPEED = 512 * 1024;
/** Where guests write; each in a cluster of its own. */
const [FLUSHED, UNFLUSHED, LATER] = [15 * MiB, 14 * MiB, 13 * MiB];

let folder: string;
let image: string;
let browser: KillableChromium | undefined;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "blocktab-e2e-asleep-"));
  image = makeRaw(folder, "template", DISK_BYTES);
});

afterEach(() => browser?.kill());

afterAll(() => {
  rmSync(folder, { recursive: true, maxRetries: 5 });
});

/** A user whose tabs are hidden when another one is before them. */
function visitAsPeople(): Promise<User> {
  return visit(folder, image, async (profile) => {
    browser = await KillableChromium.launch(profile);
    return browser.context;
  });
}

const roleIs = (driver: PageDriver, role: string) =>
  driver.until(`it is ${role}`, async () => (await driver.role()) === role);

describe("a tab that is frozen while it has the disks", () => {
  it("gives them to another one, where the job goes on, and works through that one when it wakes", async () => {
    await using user = await visitAsPeople();
    const first = user.driver;
    await tryItSlowly(first);
    const guest = new Guest(first.page);
    await guest.write(FLUSHED, 1);
    expect(await guest.flush()).toBe("");
    const second = await openTab(user);
    expect([await first.role(), await second.role()]).toEqual(["owner", "guest"]);
    // Nobody asks for a flush: a hidden tab does that by itself.
    await guest.write(UNFLUSHED, 2);
    const other = new Guest(second.page);
    await other.write(LATER, 3);
    expect(await second.readSector(FLUSHED)).toEqual(new Uint8Array(SECTOR).fill(1));
    await freeze(first.page);
    await roleIs(second, "owner");
    expect(await other.read(FLUSHED)).toBe(1);
    expect(await other.read(UNFLUSHED)).toBe(2);
    await goesOn(second);

    await thaw(first.page);
    await first.page.bringToFront();
    await roleIs(first, "guest");
    expect(await guest.flush()).toBe("");
    expect(await guest.read(UNFLUSHED)).toBe(2);
    await guest.write(UNFLUSHED, 4);
    expect(await guest.flush()).toBe("");
    expect(await other.read(UNFLUSHED)).toBe(4);
    expect(await guest.read(LATER)).toBe(3);
    await becomesWhole(user, [FLUSHED, 1], [UNFLUSHED, 4], [LATER, 3]);
  });

  it("keeps the others waiting where browsers do not tell it: they say so, and never show an empty store", async () => {
    await using user = await visitAsPeople();
    const first = user.driver;
    await deafen(first.page);
    await first.reload();
    await tryItSlowly(first);
    const guest = new Guest(first.page);
    await guest.write(FLUSHED, 1);
    const second = await openTab(user);
    await freeze(first.page);
    const third = new PageDriver(await browser!.context.newPage());
    await noteStages(third.page);
    await third.goto(user.server.url);
    for (const driver of [second, third]) {
      await driver.until("it says so", async () => /does not answer/.test(await words(driver)));
      expect((await words(driver)).match(/does not answer/g)).toHaveLength(1);
      await driver.page.setViewportSize({ width: 400, height: 700 });
      expect(
        await driver.page.evaluate(() => document.documentElement.scrollWidth),
      ).toBeLessThanOrEqual(400);
    }
    expect(await third.page.evaluate(() => window.stages)).toEqual(["waiting"]);
    await thaw(first.page);
    await third.waitForDisk();
    expect(await third.page.evaluate(() => window.stages)).not.toContain("start");
    expect(await third.role()).toBe("guest");
    const other = new Guest(third.page);
    await other.write(LATER, 3);
    expect(await other.read(FLUSHED)).toBe(1);
  });
});

describe("a tab that has the disks and is hidden", () => {
  it("gives them after a minute to the one that is looked at, and works through that one", async () => {
    await using user = await visitAsPeople();
    const first = user.driver;
    await tryItSlowly(first, SPEED / 8);
    const guest = new Guest(first.page);
    const second = await openTab(user);
    await guest.write(UNFLUSHED, 2);
    const other = new Guest(second.page);
    await other.write(LATER, 3);
    expect(await second.role()).toBe("guest");
    await expect.poll(() => second.role(), { timeout: 180_000, interval: 500 }).toBe("owner");
    expect(await first.role()).toBe("guest");
    await goesOn(second);
    expect(await other.read(UNFLUSHED)).toBe(2);
    await guest.write(FLUSHED, 1);
    expect(await guest.flush()).toBe("");
    await second.page.close();
    await roleIs(first, "owner");
    await becomesWhole(user, [FLUSHED, 1], [UNFLUSHED, 2], [LATER, 3]);
  });
});

describe("a tab that is frozen while it works through another one", () => {
  it("has lost nothing when it wakes, also if that one is gone by then", async () => {
    await using user = await visitAsPeople();
    const first = user.driver;
    await tryItSlowly(first);
    const second = await openTab(user);
    await first.page.bringToFront();
    const guest = new Guest(second.page);
    await guest.write(UNFLUSHED, 2);
    await freeze(second.page);
    const other = new Guest(first.page);
    await other.write(LATER, 3);
    expect(await other.read(UNFLUSHED)).toBe(2);
    await thaw(second.page);
    await roleIs(second, "guest");
    expect(await guest.flush()).toBe("");
    expect(await guest.read(UNFLUSHED)).toBe(2);

    const flushes = await countFlushes(second.page);
    await guest.write(FLUSHED, 1);
    // A hidden tab asks for that by itself, and what it was not told in time it would not know.
    await expect.poll(flushes).toBeGreaterThan(0);
    await freeze(second.page);
    await first.page.close();
    await thaw(second.page);
    await second.page.bringToFront();
    await roleIs(second, "owner");
    expect(await guest.flush()).toBe("");
    expect(await guest.read(FLUSHED)).toBe(1);
    expect(await guest.read(UNFLUSHED)).toBe(2);
  });
});

describe("a page that is left, and comes back from the cache of the browser,", () => {
  it("works through the tab that has taken over, or takes the disks again if there is none", async () => {
    await using user = await visitAsPeople();
    const first = user.driver;
    await noteReturns(first.page);
    await first.reload();
    await tryItSlowly(first);
    const guest = new Guest(first.page);
    await guest.write(FLUSHED, 1);
    await leaveAndComeBack(first);
    await roleIs(first, "owner");
    await thereOrTold(guest, FLUSHED, 1);
    await goesOn(first);

    const second = await openTab(user);
    await first.page.bringToFront();
    await guest.write(UNFLUSHED, 2);
    await leaveAndComeBack(first, async () => {
      await roleIs(second, "owner");
      await new Guest(second.page).write(LATER, 3);
    });
    await roleIs(first, "guest");
    await thereOrTold(guest, UNFLUSHED, 2);
    expect(await guest.read(LATER)).toBe(3);
    await guest.write(UNFLUSHED, 4);
    expect(await guest.flush()).toBe("");
    await becomesWhole(user, [FLUSHED, 1], [UNFLUSHED, 4], [LATER, 3]);
  });
});

/** The job is slow from its start: on a busy machine it would be over before a hand had set its speed. */
async function tryItSlowly(driver: PageDriver, bytesPerS = SPEED): Promise<void> {
  await driver.page.getByTestId("try-it").click();
  await driver.page.evaluate(
    async ([speed, flags]) => {
      const domain = window.blocktab!.domains.domain("page");
      for (;;) {
        try {
          return await domain.blockJobSetSpeed("vda", speed, flags);
        } catch {
          // There is no domain yet, or no job of its.
          await new Promise((resolve) => setTimeout(resolve, 10));
        }
      }
    },
    [bytesPerS, flags.BLOCK_JOB_SPEED.BANDWIDTH_BYTES] as const,
  );
  await driver.waitForDisk();
}

async function openTab(user: User): Promise<PageDriver> {
  const driver = await user.openTab();
  await driver.waitForDisk();
  return driver;
}

/** What had not been flushed when the page was left: the browser may have ended the worker amid that. */
async function thereOrTold(guest: Guest, offset: number, value: number): Promise<void> {
  const told = await guest.flush();
  if (told !== "EIO") expect([told, await guest.read(offset)]).toEqual(["", value]);
}

async function goesOn(driver: PageDriver): Promise<void> {
  // While the disks change hands the page may have no job to show.
  let seen = Number.POSITIVE_INFINITY;
  await driver.until("the job goes on", async () => {
    const offset = (await driver.job())?.offset ?? seen;
    const isOn = offset > seen;
    seen = Math.min(seen, offset);
    return isOn;
  });
}

/** What the page says while it waits. */
function words({ page }: PageDriver): Promise<string> {
  return page.evaluate(() => document.body.innerText);
}

/** To a page of another site, and back. */
async function leaveAndComeBack({ page }: PageDriver, meanwhile = async () => {}): Promise<void> {
  await page.goto("data:text/html,elsewhere");
  await meanwhile();
  await page.goBack({ waitUntil: "commit" });
  await page.waitForFunction(() => window.cameFrom !== undefined);
  expect(await page.evaluate(() => window.cameFrom)).toBe("cache");
}

/** The job of the tab that the user looks at comes to its end; the disk is the template with these sectors. */
async function becomesWhole(user: User, ...sectors: [offset: number, value: number][]) {
  const { driver } = user;
  await driver.setSpeed("unlimited");
  expect(await driver.waitForOutcome()).toMatchObject({ outcome: "completed" });
  for (const [offset, value] of sectors) {
    user.writes.push({ offset, bytes: new Uint8Array(SECTOR).fill(value) });
  }
  await judge(user);
}
