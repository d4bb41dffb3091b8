/** Mirrors whose disks fail, vanish, or are kept quiet by others. */

import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { verbs } from "../../src/job/verbs.ts";
import { type MirrorRig, mirrorRig, pattern } from "./mirror-rig.ts";

const SIZE = 2 * MiB;

async function broken(side: "source" | "target", errno: "EIO" | "ENOSPC", policy: string) {
  const t = await mirrorRig({ size: SIZE });
  await t.fill(t.disk);
  const store = side === "source" ? t.sourceStore : t.targetStore;
  store.fault = { op: side === "source" ? "read" : "write", errno, offset: MiB };
  const key = side === "source" ? "onSourceError" : "onTargetError";
  const job = await t.start({ [key]: policy });
  return { t, job, store };
}

async function completes(t: MirrorRig, job: Awaited<ReturnType<MirrorRig["start"]>>) {
  await t.ready(job);
  await verbs.complete(job);
  await t.end(job);
  expect(job.error).toBe(null);
  expect(t.layers()).toEqual(["target"]);
  expect(t.bugs).toEqual([]);
  expect(Buffer.compare(await t.contentOf("top"), await t.content())).toBe(0);
}

describe("#59 the five policies, on either side", () => {
  const outcome = (policy: string, errno: string) => {
    if (policy === "report" || policy === "ignore" || policy === "stop") return policy;
    return errno === "ENOSPC" ? "stop" : "report";
  };
  for (const side of ["source", "target"] as const) {
    for (const errno of ["EIO", "ENOSPC"] as const) {
      for (const policy of ["report", "ignore", "stop", "enospc", "auto"]) {
        const action = outcome(policy, errno);
        it(`#59 ${side} ${errno} with ${policy}: ${action}`, async () => {
          const { t, job, store } = await broken(side, errno, policy);
          const op = side === "source" ? "read" : "write";
          if (action === "report") {
            await t.end(job);
            expect(job.error).toMatchObject({ errno });
            expect(t.story()).toMatch(
              new RegExp(`^created running ERROR\\(${op},report\\) aborting COMPLETED\\(Injected`),
            );
            expect(t.layers()).toEqual(["top"]);
            expect(t.filters()).toEqual([]);
            return;
          }
          await t.clock.advance(2000);
          const story = t.story();
          if (action === "stop") {
            expect(story).toBe(`created running ERROR(${op},stop) paused`);
            expect(job.ioStatus).toBe(errno === "ENOSPC" ? "nospace" : "failed");
            await verbs.resume(job);
            await t.clock.advance(100);
            expect(t.story()).toBe(`running ERROR(${op},stop) paused`);
            store.fault = null;
            await verbs.resume(job);
            expect(job.ioStatus).toBe("ok");
          } else {
            expect(story).toMatch(new RegExp(`^created running( ERROR\\(${op},ignore\\))+$`));
            // Backed off: 10 + 20 + 40 … ms.
            expect(story.split("ERROR").length - 1).toBeLessThan(12);
            expect(job.ioStatus).toBe("ok");
            store.fault = null;
          }
          await completes(t, job);
        });
      }
    }
  }
});

it("#60 a full target after ready: standby, complete is heard, resumed it fails again, force ends it", async () => {
  const t = await mirrorRig({ size: SIZE });
  await t.fill(t.disk);
  const job = await t.start({ onTargetError: "stop" });
  await t.ready(job);
  t.story();
  t.targetStore.fault = { op: "write", errno: "ENOSPC" };
  await t.fill(t.disk, 0, 100_000, 2);
  await t.clock.advance(300);
  expect(t.story()).toBe("ERROR(write,stop) standby");
  expect(job.info()).toMatchObject({ ready: true, "io-status": "nospace", status: "standby" });
  await verbs.complete(job);
  await verbs.resume(job);
  await t.clock.advance(300);
  expect(t.story()).toBe("ready ERROR(write,stop) standby");
  await verbs.cancel(job, true);
  await t.end(job);
  expect(t.story()).toBe("ready aborting CANCELLED concluded null");
  expect(t.layers()).toEqual(["top"]);
});

it.each([1, Number.POSITIVE_INFINITY])(
  "#61 soft cancel with a flush that fails %s times: stop, and resume or force",
  async (times) => {
    const t = await mirrorRig({ size: SIZE });
    await t.fill(t.disk);
    const job = await t.start({ onTargetError: "stop" });
    await t.ready(job);
    t.story();
    t.targetStore.fault = { op: "flush", errno: "EIO", times };
    await verbs.cancel(job, false);
    await t.clock.advance(500);
    expect(t.story()).toBe("ERROR(write,stop) standby");
    // Guests are not held up by a job that stands.
    await t.fill(t.disk, 0, 512, 3);
    await verbs.resume(job);
    if (times === 1) {
      await t.end(job);
      expect(t.story()).toBe("ready waiting pending COMPLETED concluded null");
      expect(Buffer.compare(await t.contentOf("target"), await t.content())).toBe(0);
    } else {
      await t.clock.advance(500);
      expect(t.story()).toBe("ready ERROR(write,stop) standby");
      await verbs.cancel(job, true);
      await t.end(job);
      expect(t.story()).toBe("ready aborting CANCELLED concluded null");
    }
    expect(t.layers()).toEqual(["top"]);
    expect(t.bugs).toEqual([]);
  },
);

