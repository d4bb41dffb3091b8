/** Backups whose disks fail, whose users change their minds, and whose speed is limited. */

import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { sleep } from "../../src/base/clock.ts";
import { BlockError } from "../../src/base/errors.ts";
import { seededRandom } from "../../src/base/random.ts";
import { ON_ERROR_POLICIES } from "../../src/blockjob/on-error.ts";
import { verbs } from "../../src/job/verbs.ts";
import { backupRig, type DiskOptions, pattern } from "./backup-rig.ts";

const CLUSTER = 64 * KiB;

async function simple(size = 2 * MiB) {
  const t = await backupRig();
  await t.disk("source", { size, seed: 1 });
  await t.disk("target", { size });
  const vda = t.device("source");
  /** In the place of the disk of that name. */
  const remake = async (name: string, options: DiskOptions) => {
    await t.graph.remove(name);
    await t.graph.remove(`${name}-store`);
    await t.disk(name, options);
  };
  return { ...t, vda, remake, before: await t.read("source") };
}

describe("a backup in trouble", () => {
  it("#62 is paused by an error only after its parallel requests have ended; resumed, it verifies", async () => {
    const t = await simple();
    let [underWay, hasFailed] = [0, false];
    t.hook("target", async (op, offset) => {
      if (op !== "write") return;
      const isFirst = offset < CLUSTER && !hasFailed;
      hasFailed ||= isFirst;
      underWay++;
      await sleep(t.clock, isFirst ? 10 : 500);
      underWay--;
      if (isFirst) throw new BlockError("EIO", "Injected write error");
    });
    const job = await t.start({ onTargetError: "stop", maxWorkers: 8, maxChunk: CLUSTER });
    await t.clock.advance(100);
    expect(underWay).toBe(7);
    expect(t.story()).toBe("created running paused running");
    await t.clock.advance(1000);
    expect(t.story()).toBe("ERROR(write,stop) paused");
    expect([underWay, job.status, job.ioStatus]).toEqual([0, "paused", "failed"]);
    await verbs.resume(job);
    expect(job.ioStatus).toBe("ok");
    await t.end(job);
    expect(job.error).toBe(null);
    t.hook("target", null);
    expect(Buffer.compare(await t.read("target"), t.before)).toBe(0);
  });

  for (const side of ["source", "target"] as const) {
    for (const policy of ON_ERROR_POLICIES) {
      for (const errno of ["EIO", "ENOSPC"] as const) {
        it(`${policy} for ${errno} of the ${side}`, async () => {
          const t = await simple();
          const op = side === "source" ? "read" : "write";
          t.fault(side, op, errno);
          const policies = { onSourceError: "report", onTargetError: "report" } as const;
          const job = await t.start({
            ...policies,
            [side === "source" ? "onSourceError" : "onTargetError"]: policy,
          });
          await t.clock.advance(5000);
          const isFull = errno === "ENOSPC";
          const stops = policy === "stop" || (isFull && (policy === "enospc" || policy === "auto"));
          const story = t.story();
          if (policy === "ignore") {
            expect([job.status, job.ioStatus]).toEqual(["running", "ok"]);
            expect(story).toContain(`ERROR(${op},ignore)`);
          } else if (stops) {
            expect([job.status, job.ioStatus]).toEqual(["paused", isFull ? "nospace" : "failed"]);
            expect(story).toBe(`created running paused running ERROR(${op},stop) paused`);
            // Tried again, and said again, when resumed while nothing is better.
            await verbs.resume(job);
            await t.clock.advance(1000);
            expect(t.story()).toBe(`running ERROR(${op},stop) paused`);
            t.hook(side, null);
            await verbs.resume(job);
          } else {
            expect(story).toBe(
              `created running paused running ERROR(${op},report) aborting ` +
                `COMPLETED(Injected ${op} error) concluded null`,
            );
          }
          t.hook(side, null);
          await t.end(job);
          expect(job.error?.errno ?? null).toBe(stops || policy === "ignore" ? null : errno);
          if (job.error === null) {
            expect(Buffer.compare(await t.read("target"), t.before)).toBe(0);
          }
          expect(Buffer.compare(await t.read("source"), t.before)).toBe(0);
          t.expectClean();
        });
      }
    }
  }

  it("with ignore tries what failed again, rarely, and copies the rest meanwhile", async () => {
    const t = await simple();
    await t.remake("target", { size: 2 * MiB, driver: "store" });
    t.fault("target", "write", "EIO", 0);
    const job = await t.start({ onTargetError: "ignore", maxWorkers: 1 });
    await t.clock.advance(60_000);
    const errors = t.story().match(/ERROR/g)!.length;
    expect(errors).toBeGreaterThan(50);
    expect(errors).toBeLessThan(80);
    expect(job.progress.current).toBe(MiB);
    t.hook("target", null);
    await t.end(job);
    expect(job.error).toBe(null);
    expect(Buffer.compare(await t.read("target"), t.before)).toBe(0);
  });

  it("asks the target's policy about a flush that fails at the end", async () => {
    const t = await simple(MiB);
    const store = t.graph.get("target");
    let isFull = true;
    store.state.flush = async () => {
      if (isFull) throw new BlockError("ENOSPC", "It is full");
    };
    const job = await t.start({ onTargetError: "enospc" });
    await t.clock.advance(100);
    expect([job.status, job.ioStatus, job.progress.current]).toEqual(["paused", "nospace", MiB]);
    expect(t.story()).toContain("ERROR(write,stop) paused");
    isFull = false;
    await verbs.resume(job);
    await t.end(job);
    expect(job.error).toBe(null);
  });

  it("is not done before the copy has been made to last", async () => {
    const t = await simple(MiB);
    const ops: string[] = [];
    t.graph.get("target").state.flush = async () => void ops.push("flush");
    t.hook("target", (op) => void ops.push(op));
    await t.backup();
    expect(ops.at(-1)).toBe("flush");
  });

  it("pauses with nothing in flight, and goes on from there", async () => {
    const t = await simple(4 * MiB);
    let [underWay, count] = [0, 0];
    t.hook("target", async () => {
      underWay++;
      await sleep(t.clock, 10 + ((15 * ++count) % 60));
      underWay--;
    });
    const job = await t.start({ maxWorkers: 4, maxChunk: CLUSTER });
    await t.clock.advance(45);
    expect(underWay).toBe(4);
    await verbs.pause(job);
    while (job.status === "running") await t.clock.advance(1);
    const offset = job.progress.current;
    expect([underWay, job.status]).toEqual([0, "paused"]);
    // A guest's write still saves what it is about to overwrite.
    await t.clock.runUntil(t.vda.write(pattern(10, 2), 4 * MiB - 10));
    await t.clock.advance(5000);
    expect(job.progress.current).toBe(offset + CLUSTER);
    await verbs.resume(job);
    await t.end(job);
    t.hook("target", null);
    expect(Buffer.compare(await t.read("target"), t.before)).toBe(0);
  });

  it.each(["source", "target"])("#17 stands still while its %s is drained", async (name) => {
    const t = await simple(4 * MiB);
    let requests = 0;
    const count = async () => {
      requests++;
      await sleep(t.clock, 20);
    };
    t.hook("source", count);
    t.hook("target", count);
    const job = await t.start({ maxWorkers: 4, maxChunk: CLUSTER });
    await t.clock.advance(50);
    const section = await t.clock.runUntil(t.graph.drain([t.graph.get(name)]));
    expect([job.status, job.busy, job.pauseCount > 0]).toEqual(["paused", false, true]);
    const seen = requests;
    await t.clock.advance(1000);
    expect(requests).toBe(seen);
    section.end();
    await t.end(job);
    expect([job.error, job.pauseCount]).toEqual([null, 0]);
    for (const node of ["source", "target"]) t.hook(node, null);
    expect(Buffer.compare(await t.read("target"), t.before)).toBe(0);
  });

  it("never starts more workers than it may, nor larger chunks", async () => {
    for (const [maxWorkers, maxChunk] of [
      [1, 0],
      [3, 128 * KiB],
      [7, 200 * KiB],
      [2, 64 * MiB],
    ] as const) {
      const t = await backupRig();
      await t.disk("source", { size: 8 * MiB, driver: "store", seed: 1 });
      await t.disk("target", { size: 8 * MiB, driver: "store" });
      let [underWay, most, largest] = [0, 0, 0];
      const count = async (_op: string, _offset: number, bytes: number) => {
        most = Math.max(most, ++underWay);
        largest = Math.max(largest, bytes);
        await sleep(t.clock, 5);
        underWay--;
      };
      t.hook("source", count);
      t.hook("target", count);
      const job = await t.backup({ device: "source", maxWorkers, maxChunk });
      expect(job.error).toBe(null);
      expect(most).toBe(maxWorkers);
      const chunk = maxChunk === 0 ? MiB : Math.min(MiB, maxChunk - (maxChunk % CLUSTER));
      expect(largest).toBe(chunk);
    }
  });

  it("moves at most its speed and one chunk in any second (seeded)", async () => {
    for (let seed = 1; seed <= 6; seed++) {
      const random = seededRandom(seed);
      const t = await backupRig();
      const size = 12 * MiB;
      await t.disk("source", { size, seed });
      await t.disk("target", { size, driver: "store" });
      const starts: { at: number; bytes: number }[] = [];
      t.hook("target", (op, _offset, bytes) => {
        if (op === "write") starts.push({ at: t.clock.now(), bytes });
      });
      const speed = 300 * KiB + random.below(2 * MiB);
      const maxChunk = [CLUSTER, 320 * KiB, MiB][seed % 3]!;
      const job = await t.start({ device: "source", speed, maxChunk });
      for (let i = 0; i < 40 && !job.completed; i++) {
        await t.clock.advance(random.below(700));
        if (random.below(3) > 0 || job.completed) continue;
        await verbs.pause(job);
        await t.clock.advance(random.below(40));
        await verbs.resume(job);
      }
      for (const { at } of starts) {
        const within = starts.filter((start) => start.at >= at && start.at < at + 1000);
        const moved = within.reduce((sum, { bytes }) => sum + bytes, 0);
        expect(moved, `seed ${seed}, from ${at} ms`).toBeLessThanOrEqual(speed + maxChunk);
      }
      expect(starts.length).toBeGreaterThan(3);
      if (!job.completed) await verbs.cancel(job, true);
      await t.end(job);
    }
  });

  it("is cancelled and paused in the middle of a rate-limited sleep", async () => {
    const t = await simple(4 * MiB);
    const job = await t.start({ speed: 1000 });
    await t.clock.advance(500);
    await verbs.pause(job);
    await t.clock.advance(1);
    expect(job.status).toBe("paused");
    await verbs.resume(job);
    const asked = t.clock.now();
    await verbs.cancel(job, true);
    await t.end(job);
    expect(t.clock.now() - asked).toBeLessThan(50);
  });

  it("hears of errors, and comes to its end, however slow it may go", async () => {
    for (const onCbwError of ["break-guest-write", "break-snapshot"] as const) {
      const t = await simple(MiB);
      const job = await t.start({ speed: 10, maxChunk: CLUSTER, onCbwError });
      t.fault("target", "write", "EIO");
      const write = t.vda.write(pattern(10, 2), 900 * KiB);
      if (onCbwError === "break-snapshot") await t.clock.runUntil(write);
      else await expect(t.clock.runUntil(write)).rejects.toMatchObject({ errno: "EIO" });
      await t.clock.advance(1);
      expect(job.completed).toBe(onCbwError === "break-snapshot");
      if (!job.completed) await verbs.cancel(job, true);
      await t.end(job);
    }
    const t = await simple(MiB);
    t.hook("target", () => sleep(t.clock, 100));
    const failing = await t.start({ speed: 10, maxChunk: CLUSTER });
    t.fault("target", "write", "EIO");
    await t.clock.advance(200);
    expect(failing.error, "the chunk that was under way").toBe(null);
    await verbs.cancel(failing, true);
    await t.end(failing);

    t.hook("target", async () => {
      await sleep(t.clock, 100);
      throw new BlockError("EIO", "Injected");
    });
    const second = await t.start({ speed: 10, maxChunk: CLUSTER });
    await t.clock.advance(200);
    expect(second.error?.errno).toBe("EIO");

    t.hook("target", null);
    const last = await t.start({ speed: 10 });
    await t.clock.advance(200);
    expect([last.error, last.completed], "one chunk is all").toEqual([null, true]);
  });

  it("is not held up by its speed limit when a guest writes", async () => {
    const t = await simple(4 * MiB);
    const job = await t.start({ speed: 10 });
    await t.clock.advance(100);
    const asked = t.clock.now();
    await t.clock.runUntil(t.vda.write(pattern(2 * MiB, 2), MiB + 5));
    expect(t.clock.now()).toBe(asked);
    job.setSpeed(0);
    await t.end(job);
    expect(Buffer.compare(await t.read("target"), t.before)).toBe(0);
  });

  it("break-guest-write: a guest's write fails with the copy, and the job goes on to a right end", async () => {
    const t = await simple();
    const job = await t.start({ speed: 10, onTargetError: "stop" });
    t.fault("target", "write", "EIO");
    const write = t.clock.runUntil(t.vda.write(pattern(10, 2), 1536 * KiB));
    await expect(write).rejects.toMatchObject({ errno: "EIO" });
    expect(t.story()).not.toContain("ERROR"); // It is the guest's error, not the job's.
    t.hook("target", null);
    await t.clock.runUntil(t.vda.write(pattern(10, 2), 1536 * KiB));
    job.setSpeed(0);
    await t.end(job);
    expect(job.error).toBe(null);
    expect(Buffer.compare(await t.read("target"), t.before)).toBe(0);
  });

  it.each(["full", "none"] as const)(
    "break-snapshot, sync %s: the guest's write is done, and the job fails",
    async (sync) => {
      const t = await simple();
      t.graph.get("source").bitmaps.add({ name: "bm", granularity: CLUSTER });
      const bitmap = sync === "full" ? ({ bitmap: "bm", bitmapMode: "always" } as const) : {};
      const options = { sync, speed: 10, onCbwError: "break-snapshot", ...bitmap } as const;
      const job = await t.start(options);
      await t.clock.advance(10);
      t.fault("target", "write", "EIO");
      await t.clock.runUntil(t.vda.write(pattern(10, 2), 1536 * KiB));
      t.hook("target", null);
      await t.end(job);
      expect(job.error).toMatchObject({ errno: "EIO" });
      expect(t.story()).toMatch(/aborting COMPLETED\(The old content could not be copied.*null$/);
      expect((await t.read("source"))[1536 * KiB]).toBe(pattern(10, 2)[0]);
      if (sync === "full") {
        const { bitmaps } = t.graph.get("source");
        expect(bitmaps.get("bm").isDirty(1536 * KiB)).toBe(true);
      }
      t.expectClean();
    },
  );

  it("waits for a guest's copy before it ends, and sees to it by itself if that fails", async () => {
    const t = await simple(MiB);
    await t.remake("target", { size: MiB, driver: "store" });
    let fails = true;
    t.hook("target", async (_op, offset) => {
      if (offset !== 5 * CLUSTER || !fails) return;
      await sleep(t.clock, 1000);
      fails = false;
      throw new BlockError("EIO", "Injected write error");
    });
    const job = await t.start({ speed: 10, maxChunk: CLUSTER });
    await t.clock.advance(10);
    const write = expect(t.vda.write(pattern(10, 2), 5 * CLUSTER)).rejects.toMatchObject({
      errno: "EIO",
    });
    await t.clock.advance(10);
    job.setSpeed(0);
    await t.clock.advance(500);
    expect([job.status, job.progress.current]).toEqual(["running", MiB - CLUSTER]);
    await t.clock.advance(1000);
    await write;
    await t.end(job);
    expect(job.error).toBe(null);
    expect(Buffer.compare(await t.read("target"), t.before)).toBe(0);
    expect(Buffer.compare(await t.read("source"), t.before)).toBe(0);
  });

  it("discards in the source only what has been copied whole", async () => {
    const t = await backupRig();
    await t.disk("source", { size: 2 * MiB, driver: "store", seed: 1 });
    await t.disk("target", { size: 2 * MiB, driver: "store" });
    await t.graph.get("source").state.pwriteZeroes!(256 * KiB, 128 * KiB, {});
    const before = await t.read("source");
    let left = 1;
    t.hook("target", (op, offset) => {
      if (op === "write" && offset === 384 * KiB && left-- > 0)
        throw new BlockError("EIO", "Injected");
    });
    const options = { device: "source", discardSource: true, onTargetError: "ignore" } as const;
    const job = await t.backup(options);
    expect([job.error, left < 0]).toEqual([null, true]);
    expect(Buffer.compare(await t.read("target"), before)).toBe(0);
    expect((await t.read("source")).every((byte) => byte === 0)).toBe(true);
  });
});
