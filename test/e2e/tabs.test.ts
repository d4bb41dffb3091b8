/**
 * A real Chromium with several tabs on one disk, whose guests write to the same sectors, and whose users
 * ask for jobs and snapshots of it, while tabs are opened, closed, reloaded and crashed at random: every
 * read is one that a disk could give, nothing that was flushed is lost, every job comes to its end, and the
 * images are clean to the real qemu-img.
 *
 * TABS_ACTS and TABS_SEED make it more, and another one.
 */

import { mkdtempSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type BrowserContext, chromium, type Page } from "playwright";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { chromiumLaunchOptions } from "../../scripts/chromium.mjs";
import { type Random, seededRandom } from "../../src/base/random.ts";
import { qemuCheck, qemuImg } from "../drivers/format/rig.ts";
import { History, type Write, type Writer } from "../engine/tabs/history.ts";
import { OwnPage } from "./own-page.ts";
import { SECTORS, type Word } from "./tabs/plan.ts";

const ACTS = Number(process.env["TABS_ACTS"] ?? 8);
const SEED = Number(process.env["TABS_SEED"] ?? 1);
/** Between two acts. */
const PAUSE_MS = 700;
/** Of qemu-img check: what an owner that was crashed may leave behind. */
const LEAKS = 3;

let own: OwnPage;
let browser: BrowserContext | undefined;

beforeAll(async () => {
  own = await OwnPage.serve("tabs");
});

afterEach(() => browser?.close());

afterAll(() => own.close());

/** A tab and its guest; after a reload it is another one. */
class Guest implements Writer {
  isDead = false;
  readonly page: Page;
  readonly seed: number;
  readonly writes = new Map<number, Write>();
  /** Of window.tab.run(). */
  done: Promise<number> = Promise.resolve(0);

  constructor(page: Page, seed: number) {
    this.page = page;
    this.seed = seed;
  }
}

class Crowd {
  readonly guests: Guest[] = [];
  readonly problems: unknown[] = [];
  readonly history = new History();
  /** What users have asked for, and how it went: how often. */
  readonly asked = new Map<string, number>();
  readonly #context: BrowserContext;
  readonly #random: Random;

  constructor(context: BrowserContext, random: Random) {
    this.#context = context;
    this.#random = random;
  }

  async listen(): Promise<void> {
    await this.#context.exposeBinding("tell", (_, seed: number, word: Word) =>
      this.#hear(seed, word),
    );
  }

  async open(page?: Page): Promise<Guest> {
    const seed = 1 + this.#random.below(2 ** 31);
    const guest = new Guest(page ?? (await this.#context.newPage()), seed);
    this.guests.push(guest);
    await guest.page.goto(own.url);
    await guest.page.waitForFunction(() => "tab" in window);
    await guest.page.evaluate(() => window.tab.make());
    guest.done = guest.page.evaluate((seed) => window.tab.run(seed), seed);
    guest.done.catch((error: unknown) => {
      if (!guest.isDead) this.problems.push(error);
    });
    return guest;
  }

  /** One more, one fewer, or one anew. */
  async act(most: number): Promise<void> {
    const guest = this.guests[this.#random.below(this.guests.length)]!;
    const dice = this.#random.below(4);
    if (this.guests.length < most && dice < 2) return void (await this.open());
    if (this.guests.length === 1 || dice === 3) {
      this.#leave(guest);
      return void (await this.open(guest.page));
    }
    this.#leave(guest);
    if (dice === 2) await guest.page.close({ runBeforeUnload: true });
    else {
      const session = await this.#context.newCDPSession(guest.page);
      session.send("Page.crash").catch(() => {});
      await guest.page.waitForEvent("crash");
      await guest.page.close();
    }
  }

  #leave(guest: Guest): void {
    guest.isDead = true;
    this.guests.splice(this.guests.indexOf(guest), 1);
  }

  #hear(seed: number, word: Word): number | Promise<never> {
    const guest = this.guests.find((one) => one.seed === seed);
    const { history } = this;
    // It has been left, and what it does from now on nobody wants to know: it does nothing more.
    if (!guest) return new Promise(() => {});
    switch (word.what) {
      case "begin":
        return history.now();
      case "begin-write": {
        const write = history.begin(guest, word.sector, false);
        guest.writes.set(write.id, write);
        return write.id;
      }
      case "wrote":
        history.end(guest.writes.get(word.id)!, word.epoch);
        break;
      case "flushed":
        history.flushed(word.began, guest, word.epoch);
        break;
      case "lost":
        history.lost(guest);
        break;
      case "asked":
        this.asked.set(word.text, (this.asked.get(word.text) ?? 0) + 1);
        break;
      case "read":
        try {
          history.check(word.sector, word.id, word.began);
        } catch (error) {
          this.problems.push(error);
        }
    }
    return history.now();
  }
}

it.each([2, 5])("%i tabs on one disk come, go and crash, and nothing is lost", async (most) => {
  const random = seededRandom(SEED * 10 + most);
  const profile = mkdtempSync(join(own.folder, "profile-"));
  browser = await chromium.launchPersistentContext(profile, {
    ...chromiumLaunchOptions(),
    headless: true,
    // As people have it.
    ignoreDefaultArgs: ["--disable-back-forward-cache"],
  });
  const crowd = new Crowd(browser, random);
  await crowd.listen();
  while (crowd.guests.length < most) await crowd.open();
  for (let act = 0; act < ACTS; act++) {
    await new Promise((resolve) => setTimeout(resolve, random.below(PAUSE_MS)));
    await crowd.act(most);
  }
  const [last, ...others] = crowd.guests;
  for (const guest of crowd.guests) {
    await guest.page.evaluate(() => window.tab.stop());
    await guest.done;
  }
  expect(crowd.history.writeCount, `seed ${SEED}`).toBeGreaterThan(ACTS);
  const done = [...crowd.asked.keys()].filter((text) => text.endsWith("done"));
  expect(done.length, `seed ${SEED}: ${done}`).toBeGreaterThan(4);
  for (const guest of others) await guest.page.close();
  const { page } = last!;
  const readAll = async () => {
    for (let sector = 0; sector < SECTORS; sector++) {
      await page.evaluate((sector) => window.tab.read(sector), sector);
    }
  };
  await readAll();
  await page.evaluate(() => window.tab.settle());
  await readAll();
  expect(crowd.problems, `seed ${SEED}`).toEqual([]);
  const chain = await page.evaluate(() => window.tab.send());
  // Labels in images are of this browser's store: here they are files.
  chain.slice(0, -1).forEach((name, i) => {
    qemuImg(own.folder, "rebase", "-u", "-f", "qcow2", "-b", chain[i + 1]!, "-F", "qcow2", name);
  });
  for (const name of chain) {
    const { status, text } = qemuCheck(own.folder, name);
    expect([0, LEAKS], text).toContain(status);
  }
  qemuImg(own.folder, "convert", "-f", "qcow2", "-O", "raw", chain[0]!, "as-qemu-reads");
  const read = readFileSync(join(own.folder, "disk"));
  expect(Buffer.compare(readFileSync(join(own.folder, "as-qemu-reads")), read)).toBe(0);
});
