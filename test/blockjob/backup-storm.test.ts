/**
 * Backups of a disk that is written to without a break, in stores that fail and take their time,
 * with pauses, drains and changes of speed: what is on the target in the end is the disk as it was
 * when the job began, and what is on the source is what guests have written. All of it from a seed.
 */

import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { sleep } from "../../src/base/clock.ts";
import { BlockError } from "../../src/base/errors.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import type { BlockBackend } from "../../src/block/backend.ts";
import type { BackupOptions } from "../../src/blockjob/backup.ts";
import { createBackup, startBackup } from "../../src/blockjob/backup.ts";
import type { BlockJob } from "../../src/blockjob/block-job.ts";
import { verbs } from "../../src/job/verbs.ts";
import { backup, backupRig, pattern, type Rig } from "./backup-rig.ts";

const SIZE = 2 * MiB + 300 * KiB; // Not whole clusters.
const PAGE = 64 * KiB;

/** Guests of one disk, and what it should read as. */
class Guests {
  readonly model: Uint8Array;
  readonly #disk: BlockBackend;
  readonly #random: Random;
  readonly #discards: boolean;
  readonly #running = new Map<Promise<void>, { offset: number; end: number }>();
  failed = 0;

  constructor(disk: BlockBackend, random: Random, model: Uint8Array, discards: boolean) {
    this.#disk = disk;
    this.#random = random;
    this.model = model;
    this.#discards = discards;
  }

  /** One more request, not waited for; it does not overlap with those under way. */
  send(): void {
    const random = this.#random;
    const most = random.below(4) === 0 ? 400 * KiB : 20 * KiB;
    const bytes = 1 + random.below(most);
    const offset = random.below(SIZE - bytes);
    for (const range of this.#running.values()) {
      if (range.offset < offset + bytes && offset < range.end) return;
    }
    const dice = random.below(10);
    if (dice === 0) return this.#track(offset, 0, this.#disk.flush(), () => {});
    if (dice < 3) {
      const buf = new Uint8Array(bytes);
      return this.#track(offset, bytes, this.#disk.read(buf, offset), () => {
        const wanted = this.model.subarray(offset, offset + bytes);
        expect(Buffer.compare(buf, wanted), "a guest reads what it has written").toBe(0);
      });
    }
    if (dice < 5) {
      return this.#track(offset, bytes, this.#disk.writeZeroes(offset, bytes), () =>
        this.model.fill(0, offset, offset + bytes),
      );
    }
    if (dice < 6) {
      return this.#track(offset, bytes, this.#disk.discard(offset, bytes), () => {
        const [start, end] = [Math.ceil(offset / PAGE), Math.floor((offset + bytes) / PAGE)];
        if (this.#discards && start < end) this.model.fill(0, start * PAGE, end * PAGE);
      });
    }
    const data = pattern(bytes, random.below(2 ** 31));
    this.#track(offset, bytes, this.#disk.write(data, offset), () => this.model.set(data, offset));
  }

  async settle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running.keys());
  }

  #track(offset: number, bytes: number, request: Promise<void>, done: () => void): void {
    const tracked: Promise<void> = request
      .then(done, (error) => {
        if (!(error instanceof BlockError)) throw error;
        this.failed++; // The old content could not be copied: then nothing was written.
      })
      .finally(() => this.#running.delete(tracked));
    this.#running.set(tracked, { offset, end: offset + bytes });
  }
}

/** Every request of a store takes its time, and now and then one of `op` fails. */
function makeRough(t: Rig, node: string, random: Random, op: "read" | "write", faults: boolean) {
  t.hook(node, async (what) => {
    const dice = random.below(6);
    if (dice < 3) await t.clock.yield();
    else if (dice === 5) await sleep(t.clock, random.below(20));
    const isHit = faults && (what === op || (op === "write" && what === "zero"));
    if (isHit && random.below(25) === 0) throw new BlockError("EIO", "Injected");
  });
}

