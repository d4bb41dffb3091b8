import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { MiB } from "../../../../src/base/bytes.ts";
import { seededRandom } from "../../../../src/base/random.ts";
import {
  chainOptions,
  type Disk,
  firstDifference,
  hasQemu,
  mixedData,
  openDisk,
  qemuImg,
  qemuIo,
  qemuRaw,
  readAll,
  testFolder,
  testGraph,
  writeRaw,
} from "../rig.ts";

const folder = testFolder();

/** Reads the chain with our engine, whole and in random pieces, and compares with QEMU's reading. */
async function expectSameAsQemu(files: string[], seed = 1): Promise<void> {
  const oracle = qemuRaw(folder, files[0]!);
  const disk = await openDisk(await testGraph(), chainOptions(folder, files, true));
  expect(disk.backend.length).toBe(oracle.length);
  expect(firstDifference(await readAll(disk), oracle)).toBe(-1);
  await expectSamePieces(disk, oracle, seed);
  await disk.close();
}

async function expectSamePieces(disk: Disk, oracle: Uint8Array, seed: number): Promise<void> {
  const random = seededRandom(seed);
  for (let i = 0; i < 50; i++) {
    const offset = random.below(oracle.length);
    const bytes = Math.min(1 + random.below(200_000), oracle.length - offset);
    const buf = new Uint8Array(bytes);
    await disk.backend.read(buf, offset);
    const wanted = oracle.subarray(offset, offset + bytes);
    expect(firstDifference(buf, wanted), `seed ${seed}, ${bytes} at ${offset}`).toBe(-1);
  }
}

describe.skipIf(!hasQemu)("qcow2 images made by qemu-img read as QEMU reads them", () => {
  const data = mixedData(seededRandom(7), 3 * MiB + 5 * 512);
  writeRaw(folder, "source.raw", data);

  const matrix: [string, string, string[]][] = [
    ["512 B clusters", "cluster_size=512", []],
    ["4 KiB clusters", "cluster_size=4k", []],
    ["64 KiB clusters", "", []],
    ["2 MiB clusters", "cluster_size=2M", []],
    ["version 2", "compat=v2", []],
    ["version 2, 512 B clusters", "compat=v2,cluster_size=512", []],
    ["1-bit refcounts", "refcount_bits=1", []],
    ["8-bit refcounts, 1 KiB clusters", "refcount_bits=8,cluster_size=1k", []],
    ["64-bit refcounts", "refcount_bits=64", []],
    ["zlib, 64 KiB clusters", "", ["-c"]],
    ["zlib, 512 B clusters", "cluster_size=512", ["-c"]],
    ["zlib, 2 MiB clusters", "cluster_size=2M", ["-c"]],
    ["zlib, version 2", "compat=v2", ["-c"]],
    ["zstd, 64 KiB clusters", "compression_type=zstd", ["-c"]],
    ["zstd, 4 KiB clusters", "compression_type=zstd,cluster_size=4k", ["-c"]],
    ["zstd, 2 MiB clusters", "compression_type=zstd,cluster_size=2M", ["-c"]],
    ["extended L2 entries, 16 KiB clusters", "extended_l2=on,cluster_size=16k", []],
    ["extended L2 entries, 128 KiB clusters", "extended_l2=on,cluster_size=128k", []],
    ["extended L2 entries, zlib", "extended_l2=on,cluster_size=64k", ["-c"]],
    ["extended L2 entries, zstd", "extended_l2=on,compression_type=zstd", ["-c"]],
    ["preallocated tables", "preallocation=metadata", []],
    ["lazy refcounts", "lazy_refcounts=on", []],
  ];
  it.each(matrix)("%s", async (_name, options, flags) => {
    const more = options ? ["-o", options] : [];
    qemuImg(
      folder,
      "convert",
      ...["-f", "raw", "-O", "qcow2"],
      ...flags,
      ...more,
      "source.raw",
      "a.qcow2",
    );
    await expectSameAsQemu(["a.qcow2"]);
  });

  it.each([
    ["standard entries", "cluster_size=4k"],
    ["extended entries", "extended_l2=on,cluster_size=32k"],
  ])("zero clusters of both kinds, discarded and rewritten: %s", async (_name, options) => {
    qemuImg(folder, "create", "-f", "qcow2", "-o", options, "z.qcow2", "2M");
    qemuIo(
      folder,
      "z.qcow2",
      "write -P 1 0 1M",
      "write -z 64k 64k",
      "write -z -u 256k 64k",
      "discard 512k 64k",
      "write -P 2 70k 3k",
      "write -P 3 1500k 1k",
      "write -z 1800k 64k",
    );
    await expectSameAsQemu(["z.qcow2"]);
  });

  it("a chain of five images of different formats, lengths and cluster sizes", async () => {
    writeRaw(folder, "0.raw", mixedData(seededRandom(8), 2 * MiB + 512));
    const layers: [string, string, string][] = [
      ["1.qcow2", "3M", "cluster_size=512"],
      ["2.qcow2", "1M", "compat=v2"],
      ["3.qcow2", "4M", "extended_l2=on,cluster_size=64k"],
      ["4.qcow2", "3500k", "cluster_size=2M"],
    ];
    let below = "0.raw";
    for (const [i, [name, size, options]] of layers.entries()) {
      const format = below.endsWith("raw") ? "raw" : "qcow2";
      qemuImg(
        folder,
        "create",
        "-q",
        ...["-f", "qcow2", "-b", below, "-F", format],
        "-o",
        options,
        name,
        size,
      );
      qemuIo(
        folder,
        name,
        `write -P ${10 + i} ${300 + i * 100}k 77k`,
        `write -P 9 ${i * 200 + 1}k 512`,
      );
      if (i !== 1) qemuIo(folder, name, `write -z ${600 + i * 50}k 128k`);
      below = name;
    }
    await expectSameAsQemu(["4.qcow2", "3.qcow2", "2.qcow2", "1.qcow2", "0.raw"]);
  });

  it("images with snapshots and bitmaps", async () => {
    qemuImg(folder, "create", "-q", "-f", "qcow2", "s.qcow2", "2M");
    qemuIo(folder, "s.qcow2", "write -P 1 0 1M");
    qemuImg(folder, "snapshot", "-c", "one", "s.qcow2");
    qemuIo(folder, "s.qcow2", "write -P 2 100k 300k");
    qemuImg(folder, "snapshot", "-c", "two", "s.qcow2");
    qemuImg(folder, "bitmap", "--add", "s.qcow2", "b0");
    qemuIo(folder, "s.qcow2", "write -P 3 200k 5k");
    await expectSameAsQemu(["s.qcow2"]);
  });

  it.each(["off", "on"])("an external data file, raw: %s", async (raw) => {
    const options = `data_file=d.raw,data_file_raw=${raw}`;
    qemuImg(folder, "create", "-q", "-f", "qcow2", "-o", options, "e.qcow2", "2M");
    qemuIo(folder, "e.qcow2", "write -P 1 0 100k", "write -P 2 1M 7k", "write -z 32k 64k");
    const oracle = qemuRaw(folder, "e.qcow2");
    const graph = await testGraph();
    const disk = await openDisk(graph, {
      ...chainOptions(folder, ["e.qcow2"], true),
      "data-file": { driver: "file", filename: join(folder, "d.raw") },
    });
    expect(firstDifference(await readAll(disk), oracle)).toBe(-1);
    await disk.close();
  });
});
