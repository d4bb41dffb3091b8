import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB, MiB, readU32, writeU32 } from "../../../../src/base/bytes.ts";
import {
  chainOptions,
  createImage,
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
  writeRaw,
} from "../rig.ts";
import { ourCheck } from "./check-rig.ts";

const folder = testFolder();
const TAKEN = { seconds: 1_700_000_000, nanoseconds: 123_000_000 };
const image = "edge.qcow2";

async function open(readOnly = false): Promise<Disk> {
  return openDisk(await testGraph(), chainOptions(folder, [image], readOnly));
}

function make(options: string, size: string, ...commands: string[]): void {
  qemuImg(folder, "create", "-q", "-f", "qcow2", "-o", options, image, size);
  if (commands.length > 0) qemuIo(folder, image, ...commands);
}

function expectClean(): void {
  expect(qemuCheck(folder, image)).toMatchObject({ status: 0 });
}

const store = (disk: Disk) => disk.node.state.snapshots!;
const bytesOf = () => new Uint8Array(readFileSync(join(folder, image)));

describe.skipIf(!hasQemu)("the list of snapshots", () => {
  it("is qemu-img's, and qemu-img's is ours", async () => {
    make("cluster_size=4k", "1M", "write -P 1 0 64k");
    qemuImg(folder, "snapshot", "-c", "theirs", image);
    const disk = await open();
    await store(disk).create("ours é", TAKEN);
    const [theirs, ours] = store(disk).list();
    expect(theirs).toMatchObject({ id: "1", name: "theirs", vmStateBytes: 0, diskBytes: MiB });
    expect(ours).toEqual({
      id: "2",
      name: "ours é",
      vmStateBytes: 0,
      dateSeconds: 1_700_000_000,
      dateNanoseconds: 123_000_000,
      clockNanoseconds: 0,
      diskBytes: MiB,
    });
    await disk.close();
    const info = JSON.parse(qemuImg(folder, "info", "--output=json", image));
    expect(info.snapshots).toMatchObject([
      { id: "1", name: "theirs" },
      { id: "2", name: "ours é", "date-sec": 1_700_000_000, "date-nsec": 123_000_000 },
    ]);
    expect(info.snapshots[1]).not.toHaveProperty("icount");
    expect(qemuImg(folder, "snapshot", "-l", image)).toContain("ours é");
    const again = await open(true);
    expect(store(again).list()).toEqual([theirs, ours]);
    await again.close();
    expectClean();
  });

  it("keeps all others, and the disk, where one has sizes past 2^53", async () => {
    make("cluster_size=4k", "1M", "write -P 1 0 64k");
    for (const name of ["odd", "good"]) qemuImg(folder, "snapshot", "-c", name, image);
    qemuIo(folder, image, "write -P 2 0 64k");
    const bytes = bytesOf();
    const table = readU32(bytes, 68);
    bytes.fill(0xff, table + 40, table + 48);
    bytes.set([0x7f, ...new Array<number>(7).fill(0xff)], table + 48);
    writeRaw(folder, image, bytes);
    expectClean();
    const { outcome } = await ourCheck(bytes, "none");
    expect(outcome?.result).toMatchObject({ corruptions: 0, "check-errors": 0 });
    const disk = await open();
    const [odd, good] = store(disk).list();
    expect([odd, good]).toMatchObject([
      { vmStateBytes: 2 ** 64, diskBytes: 2 ** 63 },
      { name: "good", vmStateBytes: 0, diskBytes: MiB },
    ]);
    await expect(store(disk).apply("1")).rejects.toMatchObject({ errno: "EFBIG" });
    await store(disk).apply("2");
    expect((await readAll(disk))[0]).toBe(1);
    await disk.close();
    expectClean();
    // The entry is what it was.
    const after = bytesOf();
    expect(after.slice(readU32(after, 68)).slice(40, 56)).toEqual(
      bytes.slice(table + 40, table + 56),
    );
    const last = await open();
    await store(last).delete("1");
    expect(store(last).list()).toEqual([good]);
    await last.close();
    expectClean();
  });

  it("does not use an id twice while it is there", async () => {
    make("cluster_size=4k", "1M");
    const disk = await open();
    for (const name of ["a", "b", "c"]) await store(disk).create(name, TAKEN);
    await store(disk).delete("1");
    expect((await store(disk).create("d", TAKEN)).id).toBe("4");
    await store(disk).delete("4");
    await store(disk).delete("2");
    await store(disk).delete("3");
    expect((await store(disk).create("e", TAKEN)).id).toBe("1");
    await disk.close();
    expectClean();
  });

  it("refuses names that are empty, too long or there already, and ids that are not", async () => {
    make("cluster_size=4k", "1M");
    const disk = await open();
    const before = bytesOf();
    const long = "x".repeat(256);
    await expect(store(disk).create("", TAKEN)).rejects.toMatchObject({ errno: "EINVAL" });
    await expect(store(disk).create(long, TAKEN)).rejects.toMatchObject({ errno: "EINVAL" });
    await expect(store(disk).apply("1")).rejects.toMatchObject({ errno: "ENOENT" });
    await expect(store(disk).delete("1")).rejects.toMatchObject({ errno: "ENOENT" });
    expect(firstDifference(bytesOf(), before)).toBe(-1);
    await store(disk).create("a", TAKEN);
    await expect(store(disk).create("a", TAKEN)).rejects.toMatchObject({ errno: "EEXIST" });
    await store(disk).create(long.slice(1), TAKEN);
    await disk.close();
    expectClean();
  });

  it("keeps what others have put into an entry, though nobody here knows what it is", async () => {
    make("cluster_size=4k", "1M", "write -P 1 0 64k");
    qemuImg(folder, "snapshot", "-c", "old", image);
    const bytes = new Uint8Array(bytesOf().length + 4096);
    bytes.set(bytesOf());
    const at = readU32(bytes, 68);
    // 24 bytes of extra data become 40; the id, the name and their padding move along.
    const names = bytes.slice(at + 64, at + 72);
    writeU32(bytes, at + 36, 40);
    bytes.set([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16], at + 64);
    bytes.set(names, at + 80);
    writeRaw(folder, image, bytes);
    expectClean();
    const disk = await open();
    await store(disk).create("new", TAKEN);
    await disk.close();
    const after = bytesOf();
    const moved = readU32(after, 68);
    expect(moved).not.toBe(at);
    expect(after.slice(moved, moved + 88)).toEqual(bytes.slice(at, at + 88));
    expectClean();
  });

  it("that cannot be read stands in the way of snapshots, not of reading", async () => {
    make("cluster_size=4k", "1M", "write -P 1 0 64k");
    qemuImg(folder, "snapshot", "-c", "old", image);
    const bytes = bytesOf();
    writeU32(bytes, readU32(bytes, 68) + 36, 1025);
    writeRaw(folder, image, bytes);
    await expect(open()).rejects.toMatchObject({
      errno: "EINVAL",
      message: expect.stringMatching(/extra data/),
    });
    const disk = await open(true);
    expect((await readAll(disk))[1]).toBe(1);
    expect(() => store(disk).list()).toThrow(/extra data/);
    await disk.close();
  });
});