it("#126 a target that does not answer for a while: the job goes on afterwards; by force it ends", async () => {
  for (const isForced of [false, true]) {
    for (const copyMode of ["background", "write-blocking"] as const) {
      const t = await mirrorRig({ size: SIZE });
      await t.fill(t.disk);
      const job = await t.start({ copyMode });
      await t.ready(job);
      const go = t.targetStore.hold("write");
      const write = t.disk.write(pattern(0, 70_000, 2), 1000);
      await t.clock.advance(5000);
      expect(t.targetStore.waiting).toBeGreaterThan(0);
      if (isForced) {
        await t.clock.runUntil(verbs.cancel(job, true));
        await t.end(job);
        await t.clock.runUntil(write);
        expect(t.story()).toMatch(/aborting CANCELLED concluded null$/);
        expect(t.layers()).toEqual(["top"]);
      } else {
        go();
        await t.clock.runUntil(write);
        await completes(t, job);
      }
      expect(t.bugs).toEqual([]);
    }
  }
});

it("a job that fails lets go of a guest's write that waits for the target", async () => {
  const t = await mirrorRig({ size: SIZE });
  await t.fill(t.disk);
  const job = await t.start({ copyMode: "write-blocking" });
  await t.ready(job);
  t.targetStore.hold("write");
  const first = t.disk.write(pattern(0, 512, 2), 0);
  await t.clock.advance(10);
  t.sourceStore.fault = { op: "read", errno: "EIO" };
  // Below the filter, so that it is dirty and read by the job.
  const side = t.open("top", "side");
  await t.clock.runUntil(side.write(pattern(MiB, 512, 3), MiB));
  await t.end(job);
  await t.clock.runUntil(first);
  expect(job.error).toMatchObject({ errno: "EIO" });
  expect(t.bugs).toEqual([]);
  t.sourceStore.fault = null;
  expect((await t.content())[0]).toBe(pattern(0, 1, 2)[0]);
});

