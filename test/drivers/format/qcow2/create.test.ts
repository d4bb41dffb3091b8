import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { GiB, MiB } from "../../../../src/base/bytes.ts";
import type { CreateOptions } from "../../../../src/drivers/format/qcow2/create.ts";
import {
  chainOptions,
  createImage,
  hasQemu,
  openDisk,
  qemuCheck,
  qemuImg,
  qemuIo,
  qemuRaw,
  readAll,
  testFolder,
  testGraph,
  writeRaw,
} from "../rig.ts";

const folder = testFolder();
writeRaw(folder, "base.raw", new Uint8Array(3 * MiB).fill(3));

const cases: [string, Partial<CreateOptions>, string, number?][] = [
  ["defaults", {}, ""],
  ["version 2", { version: "v2" }, "compat=v2"],
  ["512 B clusters, 1 GiB", { "cluster-size": 512 }, "cluster_size=512", GiB],
  [
    "1 KiB clusters, 64-bit refcounts",
    { "cluster-size": 1024, "refcount-bits": 64 },
    "cluster_size=1k,refcount_bits=64",
    GiB,
  ],
  [
    "2 MiB clusters, 1-bit refcounts",
    { "cluster-size": 2 * MiB, "refcount-bits": 1 },
    "cluster_size=2M,refcount_bits=1",
    3 * GiB,
  ],
  [
    "extended L2 entries",
    { "extended-l2": true, "cluster-size": 131072 },
    "extended_l2=on,cluster_size=128k",
  ],
  ["zstd", { "compression-type": "zstd" }, "compression_type=zstd"],
  ["lazy refcounts", { "lazy-refcounts": true }, "lazy_refcounts=on"],
  [
    "a backing file",
    { "backing-file": "base.raw", "backing-fmt": "raw" },
    "backing_file=base.raw,backing_fmt=raw",
  ],
  [
    "a backing file, 512 B clusters",
    { "backing-file": "base.raw", "backing-fmt": "raw", "cluster-size": 512 },
    "backing_file=base.raw,backing_fmt=raw,cluster_size=512",
  ],
  ["a data file", { "data-file": "d.raw" }, "data_file=d.raw"],
  [
    "a raw data file",
    { "data-file": "d.raw", "data-file-raw": true, preallocation: "metadata" },
    "data_file=d.raw,data_file_raw=on",
  ],
  ["preallocated tables", { preallocation: "metadata" }, "preallocation=metadata"],
  [
    "preallocated tables, 512 B clusters",
    { preallocation: "metadata", "cluster-size": 512 },
    "preallocation=metadata,cluster_size=512",
    5 * MiB,
  ],
  [
    "preallocated extended L2 entries",
    { preallocation: "metadata", "extended-l2": true },
    "preallocation=metadata,extended_l2=on",
  ],
  ["512 B clusters, 8 GiB", { "cluster-size": 512 }, "cluster_size=512", 8 * GiB],
  ["8 TiB", {}, "", 8192 * GiB],
  ["no bytes at all", {}, "", 0],
];

describe.skipIf(!hasQemu)("new images", () => {
  it.each(cases)(
    "%s: check is clean, info is that of qemu-img create",
    async (name, options, oracle, size = 300 * MiB) => {
      await createImage(folder, "ours.qcow2", { size, ...options });
      const bits = oracle ? ["-o", oracle] : [];
      qemuImg(folder, "create", "-q", "-f", "qcow2", ...bits, "theirs.qcow2", `${size}`);
      const check = qemuCheck(folder, "ours.qcow2");
      expect(check.status, check.text).toBe(0);
      expect(infoOf("ours.qcow2")).toEqual(infoOf("theirs.qcow2"));
      if (size === 0) return;
      qemuIo(folder, "ours.qcow2", `write -P 1 ${size - 65536} 65536`, "write -P 2 1000 10");
      expect(qemuCheck(folder, "ours.qcow2").status, name).toBe(0);
    },
  );

  it("have, with the default options, the same bytes as those of qemu-img", async () => {
    await createImage(folder, "ours.qcow2", { size: 300 * MiB });
    qemuImg(folder, "create", "-q", "-f", "qcow2", "theirs.qcow2", "300M");
    const [ours, theirs] = ["ours", "theirs"].map((name) =>
      readFileSync(join(folder, `${name}.qcow2`)),
    );
    expect(Buffer.compare(ours!, theirs!)).toBe(0);
  });

  it("take no room in proportion to the disk", async () => {
    await createImage(folder, "ours.qcow2", { size: 64 * 1024 * GiB });
    expect(statSync(join(folder, "ours.qcow2")).size).toBeLessThan(2 * MiB);
  });

  it("say how their disk reads before anything is written", async () => {
    await createImage(folder, "over.qcow2", {
      size: 4 * MiB,
      "backing-file": "base.raw",
      "backing-fmt": "raw",
    });
    const disk = await openDisk(
      await testGraph(),
      chainOptions(folder, ["over.qcow2", "base.raw"]),
    );
    const oracle = qemuRaw(folder, "over.qcow2");
    expect(Buffer.compare(await readAll(disk), oracle)).toBe(0);
    await disk.close();
  });

  it.each<[string, Partial<CreateOptions>, number, string]>([
    ["refcount-bits in version 2", { version: "v2", "refcount-bits": 8 }, MiB, "'refcount-bits'"],
    [
      "small clusters with extended L2",
      { "extended-l2": true, "cluster-size": 8192 },
      MiB,
      "'extended-l2'",
    ],
    ["a raw data file that has no name", { "data-file-raw": true }, MiB, "'data-file-raw'"],
    [
      "a name that the cluster cannot hold",
      { "backing-file": "x".repeat(600), "cluster-size": 512 },
      MiB,
      "larger clusters",
    ],
    ["disks too large for their clusters", { "cluster-size": 512 }, 129 * GiB, "too large"],
  ])("refuse %s", async (_name, options, size, text) => {
    await expect(createImage(folder, "no.qcow2", { size, ...options })).rejects.toThrow(text);
  });
});

function infoOf(image: string): object {
  const info = JSON.parse(qemuImg(folder, "info", "--output=json", image));
  delete info.filename;
  delete info["actual-size"];
  return info;
}