/** What users and the rest of the engine do to a job while it runs. */
async function meddle(t: Rig, random: Random, job: BlockJob, target: string): Promise<void> {
  const node = random.below(2) === 0 ? "source" : target;
  if (job.completed) return;
  if (job.userPaused && random.below(3) > 0) return verbs.resume(job);
  switch (random.below(12)) {
    case 0:
      if (!job.userPaused) await verbs.pause(job);
      return;
    case 1:
      void t.graph.drained([t.graph.get(node)], () => sleep(t.clock, random.below(30)));
      return;
    case 2:
      job.setSpeed(random.below(3) === 0 ? 0 : 256 * KiB + random.below(8 * MiB));
  }
}

async function live(
  t: Rig,
  random: Random,
  guests: Guests,
  job: BlockJob,
  target: string,
): Promise<void> {
  let ended = false;
  void job.finished.then(() => {
    ended = true;
  });
  for (let step = 0; !ended; step++) {
    if (step < 400) for (let i = random.below(4); i > 0; i--) guests.send();
    if (random.below(3) === 0) await t.clock.advance(random.below(25));
    else await t.clock.yield();
    if (step < 300) await meddle(t, random, job, target);
    else if (job.userPaused && !job.completed) await verbs.resume(job);
    if (step > 400) await t.clock.advance(100);
    expect(step, "the job ends").toBeLessThan(5000);
  }
  await t.clock.runUntil(guests.settle());
}

type Scene = (t: Rig, random: Random) => Promise<Partial<BackupOptions>>;

const scenes: Record<string, Scene> = {
  async "all of a disk, to clusters"(t) {
    await t.disk("source", { size: SIZE, seed: 1 });
    await t.disk("target", { size: SIZE, seed: 2 });
    return {};
  },
  async "all of a disk, to larger clusters"(t, random) {
    await t.disk("source", { size: SIZE, seed: 1, clusterSize: 4 * KiB });
    await t.disk("target", { size: SIZE, clusterSize: 128 * KiB });
    return { minClusterSize: random.below(2) * 256 * KiB };
  },
  async "all of a store, to a store"(t) {
    await t.disk("source", { size: SIZE, driver: "store", seed: 1 });
    await t.graph.get("source").state.pwriteZeroes!(600 * KiB, 500 * KiB, {});
    await t.disk("target", { size: SIZE, driver: "store", seed: 2 });
    return {};
  },
  async "the top layer"(t) {
    await t.disk("base", { size: SIZE, seed: 1 });
    await t.disk("source", { size: SIZE, backing: "base", clusterSize: 16 * KiB });
    for (const at of [0, 300, 1000, 1500]) await t.write("source", pattern(70 * KiB, at), at * KiB);
    await t.disk("target", { size: SIZE, backing: "base" });
    return { sync: "top" };
  },
  async "what a bitmap says"(t, random) {
    await t.disk("source", { size: SIZE, seed: 1 });
    await t.disk("target", { size: SIZE, seed: 1 });
    const granularity = 2 ** (9 + random.below(10));
    t.graph.get("source").bitmaps.add({ name: "bm", granularity });
    for (let i = 0; i < 12; i++) {
      const bytes = 1 + random.below(90 * KiB);
      await t.write("source", pattern(bytes, i), random.below(SIZE - bytes));
    }
    return { sync: "incremental", bitmap: "bm" };
  },
  async "a disk whose target reads through to it"(t) {
    await t.disk("source", { size: SIZE, seed: 1 });
    await t.disk("target", { size: SIZE, backing: "source" });
    return {};
  },
};