describe.skipIf(!hasQemu)("refcounts that are too narrow", () => {
  it.each([
    [1, 0],
    [2, 2],
  ])("of %i bits refuse one snapshot more than %i before anything changes", async (bits, most) => {
    make(`cluster_size=4k,refcount_bits=${bits}`, "1M", "write -P 1 0 64k");
    const disk = await open();
    await disk.backend.write(new Uint8Array(4096).fill(2), 512 * KiB);
    for (let i = 0; i < most; i++) await store(disk).create(`s${i}`, TAKEN);
    await disk.backend.flush();
    const before = bytesOf();
    await expect(store(disk).create("more", TAKEN)).rejects.toMatchObject({
      errno: "EFBIG",
      message: expect.stringMatching(/Refcounts of . bits/),
    });
    expect(firstDifference(bytesOf(), before)).toBe(-1);
    if (most > 0) {
      await expect(store(disk).apply("1")).rejects.toMatchObject({ errno: "EFBIG" });
      await store(disk).delete("1");
      await store(disk).create("more", TAKEN);
    }
    await disk.backend.write(new Uint8Array(4096).fill(3), 0);
    await disk.close();
    expectClean();
  });

  it("are found out of packed clusters in one host cluster, too, and no room is lost", async () => {
    make("cluster_size=16k,refcount_bits=4", "1M");
    const disk = await open();
    // More pieces than half of what 4 bits can count.
    for (let i = 0; i < 9; i++) {
      await disk.backend.writeCompressed(new Uint8Array(16 * KiB).fill(i + 1), i * 16 * KiB);
    }
    await disk.backend.flush();
    await expect(store(disk).create("s", TAKEN)).rejects.toMatchObject({ errno: "EFBIG" });
    expect(store(disk).list()).toEqual([]);
    expect((await readAll(disk))[16 * KiB]).toBe(2);
    await disk.close();
    expectClean();
  });
});

