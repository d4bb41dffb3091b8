/** Backups with dirty bitmaps: incremental chains, the three modes, groups, and what is refused. */

import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { sleep } from "../../src/base/clock.ts";
import { BlockError } from "../../src/base/errors.ts";
import { seededRandom } from "../../src/base/random.ts";
import type { DirtyBitmap } from "../../src/block/dirty-bitmap.ts";
import {
  BACKUP_SYNCS,
  type BackupOptions,
  BITMAP_MODES,
  createBackup,
} from "../../src/blockjob/backup.ts";
import type { BlockJob } from "../../src/blockjob/block-job.ts";
import { resizeNode } from "../../src/blockjob/resize.ts";
import { verbs } from "../../src/job/verbs.ts";
import { backup, backupRig, pattern, type Rig } from "./backup-rig.ts";

const CLUSTER = 64 * KiB;

/** A disk with a bitmap, a copy of it in `target`, and then writes to clusters 3, 9 and 10. */
async function dirtied(size = MiB, prefix = "") {
  const t = await backupRig();
  const { bitmap, write } = await addDirtied(t, size, prefix);
  return { ...t, bitmap, write, rig: t };
}

async function addDirtied(t: Rig, size: number, prefix: string) {
  await t.disk(`${prefix}source`, { size, seed: 1 });
  await t.disk(`${prefix}target`, { size, seed: 1 });
  const bitmap = t.graph.get(`${prefix}source`).bitmaps.add({ name: "bm" });
  const device = t.device(`${prefix}source`, `${prefix}vda`);
  const write = (cluster: number, seed = cluster) =>
    t.clock.runUntil(device.write(pattern(100, seed), cluster * CLUSTER + 50));
  for (const cluster of [3, 9, 10]) await write(cluster);
  return { bitmap, write };
}

function dirtyClusters(bitmap: DirtyBitmap): number[] {
  const found: number[] = [];
  for (let at = 0; at < bitmap.size; at += CLUSTER)
    if (bitmap.isDirty(at)) found.push(at / CLUSTER);
  return found;
}

const INCREMENTAL = { sync: "incremental", bitmap: "bm" } as const;

