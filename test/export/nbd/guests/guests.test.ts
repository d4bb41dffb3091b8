/**
 * The real qemu-io writes to an export and verifies what it reads, on several connections, while
 * jobs change what lies below. Then nbdcopy takes the disk out, and every image is judged.
 *
 *     GUESTS_SECONDS=300 GUESTS_SEED=7 npx vitest run --project node test/export/nbd/guests
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFailed } from "vitest";
import { MiB } from "../../../../src/base/bytes.ts";
import { SystemClock } from "../../../../src/base/clock.ts";
import { seededRandom } from "../../../../src/base/random.ts";
import { connectLocally } from "../../../../src/engine/node.ts";
import { Dice } from "../../../model/dice.ts";
import { hasLibnbd, hasQemu, must, ours, testFolder, uri } from "../rig.ts";
import { DiskModel } from "./disk-model.ts";
import { divide, Guest } from "./guest.ts";
import { Jobs, type Step } from "./jobs.ts";

/** After every kind of job has run once, they go on until then. */
const SECONDS = Number(process.env["GUESTS_SECONDS"] ?? 5);
/** The same dice in every run, though not the same timing. */
const SEED = Number(process.env["GUESTS_SEED"] ?? 1);
/** Not a round number of anything but sectors. */
const SIZE = 9 * MiB + 5 * 512;
const GUESTS = 3;

const STEPS: readonly Step[] = [
  (jobs) => jobs.grow(),
  (jobs) => jobs.stream(),
  (jobs) => jobs.commit(),
  (jobs) => jobs.activeCommit(),
  (jobs) => jobs.mirrorAndPivot("background"),
  (jobs) => jobs.mirrorAndPivot("write-blocking"),
  (jobs) => jobs.mirrorAndStay("background"),
  (jobs) => jobs.mirrorAndStay("write-blocking"),
  (jobs) => jobs.backup(),
  (jobs) =>
    jobs.together(
      (one) => one.backup(),
      (other) => other.stream(),
    ),
  (jobs) =>
    jobs.together(
      (one) => one.backup(),
      (other) => other.backup(),
    ),
  (jobs) =>
    jobs.together(
      (one) => one.mirrorAndStay("background"),
      (other) => other.streamBelow(),
    ),
];

const folder = testFolder();

describe.skipIf(!hasQemu || !hasLibnbd)("guests over NBD while jobs run under them", () => {
  it("read what they wrote, and so does everything that was copied", {
    timeout: 60_000 + SECONDS * 2000,
  }, async () => {
    console.log(`GUESTS_SEED=${SEED}`);
    onTestFailed(() => console.log(`It failed with GUESTS_SEED=${SEED}`));
    const dice = new Dice(seededRandom(SEED));
    const model = new DiskModel(SIZE);
    const served = await ours(folder);
    const client = await connectLocally(served.engine);
    const jobs = new Jobs(client, folder, model, dice);
    const { node } = await jobs.open();
    await served.execute("block-export-add", {
      type: "nbd",
      id: "e",
      "node-name": node,
      name: "disk",
      writable: true,
    });
    const guests = divide(SIZE, GUESTS, dice).map(
      (share, i) => new Guest(served.socket, model, new Dice(seededRandom(SEED + i)), share),
    );

    let isOver = false;
    const working = guests.map(async (guest) => {
      while (!isOver) await guest.batch();
    });
    const oneFails = new Promise<never>((_, reject) => {
      for (const work of working) work.catch(reject);
    });
    oneFails.catch(() => {});
    try {
      await Promise.race([runJobs(jobs, dice), oneFails]);
    } finally {
      isOver = true;
      await Promise.allSettled(working);
    }
    await Promise.all(working);

    const disk = join(folder, "disk.raw");
    await must("nbdcopy", uri(served.socket, "disk"), disk);
    expect(model.capture().end().problem(readFileSync(disk))).toBe(null);
    await client.close();
    await served.close();
    await jobs.judgeFiles(disk);
    for (const guest of guests) expect(guest.requests).toBeGreaterThan(0);
    console.log(
      Object.fromEntries(jobs.done),
      guests.map(({ requests, batches }) => ({ requests, batches })),
    );
  });
});

async function runJobs(jobs: Jobs, dice: Dice): Promise<void> {
  const clock = new SystemClock();
  const end = clock.now() + SECONDS * 1000;
  do {
    // Each once, in another order every time.
    const left = [...STEPS];
    while (left.length > 0) {
      const [step] = left.splice(dice.below(left.length), 1);
      await step!(jobs);
    }
  } while (clock.now() < end);
}
