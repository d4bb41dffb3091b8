/** blockdev-backup, seen from outside: disks and options in, events and a copy out. */

import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { sleep } from "../../src/base/clock.ts";
import { BlockError } from "../../src/base/errors.ts";
import { Perm } from "../../src/block/permissions.ts";
import { type BackupOptions, createBackup, startBackup } from "../../src/blockjob/backup.ts";
import type { BlockJob } from "../../src/blockjob/block-job.ts";
import { resizeNode } from "../../src/blockjob/resize.ts";
import { startStream } from "../../src/blockjob/stream.ts";
import { verbs } from "../../src/job/verbs.ts";
import { backup, backupRig, pattern } from "./backup-rig.ts";

const CLUSTER = 64 * KiB;
/** The pause is the drained section that the job is started in. */
const SUCCESS = "created running paused running waiting pending COMPLETED concluded null";

/** What, with which options, and of which the error's text tells. */
type Wrong = readonly [string, Partial<BackupOptions>, string];

/** A disk of 4 MiB with data everywhere, as device vda, and an empty target. */
async function simple(size = 4 * MiB) {
  const t = await backupRig();
  await t.disk("source", { size, seed: 1 });
  await t.disk("target", { size });
  const vda = t.device("source");
  return { ...t, vda, before: await t.read("source") };
}

