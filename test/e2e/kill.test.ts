/**
 * A real Chromium is killed while a guest writes and a stream is under way, and started again on the
 * same profile: the images in OPFS are sound, and all that the guest had flushed is there.
 *
 * CRASH_KILLS and CRASH_SEED make it more, and other ones.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { seededRandom } from "../../src/base/random.ts";
import { idsOf } from "../crash/content.ts";
import { qemuCheck, qemuImg } from "../drivers/format/rig.ts";
import { KillableChromium } from "./kill/chromium.ts";
import { expectedAfter } from "./kill/expected.ts";
import { stepsOf } from "./kill/plan.ts";
import { OwnPage } from "./own-page.ts";

const KILLS = Number(process.env["CRASH_KILLS"] ?? 10);
const SEED = Number(process.env["CRASH_SEED"] ?? 1);
/** From the guest's first step to the end. */
const LIFE_MS = 1500;
const LEAKS = 3;
/** A stream takes several lives; then the images are made anew. */
const ROUNDS_PER_IMAGE = 5;

let own: OwnPage;
let browser: KillableChromium | undefined;

beforeAll(async () => {
  own = await OwnPage.serve("kill");
});

afterEach(() => browser?.kill());

afterAll(() => own.close());

it(`a browser that is killed ${KILLS} times loses nothing that was flushed`, async () => {
  let steps = 0;
  let judge = (_disk: Uint8Array) => {};
  for (let round = 0; round <= KILLS; round++) {
    browser = await open();
    // The first life has nothing to look back at.
    if (round > 0) judge(await look());
    if (round === KILLS) break;
    if (round % ROUNDS_PER_IMAGE === 0) await browser.page.evaluate(() => window.victim.make());
    const start = idsOf(await look());
    const seed = SEED + round;
    const { begun, done } = await liveAndDie(seed, firstIdOf(round));
    steps += done;
    const expected = expectedAfter(start, stepsOf(seed, firstIdOf(round)), begun, done);
    judge = (disk) => {
      const where = `seed ${seed}: killed in step ${begun}, ${done} were done`;
      for (const name of ["base", "top"]) {
        const { status, text } = qemuCheck(own.folder, name);
        expect([0, LEAKS], `${where}: ${name}: ${text}`).toContain(status);
      }
      expect(expected.wrong(idsOf(disk), disk.length), where).toBe("");
      qemuImg(own.folder, "convert", "-f", "qcow2", "-O", "raw", "top", "as-qemu-reads");
      expect(Buffer.compare(readFileSync(join(own.folder, "as-qemu-reads")), disk), where).toBe(0);
    };
  }
  expect(steps).toBeGreaterThan(KILLS);
}, 600_000);

/** Each life's writes have ids of their own; 1 is base's. */
const firstIdOf = (round: number) => 2 + round * 1_000_000;

async function open(): Promise<KillableChromium> {
  const opened = await KillableChromium.launch(join(own.folder, "profile"));
  await opened.page.goto(own.url);
  await opened.page.waitForFunction(() => "victim" in window);
  return opened;
}

/** @returns the disk as the engine reads it; the files are in the own.folder then */
async function look(): Promise<Uint8Array> {
  await browser!.page.evaluate(() => window.victim.show());
  return new Uint8Array(readFileSync(join(own.folder, "disk")));
}

/** @returns the last step that had begun, and how many were over */
async function liveAndDie(seed: number, firstId: number): Promise<{ begun: number; done: number }> {
  const { page } = browser!;
  let begun = -1;
  let done = 0;
  let first = () => {};
  const isAlive = new Promise<void>((resolve) => {
    first = resolve;
  });
  await page.exposeFunction("begun", (step: number) => {
    begun = step;
    first();
  });
  await page.exposeFunction("done", (step: number) => {
    done = step + 1;
  });
  const death = page
    .evaluate(({ seed, firstId }) => window.victim.run(seed, firstId), { seed, firstId })
    .then(
      () => new Error("the guest has come to an end"),
      (error: Error) => error,
    );
  await Promise.race([isAlive, death.then((error) => Promise.reject(error))]);
  await new Promise((resolve) => setTimeout(resolve, seededRandom(seed).below(LIFE_MS)));
  await browser!.kill();
  expect((await death).message).toMatch(/closed|crash|disconnect/i);
  return { begun, done };
}
