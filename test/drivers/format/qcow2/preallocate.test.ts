import { statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../../../src/base/bytes.ts";
import type { Preallocation } from "../../../../src/block/driver.ts";
import { qcow2Driver } from "../../../../src/drivers/format/qcow2/index.ts";
import { fileDriver } from "../../../../src/drivers/protocol/file.ts";
import {
  chainOptions,
  createImage,
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
const MODES: Preallocation[] = ["off", "metadata", "falloc", "full"];

/** MiB that the file takes up, holes left out: whether data has its room, tables are less. */
function takenUp(name: string): number {
  return Math.floor((statSync(join(folder, name)).blocks * 512) / MiB);
}

function lengthOf(name: string): number {
  return statSync(join(folder, name)).size;
}

interface Entry {
  start: number;
  length: number;
  present: boolean;
  zero: boolean;
  data: boolean;
}

/**
 * qemu-img map, without offsets: tables may lie elsewhere. Whether data is zero is asked of the file
 * system, and qemu-img writes a first block into each data file that it makes.
 */
function mapOf(name: string): Entry[] {
  const list: Entry[] = JSON.parse(qemuImg(folder, "map", "--output=json", name));
  return list.map((entry) => ({
    start: entry.start,
    length: entry.length,
    present: entry.present,
    zero: entry.data || entry.zero,
    data: entry.data,
  }));
}

function expectClean(name: string): void {
  const { status, text } = qemuCheck(folder, name);
  expect(status, text).toBe(0);
}

function expectAlike(ours: string, theirs: string): void {
  expectClean(ours);
  expect(mapOf(ours)).toEqual(mapOf(theirs));
  expect(takenUp(ours)).toBe(takenUp(theirs));
}

describe.skipIf(!hasQemu)("preallocation of a new image is QEMU's", () => {
  it.each(MODES.flatMap((mode) => [false, true].map((extended) => [mode, extended] as const)))(
    "%s, extended L2 entries: %s",
    async (mode, extended) => {
      const options = `preallocation=${mode},extended_l2=${extended ? "on" : "off"}`;
      qemuImg(folder, "create", "-q", "-f", "qcow2", "-o", options, "theirs.qcow2", "4M");
      await createImage(folder, "ours.qcow2", {
        size: 4 * MiB,
        preallocation: mode,
        "extended-l2": extended,
      });
      expectAlike("ours.qcow2", "theirs.qcow2");
      expect(lengthOf("ours.qcow2")).toBe(lengthOf("theirs.qcow2"));
    },
  );

  it("with a backing file it needs extended L2 entries, and lets the backing file show", async () => {
    writeRaw(folder, "b.raw", new Uint8Array(2 * MiB).fill(6));
    const plain = { size: 2 * MiB, preallocation: "metadata", "backing-file": "b.raw" } as const;
    await expect(createImage(folder, "no.qcow2", plain)).rejects.toMatchObject({ errno: "EINVAL" });
    await createImage(folder, "yes.qcow2", {
      ...plain,
      "backing-fmt": "raw",
      "extended-l2": true,
    });
    expectClean("yes.qcow2");
    expect(qemuRaw(folder, "yes.qcow2").every((byte) => byte === 6)).toBe(true);
    const disk = await openDisk(await testGraph(), chainOptions(folder, ["yes.qcow2", "b.raw"]));
    await disk.backend.write(new Uint8Array(512).fill(7), 100 * KiB);
    const seen = await readAll(disk);
    await disk.close();
    expect([seen[100 * KiB - 1], seen[100 * KiB], seen[100 * KiB + 512]]).toEqual([6, 7, 6]);
    expect(firstDifference(qemuRaw(folder, "yes.qcow2"), seen)).toBe(-1);
    expectClean("yes.qcow2");
  });

  it.each(MODES.flatMap((mode) => [false, true].map((raw) => [mode, raw] as const)))(
    "%s, with a data file, raw: %s",
    async (mode, raw) => {
      const names = (name: string) =>
        `data_file=${name}.data,data_file_raw=${raw ? "on" : "off"},preallocation=${mode}`;
      qemuImg(folder, "create", "-q", "-f", "qcow2", "-o", names("t"), "t.qcow2", "2M");
      await createWithData("o", mode, raw);
      expectAlike("o.qcow2", "t.qcow2");
      expect(lengthOf("o.data")).toBe(lengthOf("t.data"));
      expect(takenUp("o.data")).toBe(takenUp("t.data"));
    },
  );
});

async function createWithData(name: string, preallocation: Preallocation, raw: boolean) {
  const graph = await testGraph();
  const [filename, data] = [join(folder, `${name}.qcow2`), join(folder, `${name}.data`)];
  for (const path of [filename, data]) {
    await fileDriver().create!({ world: graph.world, options: { filename: path, size: 0 } });
  }
  const file = await openDisk(graph, { driver: "file", filename });
  const dataFile = await openDisk(await testGraph(), { driver: "file", filename: data });
  await qcow2Driver().create!({
    world: await testWorld(),
    file: file.backend.edge,
    dataFile: dataFile.backend.edge,
    options: {
      size: 2 * MiB,
      preallocation,
      "data-file": `${name}.data`,
      "data-file-raw": raw,
    },
  });
  await file.close();
  await dataFile.close();
}

describe.skipIf(!hasQemu)("preallocation of a disk that grows is QEMU's", () => {
  it.each(MODES)("%s", async (mode) => {
    for (const name of ["theirs.qcow2", "ours.qcow2"]) {
      qemuImg(folder, "create", "-q", "-f", "qcow2", name, "1M");
      qemuIo(folder, name, "write -P 3 0 64k");
    }
    qemuImg(folder, "resize", "-q", `--preallocation=${mode}`, "theirs.qcow2", "4M");
    const disk = await openDisk(await testGraph(), chainOptions(folder, ["ours.qcow2"]));
    await disk.backend.truncate(4 * MiB, { preallocation: mode });
    await disk.close();
    expectAlike("ours.qcow2", "theirs.qcow2");
  });

  it.each(MODES)("%s, over a longer backing file, which does not show", async (mode) => {
    writeRaw(folder, "long.raw", new Uint8Array(4 * MiB).fill(9));
    for (const name of ["theirs.qcow2", "ours.qcow2"]) {
      const backing = ["-b", "long.raw", "-F", "raw"];
      qemuImg(folder, "create", "-q", "-f", "qcow2", ...backing, name, "1M");
    }
    qemuImg(folder, "resize", "-q", `--preallocation=${mode}`, "theirs.qcow2", "3M");
    const disk = await openDisk(
      await testGraph(),
      chainOptions(folder, ["ours.qcow2", "long.raw"]),
    );
    await disk.backend.truncate(3 * MiB, { preallocation: mode });
    const seen = await readAll(disk);
    await disk.close();
    expect(seen.subarray(MiB).every((byte) => byte === 0)).toBe(true);
    expectAlike("ours.qcow2", "theirs.qcow2");
    expect(firstDifference(qemuRaw(folder, "ours.qcow2"), seen)).toBe(-1);
  });

  it.each(["metadata", "full"] as const)(
    "%s shows nothing of what lay in clusters that were freed before",
    async (mode) => {
      qemuImg(folder, "create", "-q", "-f", "qcow2", "stale.qcow2", "1M");
      qemuIo(folder, "stale.qcow2", "write -P 8 0 1M");
      const disk = await openDisk(await testGraph(), chainOptions(folder, ["stale.qcow2"]));
      await disk.backend.discard(0, 512 * KiB);
      await disk.backend.flush();
      await disk.backend.truncate(4 * MiB, { preallocation: mode });
      const seen = await readAll(disk);
      await disk.close();
      expect(seen.subarray(MiB).every((byte) => byte === 0)).toBe(true);
      expectClean("stale.qcow2");
    },
  );

  it("a raw disk takes its room too, and has no metadata", async () => {
    writeRaw(folder, "r.raw", new Uint8Array(MiB));
    const disk = await openDisk(await testGraph(), chainOptions(folder, ["r.raw"]));
    const grow = (preallocation: Preallocation) =>
      disk.backend.truncate(3 * MiB, { preallocation });
    await expect(grow("metadata")).rejects.toMatchObject({ errno: "ENOTSUP" });
    expect(disk.backend.length).toBe(MiB);
    await grow("full");
    await expect(disk.backend.truncate(MiB, { preallocation: "full" })).rejects.toMatchObject({
      errno: "EINVAL",
    });
    await disk.close();
    expect(lengthOf("r.raw")).toBe(3 * MiB);
    expect(takenUp("r.raw")).toBe(3);
  });
});
