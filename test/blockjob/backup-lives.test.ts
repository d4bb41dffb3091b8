/**
 * Backups whose engine is lost at any moment, again and again, while guests write: the target has the
 * moment of the start in the end, or the job says that this is lost; and the bitmap has all that the next
 * incremental backup needs.
 */

import { expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { BlockError } from "../../src/base/errors.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import { addBitmap, clearBitmap } from "../../src/block/bitmap-changes.ts";
import { startBackup } from "../../src/blockjob/backup.ts";
import type { BlockJob } from "../../src/blockjob/block-job.ts";
import { BusyGuest, bytesOf, type Left, LIVES_SIZE, type Life, live, newImages } from "./lives.ts";

const SEEDS = Number(process.env["INTENT_SEEDS"] ?? 10);
const FIRST = Number(process.env["INTENT_FIRST"] ?? 1);
const GRANULE = 64 * KiB;

async function open(life: Life): Promise<void> {
  for (const name of ["top", "target"]) {
    await life.add({ driver: "qcow2", "node-name": name, file: { driver: `${name}-store` } });
  }
}

/** A disk with data and a bitmap; and a target that is a backup of when the bitmap was clean. */
async function prepare(random: Random): Promise<{ left: Left; clean: Buffer }> {
  const life = await live(await newImages(["top", "target"], random), random, 1);
  await open(life);
  const devices = [life.device("top"), life.device("target", "vdb")];
  const fill = async (disks: typeof devices, count: number) => {
    for (let i = 0; i < count; i++) {
      const offset = random.below(LIVES_SIZE - MiB);
      const data = bytesOf(random, 1 + random.below(MiB));
      for (const disk of disks) await life.clock.runUntil(disk.write(data, offset));
    }
  };
  await fill(devices, 6);
  const clean = await life.content("top");
  addBitmap(life.graph, {
    node: "top",
    name: "b0",
    persistent: true,
    granularity: GRANULE,
  }).commit();
  await fill(devices.slice(0, 1), 3);
  for (const disk of devices) await life.clock.runUntil(life.graph.closeBackend(disk));
  for (const name of ["top", "target"]) await life.clock.runUntil(life.graph.remove(name));
  return { left: { ...life.look(), intents: null }, clean };
}

function start(life: Life, sync: "full" | "incremental", intent: string | undefined) {
  const bitmap = sync === "incremental" ? { bitmap: "b0" } : {};
  const options = { jobId: "b0", device: "vda", target: "target", maxWorkers: 2, intent };
  return startBackup(life.services, { ...options, ...bitmap, sync });
}

const idOf = (job: BlockJob) => (job.driver.journal!(job) as { intent?: string }).intent;

it.each(["full", "incremental"] as const)(
  "after any crashes a backup (%s) is of its moment, or says that this is lost",
  async (sync) => {
    const outcomes = { done: 0, lost: 0 };
    for (let seed = FIRST; seed < FIRST + SEEDS; seed++) {
      const random = seededRandom(seed);
      const what = `seed ${seed}`;
      let { left, clean } = await prepare(random);
      let moment: Buffer | null = null;
      let intent: string | undefined;
      for (let epoch = 2; ; epoch++) {
        const life = await live(left, random, epoch);
        const isLast = epoch === 5;
        await open(life);
        const disk = life.device("top");
        if (!moment) {
          // Not flushed: it is part of the moment all the same.
          for (let i = 0; i < 3; i++) {
            const data = bytesOf(random, 1 + random.below(100_000));
            await life.clock.runUntil(disk.write(data, random.below(LIVES_SIZE - MiB)));
          }
          moment = await life.content("top");
        }
        if (!isLast)
          life.dieAfter(5 + random.below(random.below(2) ? 100 : 1000), random.below(2) > 0);
        let job: BlockJob | null = null;
        let error: unknown = null;
        const started = start(life, sync, intent).then(
          (it) => {
            job = it;
            intent = idOf(it);
            it.setSpeed((1 + random.below(4)) * MiB);
          },
          (reason) => {
            error = reason;
          },
        );
        for (let i = 0; i < 10 && !job && !error && !life.remains; i++)
          await life.clock.advance(50);
        if (error) {
          life.dieAfter(Number.POSITIVE_INFINITY, true);
          expect(error, what).toBeInstanceOf(BlockError);
          expect((error as BlockError).message, what).toContain("moment of the backup is lost");
          expect(JSON.parse(left.intents ?? "{}").records?.[intent!], what).toBe(undefined);
          expectMarked(life, clean, await life.content("top"), what);
          outcomes.lost++;
          break;
        }
        const guest = new BusyGuest(disk, random);
        for (let i = 0; i < 20 && !life.remains && (job ?? isLast); i++) {
          guest.act();
          await life.clock.advance(random.below(300));
        }
        if (!isLast && !ended(job)) {
          left = life.remains ?? life.look();
          if (intent === undefined) moment = null;
          expect(life.bugs, what).toEqual([]);
          continue;
        }
        if (life.remains) break; // It had ended, and nothing was left to see.
        life.dieAfter(Number.POSITIVE_INFINITY, true);
        await life.clock.runUntil(Promise.all([started, guest.idle()]));
        if (!ended(job)) job!.setSpeed(0);
        await life.clock.runUntil(job!.finished);
        expect(job!.error, what).toBe(null);
        expect(life.bugs, what).toEqual([]);
        expect(guest.failures, what).toEqual([]);
        expect(Buffer.compare(await life.content("target"), moment), what).toBe(0);
        const since = sync === "incremental" ? moment : clean;
        expectMarked(life, since, await life.content("top"), what);
        outcomes.done++;
        break;
      }
    }
    expect(outcomes.done).toBeGreaterThan(0);
  },
  120_000,
);

function ended(job: BlockJob | null): boolean {
  return job?.completed ?? false;
}

/** The bitmap has every granule in which the disk is not what it was. */
function expectMarked(life: Life, before: Buffer, after: Buffer, what: string): void {
  const bitmap = life.graph.get("top").bitmaps.get("b0");
  expect(bitmap.inconsistent, what).toBe(false);
  for (let at = 0; at < LIVES_SIZE; at += GRANULE) {
    const end = Math.min(at + GRANULE, LIVES_SIZE);
    if (bitmap.isDirty(at)) continue;
    const isSame = Buffer.compare(before.subarray(at, end), after.subarray(at, end)) === 0;
    expect(isSame, `${what}: ${at}`).toBe(true);
  }
}

it("M08 a backup that somebody wrote beside ends, and the next incremental one is right", async () => {
  const random = seededRandom(7);
  const { left } = await prepare(random);
  const first = await live(left, random, 2);
  await open(first);
  const disk = first.device("top");
  const job = await first.clock.runUntil(start(first, "incremental", undefined));
  job.setSpeed(64 * KiB);
  await first.clock.runUntil(disk.write(bytesOf(random, 512), 2 * MiB));
  const between = await live(first.look(), random, 3);
  await open(between);
  const vda = between.device("top");
  await between.clock.runUntil(vda.write(bytesOf(random, 512), 3 * MiB));
  await between.clock.runUntil(vda.flush());
  const next = await live(between.look(), random, 4);
  await open(next);
  next.device("top");
  const again = start(next, "incremental", idOf(job));
  await expect(next.clock.runUntil(again)).rejects.toThrow(/moment of the backup is lost/);
  const bitmap = next.graph.get("top").bitmaps.get("b0");
  expect(bitmap).toMatchObject({ inconsistent: false, busy: false });
  for (const at of [2 * MiB, 3 * MiB]) expect(bitmap.isDirty(at)).toBe(true);
  const anew = await next.clock.runUntil(start(next, "incremental", undefined));
  await next.clock.runUntil(anew.finished);
  expect(Buffer.compare(await next.content("top"), await next.content("target"))).toBe(0);
});

it("fails for a flush amid the copying that failed, though the one at the end goes well", async () => {
  const random = seededRandom(8);
  const { left } = await prepare(random);
  const life = await live(left, random, 2);
  await open(life);
  life.device("top");
  const job = await life.clock.runUntil(start(life, "full", undefined));
  job.setSpeed(MiB);
  const { state } = life.graph.get("target");
  const flush = state.flush!.bind(state);
  let flushes = 0;
  state.flush = async () => {
    if (++flushes > 1) return flush();
    await new Promise<void>((done) => void life.clock.setTimer(20_000, done));
    throw new BlockError("EIO", "Some of it is lost");
  };
  await life.clock.runUntil(job.finished);
  expect(flushes).toBe(1);
  expect(job.error).toMatchObject({ errno: "EIO" });
});

it.each(["with", "without"])(
  "what a backup gave back to a bitmap outlives its engine, %s a record, though no guest has written",
  async (how) => {
    const random = seededRandom(3);
    const { left } = await prepare(random);
    const before = await live(left, random, 2);
    await open(before);
    clearBitmap(before.graph, { node: "top", name: "b0" }).commit();
    await before.clock.runUntil(before.graph.remove("top"));
    const first = await live(before.look(), random, 3);
    await open(first);
    first.device("top");
    const options = { jobId: "j", device: "vda", target: "target", sync: "full" } as const;
    const manners = { bitmap: "b0", bitmapMode: "always", speed: GRANULE } as const;
    const job = await first.clock.runUntil(startBackup(first.services, { ...options, ...manners }));
    await first.clock.advance(1000);
    job.cancel(true);
    await first.clock.runUntil(job.finished);
    expect(
      first.graph
        .get("top")
        .bitmaps.get("b0")
        .isDirty(4 * MiB),
    ).toBe(true);
    await first.clock.runUntil(first.intents.settled());
    const found = how === "with" ? first.look() : { ...first.look(), intents: null };
    const next = await live(found, random, 4);
    await open(next);
    const bitmap = next.graph.get("top").bitmaps.get("b0");
    if (how === "with") expect(bitmap).toMatchObject({ inconsistent: false, enabled: true });
    if (how === "with") expect(bitmap.isDirty(4 * MiB)).toBe(true);
    else expect(bitmap.inconsistent).toBe(true);
  },
);
