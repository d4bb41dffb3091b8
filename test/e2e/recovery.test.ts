/**
 * A real Chromium is killed, again and again, while five guests write and a stream, a commit, a commit of
 * the active layer, a mirror and a backup are at work, each on a disk of its own. It is started again on
 * the same profile: the jobs go on, what was flushed is there, the images are sound, and each job ends as
 * it should, with the guest's bytes on its disk, and in the backup those of the moment at which it began.
 *
 * A kill may come while the journal is read, jobs are started again, images are made for the next run, and
 * while disks move to another image. KILLS (of each job) and KILLS_SEED make it more, and other ones.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Page } from "playwright";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { type Random, seededRandom } from "../../src/base/random.ts";
import { idsOf } from "../crash/content.ts";
import type { Expected } from "../crash/guest.ts";
import { KillableChromium } from "./kill/chromium.ts";
import { expectedAfter } from "./kill/expected.ts";
import { stepsOf } from "./kill/plan.ts";
import { OwnPage } from "./own-page.ts";
import { asQemuReads, wrongImages } from "./recovery/judge.ts";
import {
  DISK_BYTES,
  type Ended,
  type Found,
  guestOf,
  IDS_PER_LIFE,
  KINDS,
  type Kind,
  type Orders,
} from "./recovery/plan.ts";

const KILLS = Number(process.env["KILLS"] ?? 25);
const SEED = Number(process.env["KILLS_SEED"] ?? 1);
/** From the guests' first steps to the end. */
const LIFE_MS = 1000;
/** No life takes so long, on the slowest machine: it hangs. */
const LIMIT_MS = 120_000;
/** From the moment at which some job has begun to end, where that is what the kill waits for. */
const ENDING_MS = 40;

let own: OwnPage;
let browser: KillableChromium | undefined;

beforeAll(async () => {
  own = await OwnPage.serve("recovery");
});

afterEach(() => browser?.kill());

afterAll(() => own.close());

/** What is known of one disk. */
interface Known {
  /** As it was seen last. */
  ids: Int32Array;
  /** What the guest has made of it since, as far as it can be known. */
  expected: Expected | null;
}

