/** Mirrors and the nodes around them: backing files, filters, what is replaced, what is copied. */

import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { verbs } from "../../src/job/verbs.ts";
import { type MirrorRig, type MirrorRigOptions, mirrorRig, pattern } from "./mirror-rig.ts";

const SIZE = 2 * MiB;
const tiny = { driver: "tiny", size: SIZE, "cluster-size": 64 * KiB };
const memory = { driver: "memory", size: 0 };

/** base ◀ top, both with data. */
async function overlay(more: Omit<MirrorRigOptions, "size" | "source"> = {}): Promise<MirrorRig> {
  const t = await mirrorRig({
    size: SIZE,
    source: [
      { ...tiny, file: memory },
      { ...tiny, file: memory, backing: "n0" },
    ],
    ...more,
  });
  await t.fill(t.disk, 300 * KiB, 100_000, 3);
  const base = t.open("n0", "filler");
  await t.fill(base, 0, MiB, 2);
  await t.graph.closeBackend(base);
  return t;
}

async function finish(t: MirrorRig, job: Awaited<ReturnType<MirrorRig["start"]>>): Promise<void> {
  await t.ready(job);
  await verbs.complete(job);
  await t.end(job);
  expect(job.error).toBe(null);
  expect(t.bugs).toEqual([]);
}

describe("#85 the backing file after the pivot", () => {
  it("#85 blockdev-mirror leaves the target the one it has", async () => {
    for (const sync of ["full", "top", "none"] as const) {
      for (const backing of [null, "n0"]) {
        const t = await overlay({ target: { ...tiny, file: memory } });
        await t.graph.remove("target");
        await t.graph.add({
          ...tiny,
          "node-name": "target",
          file: memory,
          ...(backing && { backing }),
        });
        const before = await t.content();
        const job = await t.start({ sync });
        await finish(t, job);
        expect(t.layers(), sync).toEqual(backing ? ["target", "n0"] : ["target"]);
        const isWhole = sync === "full" || (sync === "top" && backing !== null);
        expect(Buffer.compare(await t.content(), before) === 0, `${sync} ${backing}`).toBe(isWhole);
      }
    }
  });

  it.each([
    ["full", ["target"]],
    ["top", ["target", "n0"]],
    ["none", ["target", "top", "n0"]],
  ] as const)("#85 a target made for it gets: sync %s, %j", async (sync, layers) => {
    const t = await overlay({ target: { ...tiny, file: memory } });
    const job = await t.start({ sync, backingMode: "source" });
    await t.ready(job);
    await t.fill(t.disk, 0, 70_000, 4);
    const before = await t.content();
    await finish(t, job);
    expect(t.layers()).toEqual(layers);
    expect(Buffer.compare(await t.content(), before)).toBe(0);
    await t.fill(t.disk, 400_000, 70_000, 5);
  });
});

it("sync top copies what the top layer holds, also where it holds zeroes, and nothing else", async () => {
  const t = await overlay({ target: { driver: "target-store", size: SIZE } });
  const target = t.open("target", "filler");
  await t.fill(target, 0, SIZE, 9);
  await t.graph.closeBackend(target);
  t.targetStore.log.length = 0;
  await t.clock.runUntil(t.disk.writeZeroes(640 * KiB, 64 * KiB));
  const job = await t.start({ sync: "top" });
  await t.ready(job);
  // Clusters 4, 5 and 6 of the write, 10 of the zeroes.
  expect(job.progress.total).toBe(4 * 64 * KiB);
  const copy = await t.contentOfRaw("target");
  expect(Buffer.compare(copy.subarray(0, 256 * KiB), pattern(0, 256 * KiB, 9))).toBe(0);
  expect(copy.subarray(640 * KiB, 704 * KiB).every((byte) => byte === 0)).toBe(true);
  await verbs.cancel(job, true);
  await t.end(job);
});

it("sync full into an empty target passes over what reads as zeroes", async () => {
  const t = await mirrorRig({ size: 8 * MiB });
  await t.fill(t.disk, MiB, 200_000);
  await t.clock.runUntil(t.disk.writeZeroes(3 * MiB, MiB));
  const job = await t.start({ granularity: 4 * KiB });
  await t.ready(job);
  expect(job.progress.total).toBeLessThan(300_000);
  await finish(t, job);
  expect(Buffer.compare(await t.contentOf("top"), await t.content())).toBe(0);
});