describe.skipIf(!hasQemu)("a snapshot of a disk of another size", () => {
  it("brings its size back with it, larger or smaller", async () => {
    make("cluster_size=4k", "1M", "write -P 1 0 1M");
    const disk = await open();
    await store(disk).create("small", TAKEN);
    await disk.backend.truncate(9 * MiB);
    await disk.backend.write(new Uint8Array(64 * KiB).fill(7), 8 * MiB);
    await store(disk).create("large", TAKEN);
    await store(disk).apply("1");
    expect(disk.backend.length).toBe(MiB);
    expect((await readAll(disk)).every((byte) => byte === 1)).toBe(true);
    await disk.backend.flush();
    expectClean();
    await store(disk).apply("2");
    expect(disk.backend.length).toBe(9 * MiB);
    const seen = await readAll(disk);
    expect([seen[0], seen[MiB], seen[8 * MiB]]).toEqual([1, 0, 7]);
    await disk.close();
    expectClean();
    expect(firstDifference(qemuRaw(folder, image), seen)).toBe(-1);
    qemuImg(folder, "snapshot", "-a", "small", image);
    expectClean();
    expect(qemuRaw(folder, image).length).toBe(MiB);
  });

  it("is refused in version 2, as QEMU does", async () => {
    make("compat=v2", "1M");
    qemuImg(folder, "snapshot", "-c", "s", image);
    const bytes = bytesOf();
    // The disk's size in the snapshot's extra data.
    writeU32(bytes, readU32(bytes, 68) + 40 + 12, 2 * MiB);
    writeRaw(folder, image, bytes);
    const disk = await open();
    await expect(store(disk).apply("1")).rejects.toMatchObject({ errno: "ENOTSUP" });
    await disk.close();
  });
});