/** All lives on one profile. */
class Story {
  readonly completed = counts();
  readonly interrupted = counts();
  readonly #random: Random;
  readonly #disks = new Map<Kind, Known>();
  /** Runs of jobs whose end has been judged. */
  readonly #judged = new Set<string>();
  /** How long steps of waking up have taken lately, in ms. */
  readonly #lengths = { open: 500, look: 500, start: 500 };
  /** What the run of the backup that is under way has to have. */
  #backup: Int32Array | null = null;
  #nextId = 2;
  // Of this life's guests, as they tell it.
  readonly #begun = new Map<Kind, number>();
  readonly #flushed = new Map<Kind, number>();
  #death: Death | undefined;
  /** Since the last look. */
  #kills = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  async begin(): Promise<void> {
    browser = await this.#open();
    const { page } = browser;
    await page.evaluate(() => window.life.open());
    await page.evaluate(() => window.life.make());
    expect(await page.evaluate(() => window.life.look())).toMatchObject({ problems: [] });
    for (const kind of KINDS) {
      const ids = idsOf(readFileSync(join(own.folder, `disk-${kind}`)));
      this.#disks.set(kind, { ids, expected: null });
    }
    await browser.kill();
  }

  /** What the page tells is asked for here: Playwright itself breaks if the browser is killed amid that. */
  async #open(): Promise<KillableChromium> {
    const opened = await KillableChromium.launch(join(own.folder, "profile"));
    const { page } = opened;
    await page.exposeFunction("begin", (kind: Kind, to: number) => {
      this.#begun.set(kind, to);
    });
    await page.exposeFunction("flushed", (kind: Kind, step: number) => {
      this.#flushed.set(kind, step);
    });
    await page.exposeFunction("ending", () => this.#death?.reach("ending", ENDING_MS));
    await page.goto(own.url);
    await page.waitForFunction(() => "life" in window);
    return opened;
  }

  /** Of one browser, from its start until it is killed. */
  async live(): Promise<void> {
    browser = await this.#open();
    const death = new Death(browser, this.#random);
    await browser.page.evaluate(() => window.life.sendFiles());
    try {
      await this.#wakeUp(browser.page, death);
    } catch (error) {
      if (!death.isComing || !isEnd(error)) throw error;
      await death.come;
      this.#kills++;
      return;
    }
    await this.#liveUntil(browser.page, death.come, death);
    this.#kills++;
  }

  /** The last one, in which everything comes to its end. */
  async end(): Promise<void> {
    browser = await this.#open();
    const { page } = browser;
    await page.evaluate(() => window.life.sendFiles());
    await this.#wakeUp(page);
    await this.#liveUntil(
      page,
      page.evaluate(() => window.life.finish()),
    );
    const found = await page.evaluate(() => window.life.look());
    await page.evaluate(() => window.life.close());
    await page.evaluate(() => window.life.sendFiles());
    await this.#judge(found);
  }

  /** Looks whether all is as it must be, and starts what has come to its end. */
  async #wakeUp(page: Page, death?: Death): Promise<void> {
    const step = async <T>(name: Step, work: () => Promise<T>): Promise<T> => {
      death?.reach(name, this.#lengths[name]);
      const began = performance.now();
      const result = await work();
      this.#lengths[name] = performance.now() - began;
      return result;
    };
    await step("open", () => page.evaluate(() => window.life.open()));
    const found = await step("look", () => page.evaluate(() => window.life.look()));
    for (const kind of found.interrupted) this.interrupted[kind] += this.#kills;
    this.#kills = 0;
    await this.#judge(found);
    if (!found.atWork.includes("backup")) this.#backup = this.#disks.get("backup")!.ids;
    await step("start", () => page.evaluate(() => window.life.start()));
  }

  async #judge({ chains, ended, problems }: Found): Promise<void> {
    expect(problems).toEqual([]);
    expect(await wrongImages(own.folder, chains)).toEqual([]);
    for (const kind of KINDS) {
      const known = this.#disks.get(kind)!;
      const disk = readFileSync(join(own.folder, `disk-${kind}`));
      const ids = idsOf(disk);
      expect(known.expected?.wrong(ids, disk.length) ?? wrongIds(ids, known.ids), kind).toBe("");
      const asQemu = await asQemuReads(own.folder, chains[kind][0]!);
      expect(Buffer.compare(asQemu, disk), `${kind}, as QEMU reads it`).toBe(0);
      this.#disks.set(kind, { ids, expected: null });
    }
    for (const kind of KINDS) {
      const end = ended[kind];
      if (end) await this.#judgeEnd(kind, end);
    }
  }

  async #judgeEnd(kind: Kind, end: Ended): Promise<void> {
    const run = JSON.stringify([kind, end.began]);
    if (this.#judged.has(run)) return;
    this.#judged.add(run);
    if (end.outcome === "completed") {
      this.completed[kind]++;
      if (kind !== "backup") return;
      const ids = idsOf(await asQemuReads(own.folder, "backup-target"));
      expect(wrongIds(ids, this.#backup!), "the backup").toBe("");
    } else {
      const why = kind === "backup" ? /never started|moment/ : /never started/;
      expect(end, kind).toEqual({ ...end, outcome: "failed", error: expect.stringMatching(why) });
    }
  }

  /** Guests write until `end` has come. */
  async #liveUntil(page: Page, end: Promise<unknown>, death?: Death): Promise<void> {
    this.#begun.clear();
    this.#flushed.clear();
    this.#death = death;
    const orders = this.#orders(death?.at === "ending");
    const live = async () => {
      death?.reach("life", LIFE_MS);
      await page.evaluate((orders) => window.life.run(orders), orders);
    };
    const lived = live().catch((error) => {
      if (!death?.isComing || !isEnd(error)) throw error;
    });
    await Promise.all([lived, end]);
    for (const [kind, last] of this.#begun) {
      const known = this.#disks.get(kind)!;
      const plan = stepsOf(...guestOf(orders, kind), DISK_BYTES);
      const done = (this.#flushed.get(kind) ?? -1) + 1;
      known.expected = expectedAfter(known.ids, plan, last, done);
    }
  }

  /** @param manyEnd as many jobs as there are, and soon */
  #orders(manyEnd: boolean): Orders {
    const hurry: Partial<Record<Kind, number>> = {};
    for (const kind of KINDS) {
      const ms = this.#random.below(LIFE_MS);
      if (this.#random.below(manyEnd ? 2 : 4) === 0) hurry[kind] = ms;
    }
    const firstId = this.#nextId;
    this.#nextId += KINDS.length * IDS_PER_LIFE;
    return { firstId, hurry };
  }
}

/** When a browser is killed: soon after one of these. */
const MOMENTS = ["open", "look", "start", "life", "life", "life", "ending", "ending"] as const;
type Moment = (typeof MOMENTS)[number];
type Step = Exclude<Moment, "life" | "ending">;

class Death {
  readonly at: Moment;
  readonly come: Promise<void>;
  isComing = false;
  readonly #share: number;
  readonly #doom: (ms: number) => void;

  constructor(browser: KillableChromium, random: Random) {
    this.at = MOMENTS[random.below(MOMENTS.length)]!;
    this.#share = random.below(1000) / 1000;
    let doom = (_ms: number) => {};
    this.come = new Promise<number>((resolve) => {
      doom = resolve;
    })
      .then((ms) => sleep(ms))
      .then(() => browser.kill());
    this.#doom = doom;
  }

  /** It is so far. @param ms the end may come so much later */
  reach(moment: Moment, ms: number): void {
    // Where no job comes to its end, life does.
    const isLate = this.at === "ending" && moment === "life";
    if (moment !== this.at && !isLate) return;
    this.isComing = true;
    if (isLate) void sleep(2 * ms).then(() => this.#doom(0));
    else this.#doom(this.#share * ms);
  }
}

function counts(): Record<Kind, number> {
  return { stream: 0, commit: 0, active: 0, mirror: 0, backup: 0 };
}

function wrongIds(ids: Int32Array, wanted: Int32Array): string {
  const at = ids.findIndex((id, sector) => id !== wanted[sector]);
  return at < 0 ? "" : `sector ${at} reads as write ${ids[at]}, not as write ${wanted[at]}`;
}

/** What whoever talks to a browser hears when it is killed. */
function isEnd(error: unknown): boolean {
  return error instanceof Error && /closed|crash|disconnect/i.test(error.message);
}

/** @throws Error when it takes too long */
async function inTime<T>(life: Promise<T>): Promise<T> {
  const stop = new AbortController();
  const late = sleep(LIMIT_MS, null, { signal: stop.signal }).then(() => {
    throw new Error(`A life has not come to its end in ${LIMIT_MS} ms`);
  });
  late.catch(() => {});
  try {
    return await Promise.race([life, late]);
  } finally {
    stop.abort();
  }
}

/** What the page finds around it, where it can still be asked. */
async function stateOf(page: Page | undefined): Promise<string> {
  const asked = page?.evaluate(() => window.life.state()).catch((error) => `no state: ${error}`);
  const late = sleep(5000).then(() => "The page gives no account of itself");
  return (await Promise.race([asked, late])) ?? "";
}

it(`five jobs outlive a browser that is killed ${KILLS} times amid each of them`, async () => {
  const story = new Story(seededRandom(SEED));
  const { completed, interrupted } = story;
  let life = 0;
  try {
    await story.begin();
    while (Math.min(...Object.values(interrupted)) < KILLS) {
      await inTime(story.live());
      // Jobs that end before the kill do not count; here they would never be met.
      expect(++life, JSON.stringify(interrupted)).toBeLessThan(4 * KILLS + 10);
    }
    await inTime(story.end());
    for (const kind of KINDS) expect(completed[kind], kind).toBeGreaterThan(0);
  } catch (error) {
    const state = await stateOf(browser?.page);
    throw new Error(`KILLS_SEED=${SEED}, after ${life} kills: ${error}\n${state}`, {
      cause: error,
    });
  }
}, 1_800_000);