describe("#98 room that the target takes", () => {
  const holes = async (more: object, target: object) => {
    const t = await mirrorRig({ size: SIZE, target: { driver: "memory", size: SIZE, ...target } });
    await t.fill(t.disk, 0, 128 * KiB);
    const filler = t.open("target", "filler");
    await t.fill(filler, 0, SIZE, 7); // Every byte of it has room.
    await t.graph.closeBackend(filler);
    const job = await t.start(more);
    await t.ready(job);
    const status = await t.graph.get("target").state.storeStatus!(MiB, MiB);
    await finish(t, job);
    expect(Buffer.compare(await t.contentOf("top"), await t.content())).toBe(0);
    return status.zero;
  };

  it("#98 zeroes free what they cover; not in a target that is said to be zero", async () => {
    expect(await holes({}, {})).toBe(true);
    expect(await holes({}, { "detect-zeroes": "unmap", discard: "unmap" })).toBe(true);
  });

  it("#98 a promise that the target is zero is believed", async () => {
    const t = await mirrorRig({ size: SIZE });
    await t.fill(t.disk, 0, 128 * KiB);
    const filler = t.open("target", "filler");
    await t.fill(filler, MiB, 512, 7);
    await t.graph.closeBackend(filler);
    const job = await t.start({ targetIsZero: true });
    await finish(t, job);
    expect((await t.content())[MiB]).not.toBe(0);
  });
});

describe("#97 replaces", () => {
  const filtered = () =>
    mirrorRig({
      size: SIZE,
      source: [
        { ...tiny, file: memory },
        { driver: "copy-on-read", file: "n0" },
      ],
    });

  it("#97 without it the device's node goes with its filters; with it they stay", async () => {
    for (const replaces of [undefined, "n0"]) {
      const t = await filtered();
      await t.fill(t.disk);
      const before = await t.content();
      const job = await t.start({ replaces });
      await finish(t, job);
      expect(t.disk.node.name).toBe(replaces ? "top" : "target");
      expect(t.layers()).toEqual(["target"]);
      expect(Buffer.compare(await t.content(), before)).toBe(0);
      await t.fill(t.disk, 0, 5000, 2);
      expect(Buffer.compare(await t.contentOf("target"), await t.content())).toBe(0);
    }
  });

  it("#97 the way down from the filter to the data cannot change while the job runs", async () => {
    const t = await filtered();
    const job = await t.start();
    for (const name of ["top", "n0"]) {
      const inserting = t.graph.insertFilter({ driver: "copy-on-read" }, t.graph.get(name));
      await expect(t.clock.runUntil(inserting)).rejects.toMatchObject({ errno: "EBUSY" });
      expect(() => t.graph.get(name).checkOperation("replace")).toThrow("in use by block job");
    }
    await verbs.cancel(job, true);
    await t.end(job);
  });

  it("#97 if the target has become unfit by the time of the pivot, prepare fails and nothing moves", async () => {
    const t = await mirrorRig({ size: SIZE });
    const job = await t.start({ autoFinalize: false });
    await t.ready(job);
    await verbs.complete(job);
    await t.clock.advance(500);
    // Somebody below all checks.
    await t.graph.get("target").state.truncate!(MiB);
    await t.clock.runUntil(verbs.finalize(job));
    expect(job.error).toMatchObject({ errno: "EPERM" });
    expect(t.story()).toMatch(/PENDING aborting COMPLETED\(.*shorter.*\) concluded null$/);
    expect(t.layers()).toEqual(["top"]);
    expect(t.filters()).toEqual([]);
    await t.fill(t.disk, 0, 512, 2);
  });

  it("a target that somebody reads by then makes prepare fail, too", async () => {
    const t = await mirrorRig({ size: SIZE });
    const job = await t.start({ autoFinalize: false });
    await t.ready(job);
    await verbs.complete(job);
    await t.clock.advance(500);
    const alone = t.graph.openBackend(t.graph.get("target"), {
      name: "",
      description: "somebody",
      permissions: { take: 0, share: 4 | 2 },
    });
    await t.clock.runUntil(verbs.finalize(job));
    expect(job.error).toMatchObject({ errno: "EPERM" });
    expect(t.layers()).toEqual(["top"]);
    expect(t.filters()).toEqual([]);
    await t.graph.closeBackend(alone);
    expect(t.bugs).toEqual([]);
  });
});