describe("a backup", () => {
  it("#101 full: copies all of a disk", async () => {
    const t = await simple();
    const job = await t.backup();
    expect(job.error).toBe(null);
    expect(t.story()).toBe(SUCCESS);
    expect(Buffer.compare(await t.read("target"), t.before)).toBe(0);
    t.expectClean();
    await t.clock.runUntil(t.vda.write(pattern(KiB, 2), 0));
    expect(Buffer.compare(await t.read("target"), t.before)).toBe(0);
  });

  it("#101 top: copies the top layer, for a target over the same backing file", async () => {
    const t = await backupRig();
    await t.disk("base", { size: MiB, seed: 1 });
    await t.disk("source", { size: MiB, backing: "base", clusterSize: 4 * KiB });
    await t.disk("target", { size: MiB, backing: "base" });
    await t.disk("alone", { size: MiB });
    for (const at of [3, 200, 1020]) await t.write("source", pattern(KiB, at), at * KiB);
    const job = await t.backup({ device: "source", sync: "top" });
    expect(job.error).toBe(null);
    expect(Buffer.compare(await t.read("target"), await t.read("source"))).toBe(0);
    await t.backup({ device: "source", sync: "top", target: "alone" });
    const alone = await t.read("alone");
    expect(alone.subarray(CLUSTER, 3 * CLUSTER).every((byte) => byte === 0)).toBe(true);
    expect(alone.subarray(3 * CLUSTER, 4 * CLUSTER).every((byte) => byte !== 0)).toBe(true);
  });

  it("copies what the layer had at the start although a snapshot comes on top of it meanwhile", async () => {
    const t = await backupRig();
    await t.disk("base", { size: 2 * MiB, seed: 1 });
    await t.disk("source", { size: 2 * MiB, backing: "base" });
    await t.disk("overlay", { size: 2 * MiB });
    await t.disk("target", { size: 2 * MiB, backing: "base" });
    for (const at of [0, 500, 1000, 1500]) await t.write("source", pattern(KiB, at), at * KiB);
    const before = await t.read("source");
    const [source, overlay] = [t.graph.get("source"), t.graph.get("overlay")];
    // Before the job has looked at what there is in the layer.
    const section = await t.graph.drain([source]);
    const options = backup({ device: "source", sync: "top" });
    const { job, start } = await t.clock.runUntil(createBackup(t.services, options));
    await start();
    t.graph.setBacking(overlay, source);
    t.graph.replaceNode(source, overlay);
    section.end();
    await t.end(job);
    expect(job.error).toBe(null);
    expect(Buffer.compare(await t.read("target"), before)).toBe(0);
  });

  it("#30 sync=none does nothing by itself, and can only be cancelled", async () => {
    const t = await simple(MiB);
    const job = await t.start({ sync: "none" });
    await t.clock.advance(60_000);
    expect([job.status, job.progress.current, job.progress.total]).toEqual(["running", 0, MiB]);
    await verbs.pause(job);
    await t.clock.advance(10);
    await verbs.resume(job);
    await verbs.cancel(job, false);
    await t.end(job);
    expect(t.story()).toBe(
      "created running paused running paused running aborting CANCELLED concluded null",
    );
    t.expectClean();
  });

  it("#102 sync=none keeps the old content of what guests overwrite, and no more", async () => {
    const t = await simple(MiB);
    const job = await t.start({ sync: "none" });
    await t.clock.runUntil(t.vda.write(pattern(100, 2), 5 * CLUSTER + 7));
    await t.clock.runUntil(t.vda.writeZeroes(9 * CLUSTER - 1, 2));
    expect(job.progress.current).toBe(3 * CLUSTER);
    await verbs.cancel(job, true);
    await t.end(job);
    const target = await t.read("target");
    for (let i = 0; i < MiB / CLUSTER; i++) {
      const [start, end] = [i * CLUSTER, (i + 1) * CLUSTER];
      const wanted = [5, 8, 9].includes(i) ? t.before.subarray(start, end) : Buffer.alloc(CLUSTER);
      expect(Buffer.compare(target.subarray(start, end), wanted), `cluster ${i}`).toBe(0);
    }
  });

  it("#104 copies first what a guest overwrites, and counts each cluster once", async () => {
    const t = await simple();
    const job = await t.start({ speed: MiB });
    await t.clock.advance(100);
    const offset = job.progress.current;
    expect(offset).toBe(MiB);
    await t.clock.runUntil(t.vda.write(pattern(KiB, 2), 3 * MiB + 500));
    expect(job.progress.current).toBe(offset + CLUSTER);
    await t.clock.runUntil(t.vda.write(pattern(CLUSTER, 3), 3 * MiB));
    await t.clock.runUntil(t.vda.write(pattern(KiB, 3), 100));
    expect(job.progress.current).toBe(offset + CLUSTER);
    expect(job.progress.total).toBe(4 * MiB);
    job.setSpeed(0);
    await t.end(job);
    expect([job.progress.current, job.progress.total]).toEqual([4 * MiB, 4 * MiB]);
    expect(Buffer.compare(await t.read("target"), t.before)).toBe(0);
  });

  it("#52 counts clusters: of the top layer those that are there, at the end a whole one", async () => {
    const t = await backupRig();
    await t.disk("base", { size: 1025 * KiB, seed: 1 });
    await t.disk("source", { size: 1025 * KiB, backing: "base" });
    await t.disk("target", { size: 1025 * KiB });
    await t.write("source", pattern(10, 2), 3 * CLUSTER);
    await t.write("source", pattern(10, 2), 1024 * KiB + 100);
    const full = await t.backup({ device: "source" });
    expect([full.progress.current, full.progress.total]).toEqual([1114112, 1114112]);
    const top = await t.backup({ device: "source", sync: "top" });
    expect([top.progress.current, top.progress.total]).toEqual([2 * CLUSTER, 2 * CLUSTER]);
    await t.disk("nothing", { size: 0 });
    await t.disk("nowhere", { size: 0 });
    const none = await t.backup({ device: "nothing", target: "nowhere" });
    expect([none.progress.current, none.progress.total, none.error]).toEqual([0, 0, null]);
  });

  it("writes zeroes as zeroes, over whatever the target had", async () => {
    const t = await backupRig();
    await t.disk("source", { size: 2 * MiB });
    await t.disk("target", { size: 2 * MiB, seed: 3 });
    await t.write("source", pattern(10, 2), MiB + 100);
    let written = 0;
    t.hook("target", (op, _offset, bytes) => {
      if (op === "write") written += bytes;
    });
    const job = await t.backup({ device: "source" });
    expect(job.error).toBe(null);
    t.hook("target", null);
    expect(written).toBe(CLUSTER);
    expect(Buffer.compare(await t.read("target"), await t.read("source"))).toBe(0);
  });

  it("waits with its end for the user where that is wanted", async () => {
    const t = await simple(MiB);
    const job = await t.start({ autoFinalize: false, autoDismiss: false });
    await t.clock.advance(100);
    expect(t.story()).toBe("created running paused running waiting pending PENDING");
    // It is done: what guests write now is copied no more.
    let writes = 0;
    t.hook("target", () => void writes++);
    await t.clock.runUntil(t.vda.write(pattern(CLUSTER, 2), 0));
    expect(writes).toBe(0);
    await t.clock.runUntil(verbs.finalize(job));
    expect(t.story()).toBe("COMPLETED concluded");
    t.expectClean();
    await verbs.dismiss(job);
    expect(Buffer.compare(await t.read("target"), t.before)).toBe(0);
  });

  const disks: Wrong[] = [
    ["a target of another size", { target: "small" }, "same size"],
    ["the source as its own target", { target: "vda" }, "its own backup"],
    ["the source's node as the target", { target: "source" }, "its own backup"],
    ["a device that is not there", { device: "nope" }, "Cannot find device or node 'nope'"],
    ["a target that is not there", { target: "nope" }, "Cannot find device or node 'nope'"],
  ];
  const wrong: Wrong[] = [
    ["no id where there is no device", { jobId: undefined, device: "source" }, "Invalid job ID ''"],
    ["a bad id", { jobId: "0id" }, "Invalid job ID '0id'"],
    ["no workers", { maxWorkers: 0 }, "'max-workers'"],
    ["chunks of less than nothing", { maxChunk: -1 }, "'max-chunk'"],
    ["chunks of less than a cluster", { maxChunk: 32 * KiB }, "less than the 65536 bytes"],
    ["chunks of less than min-cluster-size", { maxChunk: MiB, minClusterSize: 2 * MiB }, "less"],
    ["an odd min-cluster-size", { minClusterSize: 100_000 }, "power of two"],
    ["a target that cannot pack", { compress: true }, "cannot hold compressed"],
    ["a busy source", { device: "busy" }, "'busy' is busy"],
    ["a busy target", { target: "busy" }, "'busy' is busy"],
    ["a negative speed", { speed: -1 }, "expects 0 or more"],
    ["a read-only target", { target: "sealed" }, "read-only"],
    ["a target that others want alone", { target: "owned" }, "Permission conflict"],
    ["a filter's name that is taken", { filterNodeName: "target" }, "There is a node 'target'"],
    [
      "to take from a disk that cannot be written",
      { device: "sealed", discardSource: true },
      "read",
    ],
  ];
  it("#105 refuses at once disks that do not fit", async () => {
    for (const [what, options, text] of disks) await expectRefused(what, options, text);
  });
  it.each(wrong)("refuses %s", expectRefused);

  it("packs into a target below a filter, in the target's own clusters", async () => {
    const t = await backupRig();
    await t.disk("source", { size: MiB, seed: 3 });
    t.device("source");
    await t.disk("image", { size: MiB, driver: "qcow2" });
    t.graph.throttleGroups.add("g", {});
    await t.graph.add({
      driver: "throttle",
      "node-name": "target",
      file: "image",
      "throttle-group": "g",
    });
    const job = await t.backup({ compress: true, minClusterSize: 256 * KiB });
    expect(job.error).toBeNull();
    expect(Buffer.compare(await t.read("image"), await t.read("source"))).toBe(0);
  });

  async function expectRefused(...[what, options, text]: Wrong): Promise<void> {
    const t = await backupRig();
    for (const name of ["source", "target", "busy", "owned"]) await t.disk(name, { size: MiB });
    await t.disk("small", { size: MiB - 512 });
    await t.graph.add({ driver: "raw", "node-name": "sealed", "read-only": true, file: "busy" });
    t.graph.get("busy").blockers.add({ reason: "for the test" });
    t.graph.openBackend(t.graph.get("owned"), {
      name: "",
      description: "the test",
      permissions: { take: Perm.consistentRead, share: Perm.consistentRead },
    });
    t.device("source");
    await expect(t.start(options), what).rejects.toThrow(text);
    expect(t.filters()).toEqual([]);
    expect(t.jobs.all()).toEqual([]);
    expect(t.graph.get("target").blockers.size).toBe(0);
    expect(t.graph.get("source").blockers.size).toBe(0);
    expect(t.story()).toBe(options.speed === -1 ? "created null" : "");
    expect(t.bugs).toEqual([]);
    const job = await t.backup();
    expect(job.error, "what was refused left nothing behind").toBe(null);
  }

  it("#106 keeps the size of both disks, in pending too", async () => {
    const t = await simple(MiB);
    const job = await t.start({ autoFinalize: false });
    await t.clock.advance(100);
    expect(job.status).toBe("pending");
    for (const node of ["vda", "source", "target"]) {
      await expect(t.clock.runUntil(resizeNode(t, node, 2 * MiB)), node).rejects.toThrow(
        /Permission conflict|block job: backup/,
      );
    }
    await t.clock.runUntil(verbs.finalize(job));
  });

  it("#107 two of one disk to two targets, both as the disk was at their starts", async () => {
    const t = await simple(2 * MiB);
    await t.disk("second", { size: 2 * MiB });
    const first = await t.start({ device: "source", speed: 256 * KiB });
    await t.clock.advance(500);
    await t.clock.runUntil(t.vda.write(pattern(300 * KiB, 2), MiB));
    const between = await t.read("source");
    const second = await t.start({ device: "source", jobId: "b1", target: "second" });
    await t.clock.runUntil(t.vda.write(pattern(300 * KiB, 3), MiB + CLUSTER));
    await t.end(first, second);
    expect([first.error, second.error]).toEqual([null, null]);
    expect(Buffer.compare(await t.read("target"), t.before)).toBe(0);
    expect(Buffer.compare(await t.read("second"), between)).toBe(0);
    t.expectClean();
  });

  it("ends in either order when there are two", async () => {
    const t = await simple(MiB);
    await t.disk("second", { size: MiB });
    const first = await t.start({ device: "source", speed: 10, maxChunk: CLUSTER });
    const second = await t.start({
      device: "source",
      jobId: "b1",
      target: "second",
      speed: 10,
      maxChunk: CLUSTER,
    });
    first.setSpeed(0);
    await t.end(first);
    second.setSpeed(0);
    await t.end(second);
    for (const target of ["target", "second"]) {
      expect(Buffer.compare(await t.read(target), t.before)).toBe(0);
    }
    t.expectClean();
  });

  it("lets one of two have the target that both were asked for at once", async () => {
    const t = await simple(MiB);
    const asked = ["a", "b"].map((jobId) =>
      startBackup(t.services, backup({ device: "source", jobId, speed: 10, maxChunk: CLUSTER })),
    );
    const [a, b] = await t.clock.runUntil(Promise.allSettled(asked));
    expect(a?.status).toBe("fulfilled");
    expect(b).toMatchObject({ status: "rejected", reason: { errno: "EBUSY" } });
    const [job] = t.jobs.all();
    (job as BlockJob).setSpeed(0);
    await t.clock.runUntil(job!.finished);
    t.expectClean();
  });

  it("reads its target's backing file past the filter", async () => {
    const t = await backupRig();
    await t.disk("source", { size: MiB, seed: 1 });
    await t.disk("target", { size: MiB, backing: "source" });
    const job = await t.start({ device: "source", sync: "none" });
    const { children } = t.graph.get("target");
    expect(children.get("backing")?.node.name).toBe("source");
    await verbs.cancel(job, true);
    await t.end(job);
    expect(children.get("backing")?.node.name).toBe("source");
    t.expectClean();
  });

  it("keeps data in a cluster that is zero in part", async () => {
    const t = await backupRig();
    await t.disk("source", { size: MiB, seed: 1, clusterSize: 4 * KiB });
    await t.disk("target", { size: MiB, seed: 2 });
    const vda = t.device("source");
    await t.clock.runUntil(vda.writeZeroes(128 * KiB, 12 * KiB));
    await t.clock.runUntil(vda.writeZeroes(300 * KiB, 200 * KiB));
    await t.backup();
    expect(Buffer.compare(await t.read("target"), await t.read("source"))).toBe(0);
  });

  it("refuses a second one on the device, where the first one's filter is", async () => {
    const t = await simple(MiB);
    await t.disk("second", { size: MiB });
    const first = await t.start({ speed: 10, maxChunk: CLUSTER });
    await expect(t.start({ jobId: "b1", target: "second" })).rejects.toMatchObject({
      errno: "EBUSY",
    });
    await expect(t.start({ device: "source", jobId: "b1" })).rejects.toThrow(/'target' is busy/);
    await verbs.cancel(first, true);
    await t.end(first);
    t.expectClean();
  });

  it("lets a stream into its source work below it", async () => {
    const t = await backupRig();
    await t.disk("base", { size: MiB, seed: 1 });
    await t.disk("source", { size: MiB, backing: "base" });
    await t.disk("target", { size: MiB });
    const disk = t.device("source");
    await t.clock.runUntil(disk.write(pattern(KiB, 2), 100_000));
    const before = await t.read("source");
    const job = await t.start({ speed: 256 * KiB });
    const stream = await startStream(t.services, { device: "source", jobId: "s0" });
    await t.end(stream, job);
    expect([stream.error, job.error]).toEqual([null, null]);
    expect(Buffer.compare(await t.read("target"), before)).toBe(0);
    expect(t.graph.get("source").children.has("backing")).toBe(false);
    t.expectClean();
  });

  it("#113 is refused where somebody writes below its filter", async () => {
    const t = await backupRig();
    await t.disk("base", { size: MiB, seed: 1 });
    await t.graph.add({ driver: "copy-on-read", "node-name": "source", file: "base" });
    await t.disk("target", { size: MiB });
    const side = t.device("base", "side");
    const start = t.start({ device: "source" });
    await expect(start).rejects.toThrow(/Permission conflict on node 'base'/);
    expect(t.filters().map(({ name }) => name)).toEqual(["source"]);
    await t.graph.closeBackend(side);
    const job = await t.start({ device: "source", filterNodeName: "filter", autoFinalize: false });
    await t.clock.advance(100);
    expect(t.graph.find("filter")).toBeDefined();
    expect(() => t.device("base", "side")).toThrow(/Permission conflict on node 'base'/);
    await t.clock.runUntil(verbs.finalize(job));
    expect(t.graph.find("filter"), "gone after finalize").toBeUndefined();
    t.device("base", "side");
  });

  it("keeps the nodes it works with, and lets go of them", async () => {
    const t = await simple(MiB);
    const job = await t.start({ speed: 10, maxChunk: CLUSTER, filterNodeName: "filter" });
    for (const node of ["source", "target", "filter"]) {
      await expect(t.graph.remove(node), node).rejects.toMatchObject({ errno: "EBUSY" });
    }
    expect(() => t.device("source", "writer")).toThrow(/Permission conflict/);
    t.graph.get("source").checkOperation("snapshot");
    await t.graph.closeBackend(t.device("target", "reader"));
    await verbs.cancel(job, true);
    await t.end(job);
    await t.graph.closeBackend(t.vda);
    for (const node of ["source", "target"]) await t.graph.remove(node);
  });

  it("takes a source that cannot be written, and one that nobody uses", async () => {
    const t = await backupRig();
    await t.disk("image", { size: MiB, seed: 1 });
    await t.graph.add({ driver: "raw", "node-name": "source", "read-only": true, file: "image" });
    await t.disk("target", { size: MiB });
    const job = await t.start({ device: "source", speed: 10, maxChunk: CLUSTER });
    expect(() => t.device("image", "writer")).toThrow(/Permission conflict/);
    job.setSpeed(0);
    await t.end(job);
    expect(Buffer.compare(await t.read("target"), await t.read("image"))).toBe(0);
  });

  it("#117 discard-source from a snapshot leaves the temporary image empty, and spares later copies", async () => {
    for (const isWrittenBefore of [true, false]) {
      const t = await backupRig();
      await t.disk("source", { size: MiB, seed: 1 });
      await t.disk("temp", { size: MiB, driver: "store" });
      await t.disk("target", { size: MiB });
      const before = await t.read("source");
      const cbw = { driver: "copy-before-write", file: "source", target: "temp" };
      await t.graph.add({ ...cbw, "node-name": "cbw" });
      await t.graph.add({ driver: "snapshot-access", "node-name": "snap", file: "cbw" });
      const disk = t.device("cbw");
      const write = () => t.clock.runUntil(disk.write(pattern(3 * CLUSTER, 2), 2 * CLUSTER));
      if (isWrittenBefore) await write();
      const job = await t.start({ device: "snap", discardSource: true, autoFinalize: false });
      await t.clock.advance(100);
      expect(job.status).toBe("pending");
      if (!isWrittenBefore) await write();
      await t.clock.runUntil(verbs.finalize(job));
      expect(job.error).toBe(null);
      expect(Buffer.compare(await t.read("target"), before)).toBe(0);
      const temp = await t.graph.get("temp").state.storeStatus!(0, MiB);
      expect(temp, `written before: ${isWrittenBefore}`).toEqual({ bytes: MiB, zero: true });
    }
  });

  it("#126 waits for a target that is away for a while", async () => {
    const t = await simple();
    let isAway = false;
    t.hook("target", async (_op, _offset, _bytes, signal) => {
      while (isAway) await sleep(t.clock, 50, signal);
    });
    const job = await t.start({ speed: 2 * MiB });
    await t.clock.advance(600);
    isAway = true;
    await t.clock.advance(1000);
    expect(job.progress.current).toBeLessThan(3 * MiB);
    isAway = false;
    await t.end(job);
    expect(job.error).toBe(null);
    expect(Buffer.compare(await t.read("target"), t.before)).toBe(0);
  });

  it("#126 is cancelled at once while its target is away", async () => {
    const t = await simple();
    t.hook("target", (_op, _offset, _bytes, signal) => sleep(t.clock, 3_600_000, signal));
    const job = await t.start();
    await t.clock.advance(600);
    const asked = t.clock.now();
    await verbs.cancel(job, true);
    await t.end(job);
    expect(t.clock.now() - asked).toBeLessThan(50);
    expect(t.story()).toMatch(/running aborting CANCELLED concluded null$/);
    t.hook("target", null);
    t.expectClean();
  });

  it("#126 lets a guest's write go on when it is cancelled while its target is away", async () => {
    for (const sync of ["full", "none"] as const) {
      const t = await simple();
      const job = await t.start({ sync, speed: 10, maxChunk: CLUSTER });
      await t.clock.advance(10);
      t.hook("target", (_op, _offset, _bytes, signal) => sleep(t.clock, 3_600_000, signal));
      const write = t.vda.write(pattern(10, 2), 3 * MiB);
      await t.clock.advance(600);
      const asked = t.clock.now();
      await verbs.cancel(job, true);
      await t.clock.runUntil(write);
      await t.end(job);
      expect(t.clock.now() - asked).toBeLessThan(50);
      expect(t.story()).toMatch(/running aborting CANCELLED concluded null$/);
      expect((await t.read("source"))[3 * MiB]).toBe(pattern(10, 2)[0]);
      t.expectClean();
    }
  });

  it("tells no more of a failure than that the target has one of its own", async () => {
    const t = await simple(MiB);
    t.hook("target", (op) => {
      if (op === "write") throw new BlockError("ENOSPC", "It is full");
    });
    const job = await t.backup();
    expect(job.error).toMatchObject({ errno: "ENOSPC", message: "It is full" });
    expect(job.error?.at).toMatchObject({ node: "target", op: "write" });
  });
});