describe("write-blocking", () => {
  it("a failing target does not fail the guest, and its bytes get there later", async () => {
    for (const policy of ["stop", "ignore"] as const) {
      const t = await mirrorRig({ size: SIZE });
      await t.fill(t.disk);
      const job = await t.start({ copyMode: "write-blocking", onTargetError: policy });
      await t.ready(job);
      t.story();
      t.targetStore.fault = { op: "write", errno: "EIO" };
      for (let i = 0; i < 20; i++) await t.fill(t.disk, i * 50_000, 30_000, 2);
      await t.clock.advance(1000);
      expect(job.info()).toMatchObject({ "actively-synced": false });
      const errors = t.story().match(/ERROR\(write,/g)!.length;
      expect(errors).toBeLessThan(10); // Not one for each write of the guest.
      t.targetStore.fault = null;
      if (policy === "stop") {
        expect(job.status).toBe("standby");
        await verbs.resume(job);
      }
      await t.clock.advance(5000);
      expect(job.info()).toMatchObject({ "actively-synced": true });
      await completes(t, job);
    }
  });

  it("with report a failing target is the end of the job, and of the filter, not of the guest", async () => {
    const t = await mirrorRig({ size: SIZE });
    await t.fill(t.disk);
    const job = await t.start({ copyMode: "write-blocking" });
    await t.ready(job);
    t.targetStore.fault = { op: "write", errno: "ENOSPC" };
    await t.fill(t.disk, 0, 1000, 2);
    await t.end(job);
    expect(job.error).toMatchObject({ errno: "ENOSPC" });
    expect(t.filters()).toEqual([]);
    await t.fill(t.disk, 0, 1000, 3);
  });

  it("a failing source fails the guest, and what it may have written is copied", async () => {
    const t = await mirrorRig({ size: SIZE });
    await t.fill(t.disk);
    const job = await t.start({ copyMode: "write-blocking" });
    await t.ready(job);
    t.sourceStore.fault = { op: "write", errno: "EIO" };
    const write = t.disk.write(pattern(0, 70_000, 2), 0);
    await expect(t.clock.runUntil(write)).rejects.toMatchObject({ errno: "EIO" });
    t.sourceStore.fault = null;
    expect(job.info()).toMatchObject({ "actively-synced": false });
    const reads = t.sourceStore.log.filter(({ op }) => op === "read").length;
    await t.clock.advance(500);
    expect(t.sourceStore.log.filter(({ op }) => op === "read").length).toBeGreaterThan(reads);
    await completes(t, job);
  });

  it("a drained target does not hold guests up: what they write meanwhile is copied later", async () => {
    const t = await mirrorRig({ size: SIZE });
    await t.fill(t.disk);
    const job = await t.start({ copyMode: "write-blocking" });
    await t.ready(job);
    const section = await t.clock.runUntil(t.graph.drain([t.graph.get("target")]));
    const before = t.targetStore.log.length;
    await t.fill(t.disk, 5000, 70_000, 2);
    await t.clock.advance(500);
    expect(t.targetStore.log.length).toBe(before);
    expect(job.info()).toMatchObject({ status: "standby", "actively-synced": false });
    section.end();
    await t.clock.advance(500);
    expect(job.info()).toMatchObject({ status: "ready", "actively-synced": true });
    await completes(t, job);
  });
});

describe("nobody waits for ever", () => {
  it("a drain of either disk, or both, ends while guests write and the job copies", async () => {
    for (const copyMode of ["background", "write-blocking"] as const) {
      const t = await mirrorRig({ size: SIZE });
      await t.fill(t.disk);
      t.targetStore.delayMs = () => 7;
      t.sourceStore.delayMs = () => 3;
      const job = await t.start({ copyMode, speed: 0 });
      const nodes = ["top", "target"].map((name) => t.graph.get(name));
      const writing: Promise<void>[] = [];
      for (let i = 0; i < 12; i++) {
        writing.push(t.disk.write(pattern(0, 100_000, i), i * 3000));
        await t.clock.advance(4);
        const drained = [nodes.slice(0, 1), nodes.slice(1), nodes][i % 3]!;
        const section = await t.clock.runUntil(t.graph.drain(drained));
        expect(t.graph.get("target").isIdle).toBe(true);
        await t.clock.advance(20);
        expect(drained.every((node) => node.isIdle)).toBe(true);
        section.end();
      }
      await t.clock.runUntil(Promise.all(writing));
      await completes(t, job);
    }
  });

  it("two mirrors of two disks end at once, each keeping its source drained", async () => {
    const t = await mirrorRig({ size: SIZE });
    await t.graph.add({ driver: "memory", "node-name": "top2", size: SIZE });
    await t.graph.add({ driver: "memory", "node-name": "target2", size: SIZE });
    const disk2 = t.open("top2", "vdb");
    await t.fill(t.disk);
    const jobs = [
      await t.start({ autoFinalize: false }),
      await t.start({ jobId: "m1", device: "vdb", target: "target2", autoFinalize: false }),
    ];
    for (const job of jobs) await t.ready(job);
    for (const job of jobs) await verbs.complete(job);
    await t.clock.advance(500);
    expect(jobs.map((job) => job.status)).toEqual(["pending", "pending"]);
    for (const job of jobs) await t.clock.runUntil(verbs.finalize(job));
    expect([t.disk.node.name, disk2.node.name]).toEqual(["target", "target2"]);
  });

  it("a force cancel ends a job that waits for a drain to begin, as soon as the guest's write ends", async () => {
    const t = await mirrorRig({ size: SIZE });
    const job = await t.start();
    await t.ready(job);
    const go = t.sourceStore.hold("write");
    const write = t.disk.write(pattern(0, 512, 2), 0);
    await verbs.complete(job);
    await t.clock.advance(500);
    expect(job.status).toBe("ready");
    const cancel = verbs.cancel(job, true);
    await t.clock.advance(500);
    go();
    await t.clock.runUntil(Promise.all([cancel, write, job.finished]));
    expect(t.story()).toMatch(/READY aborting CANCELLED concluded null$/);
    expect(t.layers()).toEqual(["top"]);
  });

  it("a pause that comes while the job waits for the source to be quiet is obeyed", async () => {
    const t = await mirrorRig({ size: SIZE });
    const job = await t.start();
    await t.ready(job);
    const go = t.sourceStore.hold("write");
    const write = t.disk.write(pattern(0, 512, 2), 0);
    await verbs.complete(job);
    await t.clock.advance(200);
    await verbs.pause(job);
    go();
    await t.clock.runUntil(write);
    await t.clock.advance(500);
    expect(job.status).toBe("standby");
    await t.fill(t.disk, 1000, 512, 3); // Guests go on.
    await verbs.resume(job);
    await t.end(job);
    expect(t.layers()).toEqual(["target"]);
    expect(Buffer.compare(await t.contentOf("top"), await t.content())).toBe(0);
  });

  it("#123 a throttled job is still there when the engine's guests stop", async () => {
    const t = await mirrorRig({ size: SIZE });
    await t.fill(t.disk);
    const job = await t.start({ speed: 16 * KiB });
    await t.clock.advance(100);
    // Guests stop: their disks are drained, once, and their devices go.
    await t.clock.runUntil(t.graph.drained([t.graph.get("top")], () => {}));
    await t.clock.runUntil(t.graph.closeBackend(t.disk));
    await t.clock.advance(100);
    expect(job.status).toBe("running");
    expect(job.progress.current).toBeLessThan(SIZE);
    await t.clock.runUntil(t.jobs.cancelAll());
    expect(t.filters()).toEqual([]);
    expect(t.bugs).toEqual([]);
  });
});