it("#99 complete after the source's chain was copied below the target", async () => {
  // template ◀ base ◀ top, each with a quarter of its own; the target stands on a copy of the chain.
  const chain = (backing?: string) => ({ ...tiny, file: memory, ...(backing && { backing }) });
  const t = await mirrorRig({
    size: SIZE,
    source: [chain(), chain("n0"), chain("n1")],
    target: { ...tiny, file: memory },
  });
  await t.graph.remove("target");
  await t.graph.add({ ...chain(), "node-name": "copy0" });
  await t.graph.add({ ...chain("copy0"), "node-name": "copy1" });
  await t.graph.add({ ...chain("copy1"), "node-name": "target" });
  const quarter = SIZE / 4;
  for (const [i, names] of [["n0", "copy0"], ["n1", "copy1"], ["top"]].entries()) {
    for (const name of names) {
      const backend = name === "top" ? t.disk : t.open(name, "filler");
      await t.fill(backend, i * quarter, quarter, i + 1);
      if (name !== "top") await t.graph.closeBackend(backend);
    }
  }
  const job = await t.start({ sync: "top" });
  await t.ready(job);
  await t.fill(t.disk, 3 * quarter, quarter, 4);
  await finish(t, job);
  expect(t.layers()).toEqual(["target", "copy1", "copy0"]);
  const now = await t.content();
  for (let i = 0; i < 4; i++) {
    const region = now.subarray(i * quarter, (i + 1) * quarter);
    expect(Buffer.compare(region, pattern(i * quarter, quarter, i + 1)), `region ${i}`).toBe(0);
  }
});

it("copies whole clusters of a target whose backing file is named but not open", async () => {
  for (const copyMode of ["background", "write-blocking"] as const) {
    const t = await mirrorRig({
      size: SIZE,
      images: [
        [{ driver: "memory", name: "base" }, { size: SIZE }],
        [
          { driver: "memory", name: "src" },
          { size: SIZE, "backing-file": "base", "backing-fmt": "qcow2" },
        ],
        [
          { driver: "memory", name: "dst" },
          { size: SIZE, "backing-file": "base", "backing-fmt": "qcow2", "cluster-size": 256 * KiB },
        ],
      ],
      source: [
        { driver: "qcow2", file: { driver: "memory", name: "base" } },
        { driver: "qcow2", file: { driver: "memory", name: "src" }, backing: "n0" },
      ],
      target: { driver: "qcow2", file: { driver: "memory", name: "dst" }, backing: null },
    });
    const base = t.open("n0", "filler");
    await t.fill(base, 0, SIZE, 2);
    await t.graph.closeBackend(base);
    await t.fill(t.disk, 100_000, 1000, 3);
    const job = await t.start({ sync: "top", copyMode, granularity: 4 * KiB });
    await t.ready(job);
    await t.fill(t.disk, MiB + 100, 1000, 4);
    await t.clock.advance(500);
    await verbs.cancel(job, false);
    await t.end(job);
    expect(job.error).toBe(null);
    // With its backing file back, it is the source.
    await t.graph.remove("target");
    await t.graph.add({
      driver: "qcow2",
      "node-name": "target",
      file: { driver: "memory", name: "dst" },
      backing: "n0",
    });
    expect(Buffer.compare(await t.contentOf("target"), await t.content()), copyMode).toBe(0);
  }
});

it("gives the target the source's right to write, or to read only", async () => {
  const t = await mirrorRig({ size: SIZE });
  await t.fill(t.disk);
  await t.graph.closeBackend(t.disk);
  await t.clock.runUntil(t.graph.reopen(t.graph.get("top"), { readOnly: true }));
  const job = await t.start({ device: "top" });
  await t.ready(job);
  await verbs.complete(job);
  await t.end(job);
  expect(job.error).toBe(null);
  expect(t.graph.get("target").readOnly).toBe(true);
});

it("#83 a filter without a name is no layer of the chain; one with a name can be seen", async () => {
  for (const filterNodeName of [undefined, "flt"]) {
    const t = await mirrorRig({ size: SIZE });
    const job = await t.start({ filterNodeName });
    const [filter] = t.filters();
    expect(filter!.implicit).toBe(filterNodeName === undefined);
    expect(t.layers()).toEqual(["top"]);
    if (filterNodeName) expect(t.graph.find("flt")).toBe(filter);
    await verbs.cancel(job, true);
    await t.end(job);
  }
});