describe("a backup in a storm", () => {
  for (const [name, scene] of Object.entries(scenes)) {
    it(`keeps the moment of its start: ${name} (seeded)`, { timeout: 60_000 }, async () => {
      for (let seed = 1; seed <= 12; seed++) {
        const random = seededRandom(seed * 7919 + name.length);
        const t = await backupRig();
        const options = await scene(t, random);
        const disk = t.device("source");
        const isStore = t.graph.get("source").driver.name === "store";
        const guests = new Guests(disk, random, new Uint8Array(await t.read("source")), isStore);
        makeRough(t, "source", random, "read", isStore);
        makeRough(t, "target", random, "write", true);

        // Guests are at it before, and while the drain is waited for.
        for (let i = 0; i < 12; i++) guests.send();
        const { job, before } = await t.clock.runUntil(
          (async () => {
            const section = await t.graph.drain([t.graph.get("source")]);
            for (let i = 0; i < 4; i++) guests.send();
            const content = await t.readDrained("source").catch(() => t.readDrained("source"));
            const created = await createBackup(
              t.services,
              backup({
                onSourceError: random.below(2) === 0 ? "stop" : "ignore",
                onTargetError: random.below(2) === 0 ? "stop" : "ignore",
                speed: random.below(2) * 4 * MiB,
                maxWorkers: [1, 3, 64][random.below(3)]!,
                maxChunk: random.below(2) * 512 * KiB,
                ...options,
              }),
            );
            await created.start();
            section.end();
            return { job: created.job, before: content };
          })(),
        );
        await live(t, random, guests, job, "target");

        const place = `seed ${seed}`;
        expect(job.error, place).toBe(null);
        for (const node of ["source", "target"]) t.hook(node, null);
        expect(Buffer.compare(await t.read("target"), before), place).toBe(0);
        expect(Buffer.compare(await t.read("source"), guests.model), place).toBe(0);
        t.expectClean();
      }
    });
  }

  it("#107 makes two of one disk at once, begun at different moments (seeded)", {
    timeout: 60_000,
  }, async () => {
    for (let seed = 1; seed <= 10; seed++) {
      const random = seededRandom(seed);
      const t = await backupRig();
      await t.disk("source", { size: SIZE, seed: 1 });
      const guests = new Guests(
        t.device("source"),
        random,
        new Uint8Array(await t.read("source")),
        false,
      );
      const jobs: BlockJob[] = [];
      const wanted: Buffer[] = [];
      for (const target of ["t1", "t2"]) {
        await t.disk(target, { size: SIZE });
        makeRough(t, target, random, "write", false);
        for (let i = 0; i < 8; i++) guests.send();
        const section = await t.clock.runUntil(t.graph.drain([t.graph.get("source")]));
        wanted.push(await t.clock.runUntil(t.readDrained("source")));
        const options = { device: "source", jobId: target, target, speed: 2 * MiB };
        const created = await t.clock.runUntil(createBackup(t.services, backup(options)));
        await created.start();
        section.end();
        jobs.push(created.job);
      }
      for (const job of jobs) await live(t, random, guests, job, job.id!);
      expect(jobs.map(({ error }) => error)).toEqual([null, null]);
      for (const [i, target] of ["t1", "t2"].entries()) {
        t.hook(target, null);
        expect(Buffer.compare(await t.read(target), wanted[i]!), `${target}, seed ${seed}`).toBe(0);
      }
      expect(Buffer.compare(await t.read("source"), guests.model), `seed ${seed}`).toBe(0);
      t.expectClean();
    }
  });

  it("takes what is under way when it is asked for, and nothing that comes later", async () => {
    const t = await backupRig();
    await t.disk("source", { size: MiB, driver: "store", seed: 1 });
    await t.disk("target", { size: MiB });
    const disk = t.device("source");
    const before = new Uint8Array(await t.read("source"));
    const [early, late] = [pattern(5000, 2), pattern(7000, 3)];
    t.hook("source", (op) => (op === "write" ? sleep(t.clock, 500) : undefined));
    const first = disk.write(early, 100_000);
    const starting = startBackup(t.services, backup({}));
    const second = disk.write(late, 99_000);
    const job = await t.clock.runUntil(starting);
    await t.clock.runUntil(Promise.all([first, second, job.finished]));
    before.set(early, 100_000);
    expect(Buffer.compare(await t.read("target"), before)).toBe(0);
    before.set(late, 99_000);
    expect(Buffer.compare(await t.read("source"), before)).toBe(0);
  });
});
