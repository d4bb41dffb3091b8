/** block-stream on chains that are long, odd, or in use by others. */

import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import * as io from "../../src/block/io.ts";
import { Perm } from "../../src/block/permissions.ts";
import { startCommit } from "../../src/blockjob/commit.ts";
import { startStream } from "../../src/blockjob/stream.ts";
import { verbs } from "../../src/job/verbs.ts";
import { chain, hash } from "./rig.ts";

const NINE = ["n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "top"];

describe("block-stream on a long chain", () => {
  it("#65 runs four throttled streams on disjoint pairs of nine images", async () => {
    const t = await chain(NINE, 2 * MiB);
    const before = await t.content();
    for (let i = 2; i < NINE.length; i += 2) {
      await startStream(t.services, {
        device: NINE[i]!,
        jobId: `s${i}`,
        bottom: NINE[i - 1],
        speed: i * 100 * KiB,
      });
    }
    const jobs = t.services.jobs.all();
    expect(jobs.map((job) => job.status)).toEqual(["running", "running", "running", "running"]);
    await t.clock.runUntil(Promise.all(jobs.map((job) => job.finished)));
    expect(jobs.map((job) => job.error)).toEqual([null, null, null, null]);
    expect(t.layers()).toEqual(["top", "n6", "n4", "n2", "n0"]);
    expect(hash(await t.content())).toBe(hash(before));
    expect(t.bugs).toEqual([]);
  });

  it("#66 refuses streams and commits that overlap with a stream, naming the node", async () => {
    const t = await chain(NINE, MiB);
    await startStream(t.services, { device: "n5", jobId: "s0", baseNode: "n2", speed: KiB });
    const overlapping = [
      ["n5", { device: "n5", baseNode: "n2" }],
      ["n3", { device: "n3", baseNode: "n1" }],
      ["n4", { device: "n4" }],
      ["n5", { device: "n7", baseNode: "n4" }],
    ] as const;
    for (const [node, options] of overlapping) {
      const refused = startStream(t.services, { jobId: "s1", ...options });
      await expect(refused, node).rejects.toMatchObject({
        errno: "EBUSY",
        message: expect.stringMatching(`^Node '${node}' is busy: .* block job: stream$`),
      });
    }
    const commits = [
      ["n5", { topNode: "n6", baseNode: "n4" }],
      ["n3", { topNode: "n3", baseNode: "n1" }],
      // The overlay of its top is being streamed away.
      ["n3", { topNode: "n2", baseNode: "n0" }],
    ] as const;
    for (const [node, options] of commits) {
      const refused = startCommit(t.services, { device: "vda", jobId: "c0", ...options });
      await expect(refused, JSON.stringify(options)).rejects.toMatchObject({
        errno: "EBUSY",
        message: expect.stringMatching(`^Node '${node}' is busy: .* block job: stream$`),
      });
    }
    // What does not overlap may go on beside it.
    await startStream(t.services, { device: "n2", jobId: "s2" });
    await startCommit(t.services, { device: "vda", jobId: "c1", topNode: "n7", baseNode: "n6" });
    const jobs = t.services.jobs.all();
    for (const job of jobs) job.cancel(true);
    await t.clock.runUntil(Promise.all(jobs.map((job) => job.finished)));
  });

  it("#71 follows its base, the filter of a commit, whichever of the two ends first", async () => {
    for (const first of ["stream", "commit"]) {
      const t = await chain(["n0", "n1", "n2", "n3", "n4", "top"], 2 * MiB);
      const before = await t.content();
      const commit = await startCommit(t.services, {
        device: "vda",
        jobId: "c0",
        topNode: "n2",
        baseNode: "n0",
        filterNodeName: "commit-filter",
        speed: first === "commit" ? 8 * MiB : 512 * KiB,
      });
      const stream = await startStream(t.services, {
        device: "n4",
        jobId: "s0",
        baseNode: "commit-filter",
        speed: first === "commit" ? 512 * KiB : 8 * MiB,
      });
      const [one, other] = first === "commit" ? [commit, stream] : [stream, commit];
      await t.clock.runUntil(one.finished);
      expect(other.status).toBe("running");
      expect(hash(await t.content())).toBe(hash(before));
      await t.clock.runUntil(other.finished);
      expect([commit.error, stream.error]).toEqual([null, null]);
      expect(t.layers()).toEqual(["top", "n4", "n0"]);
      expect(t.graph.get("n4").state.info?.()["backing-filename"], first).toBe("n0");
      expect(hash(await t.content())).toBe(hash(before));
      expect(t.bugs).toEqual([]);
    }
  });
});

describe("block-stream over a commit", () => {
  it("copies nothing of what has become its base meanwhile", async () => {
    const t = await chain(["n0", "n1", "n2", "n3", "top"], 4 * MiB);
    const commit = await startCommit(t.services, {
      device: "vda",
      jobId: "c0",
      topNode: "n1",
      filterNodeName: "commit-filter",
    });
    const stream = await startStream(t.services, {
      device: "n3",
      jobId: "s0",
      baseNode: "commit-filter",
      speed: 256 * KiB,
    });
    await t.clock.runUntil(commit.finished);
    expect(stream.status).toBe("running");
    stream.setSpeed(0);
    await t.clock.runUntil(stream.finished);
    expect([commit.error, stream.error]).toEqual([null, null]);
    expect(t.layers()).toEqual(["top", "n3", "n0"]);
    const below: number[] = [];
    for (let at = 0; at < 4 * MiB; at += 64 * KiB) {
      const { allocated } = await io.blockStatus(t.graph.get("n3"), at, 64 * KiB);
      if (!allocated) below.push(at);
    }
    expect(below.length, "n3 and n2 have two thirds").toBeGreaterThan(20);
  });
});

describe("block-stream on an odd chain", () => {
  it("#67 completes over a shorter backing file, and reads zeroes past its end", async () => {
    const t = await chain(["old", "base", "top"], 3 * MiB, { sizes: { base: MiB } });
    const before = await t.content();
    expect(before.subarray(MiB).some((byte) => byte !== 0)).toBe(false);
    const job = await t.stream({ device: "vda", jobId: "s0", baseNode: "old" });
    expect(job.error).toBe(null);
    expect([job.progress.current, job.progress.total]).toEqual([3 * MiB, 3 * MiB]);
    expect(t.layers()).toEqual(["top", "old"]);
    expect(hash(await t.content()), "old does not show through").toBe(hash(before));
  });

  it("#68 refuses a read-only top whose file can only be read, and opens one that can be written", async () => {
    const t = await chain(["base", "mid", "top"], 2 * MiB);
    const before = await t.content();
    await t.graph.add({ driver: "memory", "node-name": "file", size: 0, "read-only": true });
    await t.graph.add({
      driver: "tiny",
      "node-name": "sealed",
      "read-only": true,
      file: "file",
      backing: "mid",
      size: 2 * MiB,
      "cluster-size": 64 * KiB,
    });
    const refused = startStream(t.services, { device: "sealed", jobId: "s0" });
    await expect(refused).rejects.toMatchObject({ errno: "EROFS" });
    expect(t.services.jobs.query()).toEqual([]);

    await t.graph.remove("sealed");
    await t.graph.reopen(t.graph.get("mid"), { readOnly: true });
    const job = await t.stream({ device: "mid", jobId: "s0" });
    expect(job.error).toBe(null);
    expect(t.graph.get("mid").readOnly).toBe(true);
    expect(t.layers()).toEqual(["top", "mid"]);
    expect(hash(await t.content())).toBe(hash(before));
  });

  it("#74 is prevented by a writer on a layer that it would pull", async () => {
    const t = await chain(["base", "top"], MiB);
    const writer = t.graph.openBackend(t.graph.get("base"), {
      name: "export",
      description: "device 'export'",
      permissions: { take: Perm.write, share: Perm.all },
    });
    const refused = startStream(t.services, { device: "vda", jobId: "s0" });
    await expect(refused).rejects.toMatchObject({
      errno: "EPERM",
      message: expect.stringContaining("Permission conflict on node 'base'"),
    });
    expect(t.story()).toBe("created null");
    expect(t.graph.nodes.filter((node) => node.driver.kind === "filter")).toEqual([]);
    await t.graph.closeBackend(writer);
    expect((await t.stream({ device: "vda", jobId: "s0" })).error).toBe(null);
  });
});

describe("block-stream, disturbed", () => {
  it("#63 ends when it fails while its node is being drained", async () => {
    const t = await chain(["base", "top"], 4 * MiB);
    const job = await startStream(t.services, { device: "vda", jobId: "s0" });
    // The first reads are on their way when the drain begins, and fail in its course.
    t.faulty.hear = () => new Promise((resolve) => void t.clock.setTimer(100, resolve));
    t.faulty.fault = { op: "read", errno: "EIO" };
    await t.clock.advance(50);
    const drained = t.graph.drained([t.disk.node], () => job.status);
    expect(await t.clock.runUntil(drained)).not.toBe("running");
    await t.clock.runUntil(job.finished);
    expect(job.error?.errno).toBe("EIO");
    expect(t.layers()).toEqual(["top", "base"]);
    expect(t.bugs).toEqual([]);
  });

  it("#50 asleep for its speed: not woken by a lower one, paused, resumed and cancelled at once, ended by 0", async () => {
    for (const end of ["unlimited", "cancel"]) {
      const t = await chain(["base", "top"], 4 * MiB);
      const job = await startStream(t.services, { device: "vda", jobId: "s0", speed: 2 });
      await t.clock.advance(60_000);
      const offset = job.progress.current;
      job.setSpeed(1);
      await t.clock.advance(1000);
      const now = t.clock.now();
      await verbs.pause(job);
      await t.clock.advance(10);
      expect([job.status, job.progress.current]).toEqual(["paused", offset]);
      await verbs.resume(job);
      await t.clock.advance(10);
      expect([job.status, job.progress.current]).toEqual(["running", offset]);
      if (end === "cancel") await verbs.cancel(job, true);
      else job.setSpeed(0);
      await t.clock.runUntil(job.finished);
      expect(t.clock.now() - now).toBeLessThan(50);
      expect(job.error?.errno).toBe(end === "cancel" ? "ECANCELED" : undefined);
    }
  });

  it("#51b refuses a negative speed, and any speed when it is pending", async () => {
    const t = await chain(["base", "top"], MiB);
    const job = await startStream(t.services, { device: "vda", jobId: "s0", autoFinalize: false });
    expect(() => job.setSpeed(-1)).toThrow("expects 0 or more");
    await t.clock.advance(1000);
    expect(job.status).toBe("pending");
    expect(() => job.setSpeed(1)).toThrow(/set-speed/);
    await verbs.finalize(job);
  });
});
