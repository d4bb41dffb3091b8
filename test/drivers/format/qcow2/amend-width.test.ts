import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../../../src/base/bytes.ts";
import { seededRandom } from "../../../../src/base/random.ts";
import { Graph } from "../../../../src/block/graph.ts";
import type { ImageAmend } from "../../../../src/drivers/format/qcow2/amend.ts";
import { qcow2Driver } from "../../../../src/drivers/format/qcow2/index.ts";
import { crashState } from "../../../crash/states.ts";
import { LogStore, logStoreDriver } from "../log-store.ts";
import {
  chainOptions,
  type Disk,
  firstDifference,
  hasQemu,
  openDisk,
  qemuCheck,
  qemuImg,
  qemuIo,
  qemuRaw,
  readAll,
  testFolder,
  testGraph,
  testWorld,
  writeRaw,
} from "../rig.ts";

const folder = testFolder();
const image = "width.qcow2";
const LEAKS = 3;

const amend = (disk: Disk, options: ImageAmend, signal?: AbortSignal) =>
  disk.node.state.amend!(options, { force: false, ...(signal && { signal }) });
const bytesOf = () => new Uint8Array(readFileSync(join(folder, image)));
const dataOf = () =>
  JSON.parse(qemuImg(folder, "info", "--output=json", "-f", "qcow2", image))["format-specific"]
    .data;

function make(options: string, size = "2M"): void {
  qemuImg(folder, "create", "-q", "-f", "qcow2", "-o", options, image, size);
  // One packed cluster: several would share theirs, and no narrow refcount would hold them.
  const packed = /cluster_size=(\d+k?)/.exec(options)![1];
  const commands = ["write -P 1 0 200k", `write -c -P 2 256k ${packed}`, "write -P 3 1M 300k"];
  qemuIo(folder, image, ...commands);
}

async function open(): Promise<Disk> {
  return openDisk(await testGraph(), chainOptions(folder, [image]));
}

/** On a store that can be told to fail, and whose log makes crashes. */
async function openLogged(store: LogStore): Promise<Disk> {
  const graph = new Graph(await testWorld(), [qcow2Driver(), logStoreDriver(store)] as never);
  return openDisk(graph, { driver: "qcow2", file: { driver: "log-store" }, backing: null });
}

/** Written on by us and by QEMU, it is still clean: what is counted is right. */
async function expectSound(disk: Disk, bits: number): Promise<void> {
  const before = await readAll(disk);
  await disk.backend.write(new Uint8Array(100 * KiB).fill(7), 700 * KiB);
  before.fill(7, 700 * KiB, 800 * KiB);
  await disk.close();
  const check = qemuCheck(folder, image);
  expect(check.status, check.text).toBe(0);
  expect(dataOf()["refcount-bits"]).toBe(bits);
  expect(firstDifference(qemuRaw(folder, image), before)).toBe(-1);
  qemuIo(folder, image, "write -P 9 1900k 60k");
  expect(qemuCheck(folder, image).status).toBe(0);
}