describe.skipIf(!hasQemu)("where snapshots cannot be", () => {
  it("an external data file refuses them", async () => {
    make("data_file=edge.raw", "1M");
    const disk = await openDisk(await testGraph(), {
      ...chainOptions(folder, [image]),
      "data-file": { driver: "file", filename: join(folder, "edge.raw") },
    });
    await expect(store(disk).create("s", TAKEN)).rejects.toMatchObject({ errno: "ENOTSUP" });
    await disk.close();
  });

  it("tables that make no sense are refused, and the image is left alone", async () => {
    make("cluster_size=4k", "1M", "write -P 1 0 64k");
    qemuImg(folder, "snapshot", "-c", "old", image);
    const sound = bytesOf();
    const entry = readU32(sound, 68);
    const l1 = readU32(sound, entry + 4);
    const edits: [string, (bytes: Uint8Array) => void][] = [
      ["an L1 table that is too large", (bytes) => writeU32(bytes, entry + 8, 0x10000000)],
      ["an L1 table that is not aligned", (bytes) => writeU32(bytes, entry + 4, l1 + 512)],
      ["an L1 table past the end", (bytes) => writeU32(bytes, entry + 4, 2 ** 30)],
      ["an L1 entry with reserved bits", (bytes) => writeU32(bytes, l1, 0x41000000)],
      ["an L2 table past the end", (bytes) => writeU32(bytes, l1 + 4, 2 ** 30)],
      ["an L2 table that is data", (bytes) => writeU32(bytes, l1 + 4, dataOf(bytes, l1))],
    ];
    for (const [what, edit] of edits) {
      const bytes = sound.slice();
      edit(bytes);
      writeRaw(folder, image, bytes);
      const disk = await open();
      await expect(store(disk).apply("1"), what).rejects.toMatchObject({
        errno: expect.stringMatching(/EINVAL|EIO/),
      });
      await expect(store(disk).delete("1"), what).rejects.toMatchObject({
        errno: expect.stringMatching(/EINVAL|EIO/),
      });
      expect(store(disk).list().length, what).toBe(1);
      expect((await readAll(disk)).subarray(0, 64 * KiB).every((byte) => byte === 1)).toBe(true);
      await disk.close();
    }
  });

  /** Host offset of the first data cluster behind an L1 table. */
  function dataOf(bytes: Uint8Array, l1: number): number {
    return readU32(bytes, readU32(bytes, l1 + 4) + 4);
  }
});

describe.skipIf(!hasQemu)("disks of our own making", () => {
  it("of no size and of one sector have snapshots, too", async () => {
    for (const size of [0, 512]) {
      await createImage(folder, image, { size, "cluster-size": 4096 });
      const disk = await open();
      await store(disk).create("a", TAKEN);
      if (size > 0) await disk.backend.write(new Uint8Array(size).fill(1), 0);
      await store(disk).create("b", TAKEN);
      await store(disk).apply("1");
      await store(disk).delete("2");
      await store(disk).delete("1");
      expect((await readAll(disk)).every((byte) => byte === 0)).toBe(true);
      await disk.close();
      expectClean();
    }
  });

  it("with an L1 table of several clusters and L2 tables behind several of its pieces", async () => {
    await createImage(folder, image, { size: 600 * MiB, "cluster-size": 512 });
    const disk = await open();
    const places = [0, 5 * MiB, 299 * MiB, 599 * MiB];
    const put = async (fill: number) => {
      for (const at of places) await disk.backend.write(new Uint8Array(2048).fill(fill + at), at);
    };
    const get = async () => {
      const one = new Uint8Array(1);
      const seen: number[] = [];
      for (const at of places) {
        await disk.backend.read(one, at + 2000);
        seen.push(one[0]!);
      }
      return seen;
    };
    await put(1);
    await store(disk).create("a", TAKEN);
    await put(2);
    expect(await get()).toEqual([2, 2, 2, 2]);
    await store(disk).apply("1");
    expect(await get()).toEqual([1, 1, 1, 1]);
    await disk.close();
    expectClean();
    const again = await open();
    await store(again).delete("1");
    await again.close();
    expectClean();
  });

  it("share the tables of what was not written between two snapshots", async () => {
    await createImage(folder, image, { size: 64 * MiB, "cluster-size": 4096 });
    const disk = await open();
    await disk.backend.write(new Uint8Array(8 * MiB).fill(1), 0);
    await store(disk).create("first", TAKEN);
    await disk.backend.flush();
    const length = bytesOf().length;
    for (let i = 0; i < 20; i++) await store(disk).create(`s${i}`, TAKEN);
    await disk.close();
    expectClean();
    // An L1 table each; refcounts and the list of snapshots move from place to place.
    expect(bytesOf().length - length).toBeLessThan(40 * 4096);
  });
});