describe("a backup with a bitmap", () => {
  it("copies what the bitmap says, and nothing else", async () => {
    const t = await dirtied();
    const before = await t.read("source");
    let bytes = 0;
    t.hook("target", (op, _offset, size) => {
      if (op === "write") bytes += size;
    });
    const job = await t.backup(INCREMENTAL);
    expect(job.error).toBe(null);
    expect([bytes, job.progress.current, job.progress.total]).toEqual(Array(3).fill(3 * CLUSTER));
    expect(Buffer.compare(await t.read("target"), before)).toBe(0);
    expect(t.bitmap.count).toBe(0);
    t.expectClean();
  });

  /** In which clusters the bitmap is dirty in the end: written before the start 3 9 10, since then 12. */
  const ends = [
    ["on-success", "success", [12]],
    ["on-success", "failure", [3, 9, 10, 12]],
    ["on-success", "cancel", [3, 9, 10, 12]],
    ["never", "success", [3, 9, 10, 12]],
    ["never", "failure", [3, 9, 10, 12]],
    ["never", "cancel", [3, 9, 10, 12]],
    ["always", "success", [12]],
    // 3 was copied before it came to the worse.
    ["always", "failure", [9, 10, 12]],
    ["always", "cancel", [9, 10, 12]],
    ["always", "cancel in pending", [12]],
    ["on-success", "cancel in pending", [3, 9, 10, 12]],
  ] as const;
  it.each(ends)("mode %s, at %s, leaves clusters %o dirty", async (mode, end, wanted) => {
    const t = await dirtied();
    if (end === "failure") t.fault("source", "read", "EIO", 9 * CLUSTER);
    const job = await t.start({
      sync: "bitmap",
      bitmap: "bm",
      bitmapMode: mode,
      autoFinalize: end !== "cancel in pending",
      speed: CLUSTER,
    });
    expect([t.bitmap.busy, t.bitmap.enabled, t.bitmap.recording]).toEqual([true, false, true]);
    await t.write(12);
    await t.clock.advance(500);
    expect(dirtyClusters(t.bitmap), "it is frozen").toEqual([3, 9, 10]);
    if (end === "cancel") await verbs.cancel(job, true);
    else job.setSpeed(0);
    if (end === "cancel in pending") {
      await t.clock.advance(100);
      expect(job.status).toBe("pending");
      void verbs.cancel(job, true);
    }
    await t.end(job);
    t.hook("source", null);
    expect(job.error === null).toBe(end === "success");
    expect(dirtyClusters(t.bitmap)).toEqual(wanted);
    expect([t.bitmap.busy, t.bitmap.enabled]).toEqual([false, true]);
    t.expectClean();
  });

  it("mode always counts what a guest's write is still copying as not copied", async () => {
    const t = await backupRig();
    await t.disk("source", { size: MiB, seed: 1 });
    await t.disk("target", { size: MiB, seed: 1 });
    const bitmap = t.graph.get("source").bitmaps.add({ name: "bm", granularity: 4 * KiB });
    const vda = t.device("source");
    for (const at of [3, 9, 10]) await t.clock.runUntil(vda.write(pattern(5, at), at * CLUSTER));
    const options = { sync: "bitmap", bitmap: "bm", bitmapMode: "always" } as const;
    const job = await t.start({ ...options, speed: 1, maxChunk: CLUSTER });
    await t.clock.advance(10);
    expect(job.progress.current).toBe(CLUSTER);
    // The copy of cluster 10 hears of nothing, and fails when the job is over.
    let fail = () => {};
    t.hook("target", (op) => {
      if (op !== "write") return;
      return new Promise((_resolve, reject) => {
        fail = () => reject(new BlockError("EIO", "Injected"));
      });
    });
    const write = vda.write(pattern(5, 4), 10 * CLUSTER + 40 * KiB);
    await t.clock.advance(10);
    await verbs.cancel(job, true);
    await t.clock.advance(10);
    fail();
    await t.clock.runUntil(write);
    await t.end(job);
    const dirty = [3, 9, 10].map((cluster) => bitmap.isDirty(cluster * CLUSTER));
    expect(dirty).toEqual([false, true, true]);
    expect(bitmap.isDirty(10 * CLUSTER + 40 * KiB)).toBe(true);
    t.expectClean();
  });

  it.each([
    ["full", "on-success", []],
    ["full", "always", []],
    ["top", "always", []],
  ] as const)("sync %s with mode %s leaves the bitmap clean", async (sync, bitmapMode, wanted) => {
    const t = await dirtied();
    const job = await t.backup({ sync, bitmap: "bm", bitmapMode });
    expect(job.error).toBe(null);
    expect(dirtyClusters(t.bitmap)).toEqual(wanted);
  });

  it("sync full with mode always that fails half way has all from there on dirty", async () => {
    const t = await dirtied();
    t.fault("source", "read", "EIO", 6 * CLUSTER);
    const job = await t.backup({
      sync: "full",
      bitmap: "bm",
      bitmapMode: "always",
      maxWorkers: 1,
      maxChunk: CLUSTER,
    });
    expect(job.error?.errno).toBe("EIO");
    expect(dirtyClusters(t.bitmap)).toEqual([6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
  });

  it("keeps a bitmap that does not record from recording", async () => {
    const t = await dirtied();
    t.bitmap.disable();
    const job = await t.start({ ...INCREMENTAL, speed: CLUSTER });
    await t.write(12);
    job.setSpeed(0);
    await t.end(job);
    expect([t.bitmap.count, t.bitmap.enabled]).toEqual([0, false]);
  });

  it.each([
    [32 * KiB, 128 * KiB],
    [64 * KiB, 64 * KiB],
    [128 * KiB, 64 * KiB],
    [512, 128 * KiB],
    [MiB, 64 * KiB],
  ])(
    "#108 three rounds, granularity %i, target clusters of %i: each copy is right",
    async (granularity, clusterSize) => {
      const size = 4 * MiB + 96 * KiB;
      const random = seededRandom(granularity + clusterSize);
      const t = await backupRig();
      await t.disk("source", { size, seed: 1 });
      await t.disk("full", { size, clusterSize });
      const bitmap = t.graph.get("source").bitmaps.add({ name: "bm", granularity });
      const disk = t.device("source");
      const full = {
        target: "full",
        sync: "full",
        bitmap: "bm",
        bitmapMode: "on-success",
      } as const;
      expect((await t.backup(full)).error).toBe(null);
      for (let round = 1, below = "full"; round <= 3; round++) {
        for (let i = 0; i < 5; i++) {
          const bytes = 1 + random.below(200 * KiB);
          const offset = random.below(size - bytes);
          await t.clock.runUntil(disk.write(pattern(bytes, round * 10 + i), offset));
        }
        const target = `inc${round}`;
        await t.disk(target, { size, clusterSize, backing: below });
        const before = await t.read("source");
        const job = await t.start({ ...INCREMENTAL, target, speed: MiB });
        await t.clock.runUntil(disk.write(pattern(5000, round), random.below(size - 5000)));
        job.setSpeed(0);
        await t.end(job);
        expect(job.error).toBe(null);
        expect(Buffer.compare(await t.read(target), before), `round ${round}`).toBe(0);
        expect(bitmap.count, "what came since the start").toBeGreaterThan(0);
        below = target;
      }
    },
  );

  it("#108 a target of larger clusters and no backing file can be put on the full copy later", async () => {
    const t = await backupRig();
    await t.disk("source", { size: MiB, seed: 1 });
    await t.disk("full", { size: MiB });
    await t.disk("inc", { size: MiB, clusterSize: 128 * KiB });
    const node = t.graph.get("source");
    node.bitmaps.add({ name: "bm", granularity: 32 * KiB });
    const disk = t.device("source");
    await t.backup({ target: "full", sync: "full", bitmap: "bm", bitmapMode: "on-success" });
    for (const at of [1, 5, 300]) await t.clock.runUntil(disk.write(pattern(10, at), at * KiB));
    expect((await t.backup({ ...INCREMENTAL, target: "inc" })).error).toBe(null);
    const [inc, full] = [t.graph.get("inc"), t.graph.get("full")];
    await t.graph.drained([inc], () => t.graph.setBacking(inc, full));
    expect(Buffer.compare(await t.read("inc"), await t.read("source"))).toBe(0);
  });

  it("#109 a disk that has grown: what is written past its old end is in the increment", async () => {
    const t = await backupRig();
    await t.disk("source", { size: MiB, seed: 1 });
    await t.disk("full", { size: MiB });
    const bitmap = t.graph.get("source").bitmaps.add({ name: "bm" });
    const disk = t.device("source");
    await t.backup({ target: "full", sync: "full", bitmap: "bm", bitmapMode: "on-success" });
    await t.clock.runUntil(resizeNode(t, "vda", 2 * MiB));
    await t.clock.runUntil(disk.write(pattern(KiB, 2), 1900 * KiB));
    expect(bitmap.count).toBe(CLUSTER);
    await t.disk("inc", { size: 2 * MiB, backing: "full" });
    const job = await t.backup({ ...INCREMENTAL, target: "inc" });
    expect(job.error).toBe(null);
    expect(Buffer.compare(await t.read("inc"), await t.read("source"))).toBe(0);
  });

  it("#110 stopped by an error, the bitmap stays busy and keeps its count until the end", async () => {
    const t = await dirtied();
    const before = await t.read("source");
    t.fault("source", "read", "EIO", 9 * CLUSTER);
    const job = await t.start({ ...INCREMENTAL, onSourceError: "stop" });
    await t.clock.advance(100);
    expect(t.story()).toBe("created running paused running ERROR(read,stop) paused");
    expect([t.bitmap.busy, t.bitmap.count]).toEqual([true, 3 * CLUSTER]);
    expect(() => t.bitmap.checkUsable("clear")).toThrow(/busy/);
    t.hook("source", null);
    await verbs.resume(job);
    await t.end(job);
    expect([t.bitmap.busy, t.bitmap.count]).toEqual([false, 0]);
    expect(Buffer.compare(await t.read("target"), before)).toBe(0);
  });

  it("#112 refuses combinations that make no sense, and leaves the bitmap alone", async () => {
    const t = await dirtied();
    const list = t.graph.get("source").bitmaps;
    list.add({ name: "busy" }).setBusy(true);
    list.add({ name: "inconsistent", inconsistent: true });
    let [refused, tried] = [0, 0];
    for (const sync of BACKUP_SYNCS) {
      for (const bitmapMode of [undefined, ...BITMAP_MODES]) {
        for (const bitmap of [undefined, "bm", "nope", "busy", "inconsistent"]) {
          tried++;
          const options: Partial<BackupOptions> = { sync, bitmapMode, bitmap };
          const what = JSON.stringify(options);
          const error = await t.start(options).then(
            async (job) => {
              expect(isSensible(options), what).toBe(true);
              if (!job.completed) await verbs.cancel(job, true);
              await t.end(job);
              t.bitmap.clear();
              for (const cluster of [3, 9, 10]) t.bitmap.set(cluster * CLUSTER, 1);
              return null;
            },
            (reason) => reason,
          );
          if (error === null) continue;
          refused++;
          expect(isSensible(options), `${what}: ${error.message}`).toBe(false);
          expect(error).toMatchObject({ name: "BlockError" });
          expect([t.bitmap.busy, t.bitmap.enabled], what).toEqual([false, true]);
          expect(dirtyClusters(t.bitmap), what).toEqual([3, 9, 10]);
          expect(t.filters()).toEqual([]);
        }
      }
    }
    expect(refused).toBeGreaterThan(50);
    expect(tried - refused).toBe(12);
  });

  it("#112 says first what is wrong with the request, then what with the bitmap", async () => {
    const t = await dirtied();
    t.graph.get("source").bitmaps.add({ name: "busy" }).setBusy(true);
    const told: [Partial<BackupOptions>, RegExp][] = [
      [{ sync: "incremental" }, /needs a 'bitmap'/],
      [{ sync: "bitmap", bitmapMode: "always" }, /needs a 'bitmap'/],
      [{ sync: "bitmap", bitmap: "nope" }, /has no bitmap 'nope'/],
      [{ sync: "bitmap", bitmap: "busy" }, /needs a 'bitmap-mode'/],
      [{ sync: "full", bitmapMode: "always" }, /'bitmap-mode' needs/],
      [{ sync: "incremental", bitmap: "nope", bitmapMode: "never" }, /is 'on-success'/],
      [{ sync: "none", bitmap: "busy", bitmapMode: "always" }, /nothing meaningful/],
      [{ sync: "top", bitmap: "busy", bitmapMode: "never" }, /no effect/],
      [{ sync: "incremental", bitmap: "nope", target: "vda" }, /has no bitmap 'nope'/],
      [{ sync: "incremental", bitmap: "busy", target: "vda" }, /is busy/],
      [{ sync: "full", target: "vda", maxWorkers: 0 }, /its own backup/],
    ];
    for (const [options, text] of told) await expect(t.start(options)).rejects.toThrow(text);
  });

  it("lets go of the bitmap when it is refused after it was frozen", async () => {
    const t = await dirtied();
    for (const options of [{ speed: -1 }, { filterNodeName: "target" }]) {
      await expect(t.start({ ...INCREMENTAL, ...options })).rejects.toThrow();
      expect([t.bitmap.busy, t.bitmap.enabled]).toEqual([false, true]);
    }
    expect(dirtyClusters(t.bitmap)).toEqual([3, 9, 10]);
  });

  it("takes a bitmap that cannot be changed, if it need not be", async () => {
    const t = await dirtied();
    const sealed = Object.defineProperty(t.bitmap, "readOnly", { value: true });
    expect(sealed.readOnly).toBe(true);
    await expect(t.start(INCREMENTAL)).rejects.toMatchObject({ errno: "EROFS" });
    const job = await t.backup({ sync: "bitmap", bitmap: "bm", bitmapMode: "never" });
    expect(job.error).toBe(null);
  });

  it("finds the bitmap of a disk through filters on it, and gives it to one job only", async () => {
    const t = await dirtied();
    await t.disk("second", { size: MiB, seed: 1 });
    await t.graph.insertFilter({ driver: "copy-on-read" }, t.graph.get("source"));
    const job = await t.start({ ...INCREMENTAL, speed: 10 });
    const second = { ...INCREMENTAL, device: "source", jobId: "b1", target: "second" };
    await expect(t.start(second)).rejects.toThrow(/is busy/);
    job.setSpeed(0);
    await t.end(job);
    expect(t.bitmap.count).toBe(0);
  });
});

function isSensible({ sync, bitmap, bitmapMode }: Partial<BackupOptions>): boolean {
  if (bitmap === undefined)
    return bitmapMode === undefined && sync !== "bitmap" && sync !== "incremental";
  if (bitmap !== "bm" || sync === "none") return false;
  if (sync === "incremental") return bitmapMode === undefined || bitmapMode === "on-success";
  if (bitmapMode === undefined) return false;
  return sync === "bitmap" || bitmapMode !== "never";
}

describe("backups as a group", () => {
  const both = [
    { ...INCREMENTAL, device: "avda", jobId: "a", target: "atarget" },
    { ...INCREMENTAL, device: "bvda", jobId: "b", target: "btarget" },
  ];

  async function pair(isFirstEmpty: boolean) {
    const t = await backupRig();
    const a = await addDirtied(t, MiB, "a");
    const b = await addDirtied(t, MiB, "b");
    if (isFirstEmpty) {
      a.bitmap.clear();
      await t.write("atarget", new Uint8Array(await t.read("asource")));
    }
    return { t, a, b };
  }

  it("#39 an incremental pair, of which the second cannot be read: nothing of the bitmaps is lost", () =>
    failTogether(false));
  it("#40 the same, with nothing to copy in the first: no race, same outcome", () =>
    failTogether(true));

  async function failTogether(isFirstEmpty: boolean): Promise<void> {
    const { t, a, b } = await pair(isFirstEmpty);
    const before = [dirtyClusters(a.bitmap), dirtyClusters(b.bitmap)];
    t.fault("bsource", "read", "EIO", 10 * CLUSTER);
    t.hook("atarget", () => t.clock.yield());
    const jobs = await t.group(both);
    await t.end(...jobs);
    expect(jobs.map(({ error }) => error?.errno)).toEqual(["ECANCELED", "EIO"]);
    const story = t.story();
    expect(story).toContain("b:ERROR(read,report) b:aborting");
    expect(story).toContain("b:COMPLETED(Injected read error) b:concluded b:null");
    expect(story).toContain("a:aborting a:CANCELLED a:concluded a:null");
    expect([dirtyClusters(a.bitmap), dirtyClusters(b.bitmap)]).toEqual(before);
    t.expectClean();

    t.hook("bsource", null);
    const again = await t.group(both);
    await t.end(...again);
    expect(again.map(({ error }) => error)).toEqual([null, null]);
    for (const disk of ["a", "b"]) {
      const [source, target] = [await t.read(`${disk}source`), await t.read(`${disk}target`)];
      expect(Buffer.compare(target, source), disk).toBe(0);
    }
    expect([a.bitmap.count, b.bitmap.count]).toEqual([0, 0]);
    t.expectClean();
  }

  it("#46 two bitmaps cleared and two full copies at one moment; increments from there on verify", async () => {
    const t = await backupRig();
    const disks = ["a", "b"].map((prefix) => ({ prefix, target: `${prefix}full` }));
    const made = [];
    for (const { prefix, target } of disks) {
      made.push(await addDirtied(t, MiB, prefix));
      await t.disk(target, { size: MiB });
    }
    const section = await t.clock.runUntil(
      t.graph.drain([t.graph.get("asource"), t.graph.get("bsource")]),
    );
    for (const { bitmap } of made) bitmap.clear();
    const created = [];
    for (const { prefix, target } of disks) {
      const options = backup({ device: `${prefix}vda`, jobId: prefix, target });
      created.push(await t.clock.runUntil(createBackup(t.services, options)));
    }
    const writes = made.map(
      ({ write }, i) =>
        () =>
          write(4 + i),
    );
    for (const { start } of created) await start();
    section.end();
    for (const write of writes) await write();
    await t.end(...created.map(({ job }) => job));
    for (const { prefix, target } of disks) {
      await t.disk(`${prefix}inc`, { size: MiB, backing: target });
      const options = { ...INCREMENTAL, device: `${prefix}vda`, jobId: prefix };
      const job = await t.backup({ ...options, target: `${prefix}inc` });
      expect([job.error, job.progress.total]).toEqual([null, CLUSTER]);
      const [source, inc] = [await t.read(`${prefix}source`), await t.read(`${prefix}inc`)];
      expect(Buffer.compare(inc, source), prefix).toBe(0);
    }
    t.expectClean();
  });

  it("end together at once although a guest waits for the target of one of them", async () => {
    for (const failing of ["t1", "t2"]) {
      const t = await backupRig();
      await t.disk("source", { size: MiB, seed: 1 });
      for (const target of ["t1", "t2"]) await t.disk(target, { size: MiB });
      const vda = t.device("source");
      const jobs = await t.group(
        ["t1", "t2"].map((target) => ({
          device: "source",
          jobId: target,
          target,
          sync: target === failing ? ("full" as const) : ("none" as const),
          speed: 10,
          maxChunk: CLUSTER,
        })),
      );
      await t.clock.advance(10);
      for (const stuck of ["t1", "t2"]) {
        t.hook(stuck, (_op, _offset, _bytes, signal) => sleep(t.clock, 3_600_000, signal));
      }
      const write = vda.write(pattern(5, 1), 10 * CLUSTER);
      await t.clock.advance(10);
      t.fault("source", "read", "EIO");
      (jobs.find(({ id }) => id === failing) as BlockJob).setSpeed(0);
      const asked = t.clock.now();
      await t.end(...jobs);
      await t.clock.runUntil(write);
      expect(t.clock.now() - asked, failing).toBeLessThan(50);
      t.hook("source", null);
      t.expectClean();
    }
  });

  it("are of one moment, and undone if they are never started", async () => {
    const { t, a } = await pair(false);
    const section = await t.graph.drain([t.graph.get("asource")]);
    const { job } = await t.clock.runUntil(createBackup(t.services, backup(both[0]!)));
    expect(a.bitmap.busy).toBe(true);
    job.cancel(true);
    await t.end(job);
    section.end();
    expect(t.story()).toBe("created aborting concluded null");
    expect(dirtyClusters(a.bitmap)).toEqual([3, 9, 10]);
    t.expectClean();
  });
});
