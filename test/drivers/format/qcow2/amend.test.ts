import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB, MiB, readU32, writeU16, writeU32 } from "../../../../src/base/bytes.ts";
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
const image = "amend.qcow2";
const LEAKS = 3;

async function open(files: readonly string[] = [image]): Promise<Disk> {
  return openDisk(await testGraph(), chainOptions(folder, files));
}

function make(options: string, ...more: string[]): void {
  qemuImg(folder, "create", "-q", "-f", "qcow2", "-o", options, ...more, image, "1M");
  qemuIo(folder, image, "write -P 1 0 64k", "write -c -P 2 64k 64k");
}

const amend = (disk: Disk, options: ImageAmend) =>
  disk.node.state.amend!(options, { force: false });
const bytesOf = () => new Uint8Array(readFileSync(join(folder, image)));
const infoOf = () => JSON.parse(qemuImg(folder, "info", "--output=json", "-f", "qcow2", image));

/** What QEMU makes of the image is the same as before, whatever its version. */
async function expectAmended(options: ImageAmend, files?: readonly string[]): Promise<void> {
  const before = qemuRaw(folder, image);
  const disk = await open(files);
  const own = await readAll(disk);
  await amend(disk, options);
  expect(firstDifference(await readAll(disk), own)).toBe(-1);
  await disk.close();
  const check = qemuCheck(folder, image);
  expect(check.status, check.text).toBe(0);
  expect(firstDifference(qemuRaw(folder, image), before)).toBe(-1);
  const compat = options.version === "v2" ? "0.10" : "1.1";
  if (options.version) expect(infoOf()["format-specific"].data.compat).toBe(compat);
  const again = await open(files);
  expect(firstDifference(await readAll(again), own)).toBe(-1);
  await again.close();
}

