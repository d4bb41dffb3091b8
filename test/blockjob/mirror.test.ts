/** blockdev-mirror, seen from outside: two disks and a list of verbs in, events and bytes out. */

import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import type { MirrorOptions } from "../../src/blockjob/mirror.ts";
import { verbs } from "../../src/job/verbs.ts";
import { mirrorRig, pattern } from "./mirror-rig.ts";

const SIZE = 2 * MiB + 12345;

describe("mirror", () => {
  it("copies a disk, becomes ready, and puts the target in its place", async () => {
    const t = await mirrorRig({ size: SIZE });
    await t.fill(t.disk);
    const before = await t.content();
    const job = await t.start();
    await t.ready(job);
    expect(job.info()).toMatchObject({ ready: true, len: SIZE, offset: SIZE });
    await verbs.complete(job);
    await t.end(job);
    expect(t.bugs).toEqual([]);
    expect(t.story()).toBe("created running ready READY waiting pending COMPLETED concluded null");
    expect(t.layers()).toEqual(["target"]);
    expect(t.filters()).toEqual([]);
    expect(Buffer.compare(await t.content(), before)).toBe(0);
    await t.fill(t.disk, 1000, 5000, 9);
    expect(Buffer.compare(await t.contentOf("target"), await t.content())).toBe(0);
    expect(Buffer.compare(await t.contentOf("top"), before)).toBe(0);
    expect(t.graph.get("top").bitmaps.all()).toEqual([]);
    await t.graph.remove("top");
  });

  it("#28 cancelled when ready: softly it completes without a pivot, by force it is cancelled", async () => {
    for (const force of [false, true]) {
      const t = await mirrorRig({ size: SIZE });
      await t.fill(t.disk);
      const job = await t.start();
      await t.ready(job);
      await t.clock.runUntil(t.disk.write(pattern(0, 70_000, 3), 4096));
      await t.clock.runUntil(verbs.cancel(job, force));
      await t.end(job);
      const end = force ? "aborting CANCELLED" : "waiting pending COMPLETED";
      expect(t.story()).toBe(`created running ready READY ${end} concluded null`);
      expect(t.layers()).toEqual(["top"]);
      expect(t.filters()).toEqual([]);
      expect(t.bugs).toEqual([]);
      if (!force) {
        expect(Buffer.compare(await t.contentOf("target"), await t.content())).toBe(0);
      }
      await t.fill(t.disk, 0, 4096, 4);
    }
  });

  it("cancelled before it is ready, even softly, it is cancelled", async () => {
    const t = await mirrorRig({ size: SIZE });
    await t.fill(t.disk);
    const job = await t.start({ speed: 64 * KiB });
    await t.clock.advance(10);
    await verbs.cancel(job, false);
    await t.end(job);
    expect(t.story()).toBe("created running aborting CANCELLED concluded null");
    expect(t.layers()).toEqual(["top"]);
  });

  it("#29 soft cancel with manual finalize is pending, and then completed", async () => {
    const t = await mirrorRig({ size: SIZE });
    await t.fill(t.disk);
    const job = await t.start({ autoFinalize: false });
    await t.ready(job);
    await verbs.cancel(job, false);
    await t.clock.advance(500);
    expect(job.status).toBe("pending");
    expect(job.info().paused).toBe(true);
    // The source stays as it is until then.
    const write = t.disk.write(new Uint8Array(512).fill(7), 0);
    let isWritten = false;
    void write.then(() => {
      isWritten = true;
    });
    await t.clock.advance(1000);
    expect(isWritten).toBe(false);
    await t.clock.runUntil(verbs.finalize(job));
    await t.clock.runUntil(write);
    expect(t.story()).toBe(
      "created running ready READY waiting pending PENDING COMPLETED concluded null",
    );
    expect(t.layers()).toEqual(["top"]);
    const [copy, now] = [await t.contentOf("target"), await t.content()];
    expect(Buffer.compare(copy.subarray(512), now.subarray(512))).toBe(0);
    expect([copy[0], now[0]]).toEqual([pattern(0, 1, 1)[0], 7]);
  });

  it("a soft cancel of a pending job takes its pivot away", async () => {
    const t = await mirrorRig({ size: SIZE });
    const job = await t.start({ autoFinalize: false });
    await t.ready(job);
    await verbs.complete(job);
    await t.clock.advance(500);
    expect(job.status).toBe("pending");
    await t.clock.runUntil(verbs.cancel(job, false));
    await t.end(job);
    expect(t.story()).toMatch(/pending PENDING aborting CANCELLED concluded null$/);
    expect(t.layers()).toEqual(["top"]);
    await t.fill(t.disk, 0, 512, 2);
  });

  describe("#26 verbs on a ready job that has a slow target and 1 MiB to go", () => {
    async function slow() {
      const t = await mirrorRig({ size: 4 * MiB });
      await t.fill(t.disk);
      const job = await t.start();
      await t.ready(job);
      t.story();
      t.targetStore.delayMs = () => 400;
      await t.fill(t.disk, 512 * KiB, MiB, 5);
      return { t, job };
    }

    it("#26 (a) soft, then complete is refused; pause and resume work; no pivot", async () => {
      const { t, job } = await slow();
      await verbs.cancel(job, false);
      await expect(verbs.complete(job)).rejects.toMatchObject({ errno: "EPERM" });
      await t.clock.advance(150);
      await verbs.pause(job);
      await t.clock.advance(1000);
      expect(job.status).toBe("standby");
      await verbs.resume(job);
      await t.end(job);
      expect(t.story()).toMatch(/^standby ready.* waiting pending COMPLETED concluded null$/);
      expect(t.layers()).toEqual(["top"]);
      expect(Buffer.compare(await t.contentOf("target"), await t.content())).toBe(0);
    });

    it("#26 (b) complete, then soft still pivots; one more complete is refused", async () => {
      const { t, job } = await slow();
      await verbs.complete(job);
      await verbs.cancel(job, false);
      await expect(verbs.complete(job)).rejects.toMatchObject({ errno: "EPERM" });
      await t.end(job);
      expect(t.story()).toMatch(/waiting pending COMPLETED concluded null$/);
      expect(t.layers()).toEqual(["target"]);
      expect(Buffer.compare(await t.contentOf("top"), await t.content())).toBe(0);
    });

    it("#26 (c) soft, then force is cancelled", async () => {
      const { t, job } = await slow();
      await verbs.cancel(job, false);
      await t.clock.advance(150);
      await verbs.cancel(job, true);
      await t.end(job);
      expect(t.story()).toMatch(/aborting CANCELLED concluded null$/);
      expect(t.layers()).toEqual(["top"]);
    });
  });

  it("#51 keeps to its speed in any second, before ready and after", async () => {
    const speed = 256 * KiB;
    const t = await mirrorRig({ size: 4 * MiB });
    await t.fill(t.disk);
    const job = await t.start({ speed, granularity: 64 * KiB });
    await t.ready(job);
    expect(t.clock.now()).toBeGreaterThan(8000);
    await t.fill(t.disk, MiB, 2 * MiB, 6);
    await t.clock.advance(200);
    await verbs.complete(job);
    await t.end(job);
    expect(Buffer.compare(await t.contentOf("top"), await t.content())).toBe(0);
    const writes = t.targetStore.log.filter(({ op }) => op === "write");
    expect(writes.reduce((sum, { bytes }) => sum + bytes, 0)).toBeGreaterThanOrEqual(6 * MiB);
    expect(Math.max(...writes.map(({ bytes }) => bytes))).toBeLessThanOrEqual(MiB);
    for (const { atMs } of writes) {
      const inWindow = writes.filter((other) => other.atMs >= atMs && other.atMs < atMs + 1000);
      const bytes = inWindow.reduce((sum, other) => sum + other.bytes, 0);
      expect(bytes, `from ${atMs} ms on`).toBeLessThanOrEqual(speed + MiB);
    }
  });

  it("#54 a disk of no bytes is ready at once, with nothing to do", async () => {
    const t = await mirrorRig({ size: 0 });
    const job = await t.start();
    await t.ready(job);
    expect(job.info()).toMatchObject({ len: 0, offset: 0, ready: true });
    await verbs.complete(job);
    await t.end(job);
    expect(t.layers()).toEqual(["target"]);
  });

  it("#55 what is written after ready grows both numbers, and they are equal again", async () => {
    for (const copyMode of ["background", "write-blocking"] as const) {
      const t = await mirrorRig({ size: 4 * MiB });
      await t.fill(t.disk);
      const job = await t.start({ copyMode });
      await t.ready(job);
      expect(job.info()).toMatchObject({ len: 4 * MiB, offset: 4 * MiB });
      await t.clock.runUntil(t.disk.write(pattern(0, MiB, 2), 128 * KiB));
      await t.clock.advance(500);
      expect(job.info(), copyMode).toMatchObject({ len: 5 * MiB, offset: 5 * MiB, ready: true });
      await verbs.cancel(job, true);
      await t.end(job);
    }
  });

  it("#86 copies with small buffers and any granularity", async () => {
    for (const more of [
      { bufSize: 4 * KiB },
      { bufSize: 64 * KiB, granularity: 64 * KiB },
      { granularity: 8 * KiB },
      { granularity: 512, bufSize: 512 },
      { granularity: 64 * MiB },
      { bufSize: 64 * MiB },
    ]) {
      const t = await mirrorRig({
        size: 3 * MiB + 777,
      });
      await t.fill(t.disk);
      const job = await t.start(more);
      await t.ready(job);
      await t.fill(t.disk, 1000, 100_000, 2);
      await verbs.complete(job);
      await t.end(job);
      expect(job.error, JSON.stringify(more)).toBe(null);
      expect(Buffer.compare(await t.contentOf("top"), await t.content())).toBe(0);
    }
  });

  it("#88 disks of different sizes: the command works, the job fails", async () => {
    for (const size of [SIZE - 512, SIZE + 512]) {
      const t = await mirrorRig({ size: SIZE, target: { driver: "target-store", size } });
      const job = await t.start();
      await t.end(job);
      expect(job.error).toMatchObject({ errno: "EINVAL" });
      expect(t.story()).toMatch(/^created running aborting COMPLETED\(.*different sizes.*\) concl/);
      expect(t.layers()).toEqual(["top"]);
      expect(t.filters()).toEqual([]);
    }
  });

  it("#89 neither disk can be resized while the job is pending", async () => {
    const t = await mirrorRig({ size: SIZE });
    const job = await t.start({ autoFinalize: false });
    await t.ready(job);
    await verbs.complete(job);
    await t.clock.advance(500);
    expect(job.status).toBe("pending");
    for (const name of ["top", "target"]) {
      expect(() => t.graph.get(name).checkOperation("resize")).toThrow("in use by block job");
      expect(() =>
        t.graph.openBackend(t.graph.get(name), {
          name: "",
          description: "resizer",
          permissions: { take: 8, share: 15 },
        }),
      ).toThrow("resize");
    }
    await t.clock.runUntil(verbs.finalize(job));
    t.graph.get("top").checkOperation("resize");
    t.graph.get("target").checkOperation("resize");
  });

  it("#100 refuses what does not fit, and leaves no job, filter or bitmap behind", async () => {
    const t = await mirrorRig({
      size: MiB,
      source: [
        {
          driver: "tiny",
          size: MiB,
          "cluster-size": 64 * KiB,
          file: { driver: "memory", size: 0 },
        },
        {
          driver: "tiny",
          size: MiB,
          "cluster-size": 64 * KiB,
          file: { driver: "memory", size: 0 },
          backing: "n0",
        },
      ],
    });
    await t.graph.add({ driver: "memory", "node-name": "small", size: 512 });
    await t.graph.add({ driver: "memory", "node-name": "ro", size: MiB, "read-only": true });
    const wrong: [Partial<MirrorOptions>, string][] = [
      [{ granularity: 100 }, "power of two"],
      [{ granularity: 256 }, "power of two"],
      [{ granularity: 3000 }, "power of two"],
      [{ granularity: 128 * MiB }, "power of two"],
      [{ bufSize: -1 }, "buf-size"],
      [{ target: "top" }, "into itself"],
      [{ target: "n0" }, "backing file of node 'top'"],
      [{ target: "nope" }, "Cannot find node"],
      [{ device: "nope" }, "Cannot find device or node"],
      [{ device: "n0" }, "needs a root"],
      [{ replaces: "nope" }, "Cannot find node"],
      [{ replaces: "small" }, "512 bytes"],
      [{ replaces: "target" }, "might see another disk"],
      [{ target: "ro" }, "read-only"],
      [{ speed: -1 }, "expects 0 or more"],
      [{ jobId: "0id" }, "Invalid job ID"],
      [{ filterNodeName: "top" }, "There is a node 'top' already"],
    ];
    for (const [options, text] of wrong) {
      await expect(t.start(options), JSON.stringify(options)).rejects.toThrow(text);
      expect(t.jobs.query()).toEqual([]);
      expect(t.filters()).toEqual([]);
      expect(t.graph.get("top").bitmaps.all()).toEqual([]);
      for (const node of t.graph.nodes) expect(node.blockers.size, node.name).toBe(0);
    }
    await t.clock.runUntil(t.disk.write(new Uint8Array(512), 0));
  });

  it("keeps other jobs and users away from both disks", async () => {
    const t = await mirrorRig({ size: SIZE });
    const job = await t.start({ speed: 64 * KiB });
    for (const [device, text] of [
      ["vda", "in use by block job"],
      ["top", "needs a root"],
    ]) {
      await expect(t.start({ jobId: "m1", device: device! })).rejects.toThrow(text);
    }
    for (const name of ["top", "target"]) {
      await expect(t.graph.remove(name)).rejects.toThrow("in use by block job: mirror");
    }
    expect(() => t.open("target", "reader")).toThrow("Permission conflict");
    await verbs.cancel(job, true);
    await t.end(job);
    await t.graph.remove("target");
  });
});