describe.skipIf(!hasQemu)("the width of refcounts", () => {
  it.each([512, 65536])("goes from any to any with clusters of %i", async (cluster) => {
    make(`cluster_size=${cluster}`);
    for (const bits of [64, 1, 32, 2, 8, 4, 16]) {
      const disk = await open();
      await amend(disk, { "refcount-bits": bits });
      await expectSound(disk, bits);
    }
  });

  it("is as QEMU has it: it changes ours, and we change its", async () => {
    make("cluster_size=4k,refcount_bits=8");
    let disk = await open();
    await amend(disk, { "refcount-bits": 64 });
    await expectSound(disk, 64);
    qemuImg(folder, "amend", "-f", "qcow2", "-o", "refcount_bits=32", image);
    disk = await open();
    await amend(disk, { "refcount-bits": 16 });
    await expectSound(disk, 16);
  });

  it("is refused where a refcount does not fit, and then nothing has changed", async () => {
    make("cluster_size=4k");
    for (const name of ["a", "b", "c"]) qemuImg(folder, "snapshot", "-c", name, image);
    const before = bytesOf();
    const disk = await open();
    for (const bits of [1, 2]) {
      await expect(amend(disk, { "refcount-bits": bits })).rejects.toMatchObject({
        errno: "EINVAL",
        message: expect.stringMatching(/has 4/),
      });
    }
    for (const bits of [0, 3, 128, -1, 1.5]) {
      await expect(amend(disk, { "refcount-bits": bits })).rejects.toThrow(/power of two/);
    }
    await amend(disk, { "refcount-bits": 16 });
    expect(firstDifference(bytesOf(), before)).toBe(-1);
    await amend(disk, { "refcount-bits": 4 });
    await expectSound(disk, 4);
    for (const name of ["a", "b", "c"]) qemuImg(folder, "snapshot", "-d", name, image);
    expect(qemuCheck(folder, image).status).toBe(0);
  });

  it("changes on the way up to version 3, and on the way down to version 2", async () => {
    make("compat=v2,cluster_size=4k");
    let disk = await open();
    await expect(amend(disk, { "refcount-bits": 8 })).rejects.toThrow(/needs version 'v3'/);
    await amend(disk, { version: "v3", "refcount-bits": 8 });
    await expectSound(disk, 8);
    disk = await open();
    await expect(amend(disk, { version: "v2" })).rejects.toThrow(/refcounts of 8 bits/);
    await amend(disk, { version: "v2", "refcount-bits": 16 });
    await expectSound(disk, 16);
    expect(dataOf().compat).toBe("0.10");
  });

  it("is the old or the new one after a power cut at any moment", async () => {
    const seed = 21;
    const random = seededRandom(seed);
    for (const [cluster, from, to] of [
      [512, 16, 64],
      [4096, 64, 2],
    ] as const) {
      make(`cluster_size=${cluster},refcount_bits=${from}`);
      const start = bytesOf();
      const wanted = qemuRaw(folder, image);
      const store = new LogStore(start);
      const disk = await openLogged(store);
      const first = store.log.length;
      await amend(disk, { "refcount-bits": to });
      const last = store.log.length;
      await disk.close();
      const seen = new Set<number>();
      for (let i = 0; i < 20; i++) {
        const end = i < 5 ? last - i : first + random.below(last - first + 1);
        writeRaw(folder, image, crashState(start, store.log, end, random));
        const check = qemuCheck(folder, image);
        expect([0, LEAKS], `seed ${seed}: ${check.text}`).toContain(check.status);
        expect(firstDifference(qemuRaw(folder, image), wanted), `seed ${seed}`).toBe(-1);
        seen.add(dataOf()["refcount-bits"]);
      }
      expect([...seen].sort((a, b) => a - b)).toEqual([from, to].sort((a, b) => a - b));
    }
  });

  it("stays as it is when a write fails, and the image goes on to work", async () => {
    make("cluster_size=4k");
    const start = bytesOf();
    const whole = new LogStore(start);
    const trial = await openLogged(whole);
    const before = whole.changes;
    await amend(trial, { "refcount-bits": 32 });
    const steps = whole.changes - before;
    await trial.close();
    for (let step = 1; step <= steps; step++) {
      const store = new LogStore(start);
      const disk = await openLogged(store);
      store.failAt = store.changes + step;
      await expect(amend(disk, { "refcount-bits": 32 })).rejects.toMatchObject({ errno: "ENOSPC" });
      await disk.backend.write(new Uint8Array(100 * KiB).fill(7), 1500 * KiB);
      await amend(disk, { "refcount-bits": 64 });
      await disk.close();
      writeRaw(folder, image, store.bytes);
      const check = qemuCheck(folder, image);
      expect(check.status, `step ${step}: ${check.text}`).toBe(0);
    }
  });

  it("stays as it is when the change is canceled", async () => {
    make("cluster_size=4k");
    const disk = await open();
    const stop = new AbortController();
    const change = amend(disk, { "refcount-bits": 32 }, stop.signal);
    stop.abort();
    await expect(change).rejects.toMatchObject({ errno: "ECANCELED" });
    await expectSound(disk, 16);
  });
});

describe.skipIf(!hasQemu)("what else qemu-img amends", () => {
  it("the disk's size", async () => {
    make("cluster_size=4k");
    const disk = await open();
    await amend(disk, { size: 5 * MiB, "refcount-bits": 8 });
    expect(disk.backend.length).toBe(5 * MiB);
    await disk.close();
    expect(qemuCheck(folder, image).status).toBe(0);
    expect(qemuRaw(folder, image).length).toBe(5 * MiB);
  });

  it("the name of a data file, and that it need not stay a raw image", async () => {
    const data = { driver: "file", filename: join(folder, "data.raw") };
    const options = "data_file=data.raw,data_file_raw=on,cluster_size=4k";
    qemuImg(folder, "create", "-q", "-f", "qcow2", "-o", options, image, "1M");
    let disk = await openDisk(await testGraph(), {
      ...chainOptions(folder, [image]),
      "data-file": data,
    });
    await amend(disk, { "data-file-raw": true });
    expect(dataOf()).toMatchObject({ "data-file": "data.raw", "data-file-raw": true });
    await amend(disk, { "data-file": "./data.raw", "data-file-raw": false });
    expect(dataOf()).toMatchObject({ "data-file": "./data.raw", "data-file-raw": false });
    await expect(amend(disk, { "data-file-raw": true })).rejects.toMatchObject({ errno: "EINVAL" });
    await disk.close();
    expect(qemuCheck(folder, image).status).toBe(0);
    make("cluster_size=4k");
    disk = await open();
    await expect(amend(disk, { "data-file": "x" })).rejects.toMatchObject({ errno: "EINVAL" });
    await disk.close();
  });

  it("never the backing file", async () => {
    make("cluster_size=4k");
    const disk = await open();
    await expect(amend(disk, { "backing-file": "x" })).rejects.toThrow(/rebase/);
    await expect(amend(disk, { "backing-fmt": "raw" })).rejects.toThrow(/rebase/);
    await amend(disk, { "backing-file": "" });
    await disk.close();
  });
});