describe.skipIf(!hasQemu)("the version of an image", () => {
  it.each([512, 4096, 65536])("goes up and down with clusters of %i", async (bytes) => {
    make(`compat=v2,cluster_size=${bytes}`);
    await expectAmended({ version: "v3" });
    qemuIo(folder, image, "write -P 3 200k 10k");
    await expectAmended({ version: "v2" });
    await expectAmended({ version: "v2" });
    await expectAmended({ version: "v3" });
  });

  it("goes up by us and down by QEMU, and the other way round", async () => {
    make("compat=v2,cluster_size=4k");
    await expectAmended({ version: "v3" });
    qemuImg(folder, "amend", "-f", "qcow2", "-o", "compat=v2", image);
    expect(qemuCheck(folder, image).status).toBe(0);
    qemuImg(folder, "amend", "-f", "qcow2", "-o", "compat=v3", image);
    await expectAmended({ version: "v2" });
  });

  it.each([
    ["of a usual length", "base.raw"],
    ["that reaches into the second sector", `${"./".repeat(200)}base.raw`],
    ["as long as can be", `${"./".repeat(507)}base.raw`],
  ])("takes the backing file's name along: %s", async (_what, name) => {
    writeRaw(folder, "base.raw", new Uint8Array(MiB).fill(8));
    make("compat=v2,cluster_size=4k", "-b", name, "-F", "raw");
    await expectAmended({ version: "v3" }, [image, "base.raw"]);
    expect(infoOf()).toMatchObject({ "backing-filename": name, "backing-filename-format": "raw" });
    await expectAmended({ version: "v2" }, [image, "base.raw"]);
    expect(infoOf()).toMatchObject({ "backing-filename": name, "backing-filename-format": "raw" });
  });

  it("takes snapshots along, also those without what version 3 asks for", async () => {
    make("compat=v2,cluster_size=4k");
    qemuImg(folder, "snapshot", "-c", "s", image);
    qemuIo(folder, image, "write -P 5 0 1M");
    // The entry as QEMU before 1.1 wrote it: no extra data.
    const bytes = bytesOf();
    const at = readU32(bytes, 68);
    bytes.copyWithin(at + 40, at + 64, at + 72);
    writeU32(bytes, at + 36, 0);
    writeU16(bytes, at + 12, 1);
    writeRaw(folder, image, bytes);
    expect(qemuCheck(folder, image).status).toBe(0);
    await expectAmended({ version: "v3" });
    const after = bytesOf();
    expect(readU32(after, readU32(after, 68) + 36)).toBeGreaterThanOrEqual(16);
    await expectAmended({ version: "v2" });
    qemuImg(folder, "snapshot", "-a", "s", image);
    expect(qemuRaw(folder, image)[64 * KiB]).toBe(2);
    expect(qemuCheck(folder, image).status).toBe(0);
  });

  it.each<[string, string, string[], RegExp]>([
    ["zero clusters", "cluster_size=4k", ["write -z 512k 64k"], /zero clusters.*524288/],
    ["another refcount width", "refcount_bits=8", [], /refcounts of 8 bits/],
    ["extended L2 entries", "extended_l2=on,cluster_size=16k", [], /extended L2/],
    ["lazy refcounts", "lazy_refcounts=on", [], /lazy refcounts/],
    ["zstd", "compression_type=zstd", [], /zstd/],
  ])("does not go down over %s", async (_what, options, commands, text) => {
    make(options);
    if (commands.length > 0) qemuIo(folder, image, ...commands);
    const before = bytesOf();
    const disk = await open();
    await expect(amend(disk, { version: "v2" })).rejects.toMatchObject({
      errno: "ENOTSUP",
      message: text,
    });
    await disk.close();
    expect(firstDifference(bytesOf(), before)).toBe(-1);
  });

  it("does not go down over zero clusters that only a snapshot has, nor over bitmaps", async () => {
    make("cluster_size=4k");
    qemuIo(folder, image, "write -z 512k 4k");
    qemuImg(folder, "snapshot", "-c", "s", image);
    qemuIo(folder, image, "write -P 1 512k 4k");
    const disk = await open();
    await expect(amend(disk, { version: "v2" })).rejects.toThrow(/zero clusters/);
    await disk.close();
    make("cluster_size=4k");
    qemuImg(folder, "bitmap", "--add", image, "b");
    const other = await open();
    await expect(amend(other, { version: "v2" })).rejects.toThrow(/dirty bitmaps/);
    await other.close();
  });

  it("does not go down with a larger disk that needs zero clusters to hide its backing file", async () => {
    writeRaw(folder, "base.raw", new Uint8Array(4 * MiB).fill(8));
    const onBase = ["-b", "base.raw", "-F", "raw"];
    make("compat=v3,cluster_size=4k", ...onBase);
    const before = bytesOf();
    const options: ImageAmend = { version: "v2", size: 3 * MiB };
    const disk = await open([image, "base.raw"]);
    await expect(amend(disk, options)).rejects.toThrow(/hides the rest of its backing file/);
    await disk.close();
    const alone = await open();
    await expect(amend(alone, options)).rejects.toThrow(/hides the rest of its backing file/);
    await alone.close();
    expect(firstDifference(bytesOf(), before)).toBe(-1);
    writeRaw(folder, "base.raw", new Uint8Array(MiB).fill(8));
    const short = await open([image, "base.raw"]);
    await amend(short, options);
    await short.close();
    const check = qemuCheck(folder, image);
    expect(check.status, check.text).toBe(0);
    expect(qemuRaw(folder, image).length).toBe(3 * MiB);
  });

  it("is a whole one after a power cut at any moment", async () => {
    writeRaw(folder, "base.raw", new Uint8Array(MiB).fill(8));
    for (const [from, to] of [["v2", "v3"] as const, ["v3", "v2"] as const]) {
      const name = `${"./".repeat(250)}base.raw`;
      make(`compat=${from},cluster_size=4k`, "-b", name, "-F", "raw");
      const start = bytesOf();
      const wanted = qemuRaw(folder, image);
      const store = new LogStore(start);
      const graph = new Graph(await testWorld(), [qcow2Driver(), logStoreDriver(store)] as never);
      const options = { driver: "qcow2", file: { driver: "log-store" }, backing: null };
      const disk = await openDisk(graph, options);
      const first = store.log.length;
      await amend(disk, { version: to });
      const last = store.log.length;
      await disk.close();
      const random = seededRandom(12);
      const seen = new Set<string>();
      for (let i = 0; i < 40; i++) {
        const end = last - random.below(last - first + 1);
        writeRaw(folder, image, crashState(start, store.log, end, random));
        const check = qemuCheck(folder, image);
        expect([0, LEAKS], check.text).toContain(check.status);
        expect(firstDifference(qemuRaw(folder, image), wanted)).toBe(-1);
        seen.add(infoOf()["format-specific"].data.compat);
      }
      expect(seen.size).toBe(2);
    }
  });
});

describe.skipIf(!hasQemu)("other properties", () => {
  it("lazy refcounts are allowed to others, or not", async () => {
    make("compat=v3");
    await expectAmended({ "lazy-refcounts": true });
    expect(infoOf()["format-specific"].data["lazy-refcounts"]).toBe(true);
    await expectAmended({ version: "v3", "lazy-refcounts": false });
    expect(infoOf()["format-specific"].data["lazy-refcounts"]).toBe(false);
    await expectAmended({ "lazy-refcounts": true });
    await expectAmended({ version: "v2", "lazy-refcounts": false });
    await expectAmended({ version: "v3", "lazy-refcounts": true });
    const disk = await open();
    await expect(amend(disk, { version: "v2", "lazy-refcounts": true })).rejects.toThrow(/needs/);
    await disk.close();
  });

  it("new keys for an image that is not encrypted are refused", async () => {
    make("compat=v3");
    const before = bytesOf();
    const disk = await open();
    await expect(
      amend(disk, { encrypt: { format: "luks", state: "active" } }),
    ).rejects.toMatchObject({
      errno: "ENOTSUP",
    });
    await disk.close();
    expect(firstDifference(bytesOf(), before)).toBe(-1);
  });
});
