/**
 * Images that lie. Whatever a field says: a BlockError or an honest read, bounded memory, and not
 * a byte of the file changed.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB, MiB, readU32, writeU32, writeU64 } from "../../../../src/base/bytes.ts";
import { BlockError } from "../../../../src/base/errors.ts";
import { seededRandom } from "../../../../src/base/random.ts";
import { LogStore } from "../log-store.ts";
import {
  createImage,
  type Disk,
  hasQemu,
  mixedData,
  qemuImg,
  qemuIo,
  readAll,
  testFolder,
  writeRaw,
} from "../rig.ts";
import { all, type Edit, image, openBytes, twoL1, u32, u64 } from "./lies.ts";

const folder = testFolder();

describe("a header field that cannot be is refused by its name", () => {
  const cases: [string, Edit, string, RegExp][] = [
    ["magic", u32(0, 0x51464900), "EINVAL", /not a qcow2 image/],
    ["version 1", u32(4, 1), "ENOTSUP", /version 1/],
    ["version 4", u32(4, 4), "ENOTSUP", /version 4/],
    ["cluster_bits 8", u32(20, 8), "EINVAL", /cluster_bits/],
    ["cluster_bits 22", u32(20, 22), "EINVAL", /cluster_bits/],
    ["cluster_bits huge", u32(20, 0xffffffff), "EINVAL", /cluster_bits/],
    ["size past 2^53", u64(24, 0x200000, 0), "EFBIG", /size/],
    ["size beyond the L1 table", u64(24, 0x100, 0), "EINVAL", /l1_size/],
    ["AES", u32(32, 1), "ENOTSUP", /AES/],
    ["LUKS without its extension", u32(32, 2), "EINVAL", /crypt_method/],
    ["encryption unknown", u32(32, 77), "ENOTSUP", /encrypt/],
    ["l1_size huge", u32(36, 0x7fffffff), "EFBIG", /l1_size/],
    ["l1_size too small", u32(36, 0), "EINVAL", /l1_size/],
    ["L1 misaligned", u64(40, 0, 0x30200), "EINVAL", /l1_table_offset/],
    ["L1 near 2^63", u64(40, 0x7fffffff, 0xffff0000), "EFBIG", /l1_table_offset/],
    ["L1 past the end", u64(40, 1, 0), "EINVAL", /l1_table_offset/],
    ["L1 at 0", u64(40, 0, 0), "EINVAL", /l1_table_offset/],
    ["refcount table misaligned", u64(48, 0, 0x10200), "EINVAL", /refcount_table_offset/],
    ["refcount table near 2^63", u64(48, 0x7fffffff, 0xffff0000), "EFBIG", /refcount_table_offset/],
    ["refcount table too large", u32(56, 0x7fffffff), "EINVAL", /refcount_table_clusters/],
    ["snapshots, count", u32(60, 65537), "EINVAL", /nb_snapshots/],
    ["snapshots, misaligned", all(u32(60, 1), u64(64, 0, 0x100)), "EINVAL", /snapshots_offset/],
    ["incompatible bit 5", u64(72, 0, 32), "ENOTSUP", /incompatible bit 5/],
    ["incompatible bit 63", u64(72, 0x80000000, 0), "ENOTSUP", /incompatible bit 63/],
    ["data file bit without a file", u64(72, 0, 4), "EINVAL", /'data-file'/],
    ["compression bit without type", u64(72, 0, 8), "EINVAL", /compression_type/],
    ["compression type without bit", (bytes) => bytes.set([1], 104), "EINVAL", /compression_type/],
    [
      "compression type 2",
      all(u64(72, 0, 8), (bytes) => bytes.set([2], 104)),
      "EINVAL",
      /compression_type/,
    ],
    [
      "extended L2 in small clusters",
      all(u64(72, 0, 16), u32(20, 13)),
      "EINVAL",
      /cluster_bits|offset/,
    ],
    ["refcount_order 7", u32(96, 7), "EINVAL", /refcount_order/],
    ["header_length too small", u32(100, 72), "EINVAL", /header_length/],
    ["header_length odd", u32(100, 113), "EINVAL", /header_length/],
    ["header_length huge", u32(100, 0xfffffff8), "EINVAL", /header_length/],
    ["extension huge", u32(116, 0x7fffffff), "EINVAL", /header extension/],
    ["extension just too long", u32(116, 65536 - 112 - 8 + 1), "EINVAL", /header extension/],
    ["an end of all extensions that has a length", u64(112, 0, 65536), "EINVAL", /extension 0x0/],
    ["raw data without a data file", u32(92, 2), "EINVAL", /raw data files/],
    ["backing name too long", all(u64(8, 0, 600), u32(16, 1024)), "EINVAL", /backing_file_size/],
    ["backing name outside", all(u64(8, 0, 65537), u32(16, 10)), "EINVAL", /backing_file_offset/],
    [
      "backing name in the header",
      all(u64(8, 0, 40), u32(16, 10)),
      "EINVAL",
      /backing_file_offset/,
    ],
  ];
  it.each(cases)("%s", async (_name, edit, errno, text) => {
    const bytes = await image();
    edit(bytes);
    for (const readOnly of [true, false]) {
      const store = new LogStore(bytes);
      const error = await openBytes(bytes, readOnly, store).then(
        () => expect.fail("it opened"),
        (error) => error,
      );
      expect(error).toBeInstanceOf(BlockError);
      expect([error.errno, error.message]).toEqual([errno, expect.stringMatching(text)]);
      expect(store.changes).toBe(0);
    }
  });

  it("an unknown feature is called what the image calls it", async () => {
    const bytes = await image();
    bytes.set([0, 9, ...new TextEncoder().encode("time travel"), 0], 120);
    writeU32(bytes, 76, 512);
    await expect(openBytes(bytes, true)).rejects.toThrow("'time travel'");
  });

  it("two data file names, and one without the bit", async () => {
    await createImage(folder, "d.qcow2", { size: MiB, "data-file": "x" });
    const bytes = new Uint8Array(readFileSync(join(folder, "d.qcow2")));
    const twice = bytes.slice();
    twice.copyWithin(128, 112, 128);
    writeU32(twice, 128 + 16, 0);
    await expect(openBytes(twice, true)).rejects.toThrow(/data file name/);
    writeU32(bytes, 76, 0);
    await expect(openBytes(bytes, true)).rejects.toThrow(/data file name/);
  });
});

describe("what forbids writing does not forbid reading", () => {
  it.each<[string, Edit, RegExp]>([
    ["the corrupt bit", u32(76, 2), /marked corrupt.*repair/],
    ["a size of no whole sectors", u64(24, 0, MiB - 100), /not a multiple of 512/],
    ["no refcount table", u32(56, 0), /refcount_table_clusters/],
    ["a refcount table past the end", u64(48, 0x10, 0), /refcount_table_offset/],
    [
      "two refcount table entries for one block",
      u64(65536 + 8, 0, 2 * 65536),
      /two entries.*refcount block/,
    ],
    [
      "a refcount table where the L1 table is",
      u64(48, 0, 3 * 65536),
      /refcount table and its L1 table lie in one place/,
    ],
    ["two L1 entries for one L2 table", twoL1, /two entries.*L2 table/],
    ["a snapshot table past the end", all(u32(60, 1), u64(64, 1, 0)), /snapshot 0/],
  ])("%s", async (_name, edit, text) => {
    const bytes = await image();
    edit(bytes);
    const store = new LogStore(bytes);
    await expect(openBytes(bytes, false, store)).rejects.toThrow(text);
    const disk = await openBytes(bytes, true, store);
    const seen = await readAll(disk);
    expect(seen.length).toBe(MiB);
    expect(seen.subarray(10 * KiB, 110 * KiB).every((byte) => byte === 7)).toBe(true);
    await disk.close();
    expect(store.changes).toBe(0);
  });
});

describe("a table that lies", () => {
  const L1 = 3 * 65536;
  const l2Of = (bytes: Uint8Array) => readU32(bytes, L1 + 4);

  it.each<[string, Edit]>([
    ["an L1 entry with reserved bits", u32(L1, 0x81000000)],
    ["an L1 entry that is not aligned", (bytes) => bytes.set([2], L1 + 6)],
    ["an L2 table past the end", u32(L1, 0x80000100)],
    ["a data cluster past the end", (bytes) => writeU32(bytes, l2Of(bytes), 0x80000100)],
    ["a data cluster that is not aligned", (bytes) => bytes.set([2], l2Of(bytes) + 6)],
    ["an L2 entry with reserved bits", (bytes) => writeU32(bytes, l2Of(bytes), 0xbf000000)],
    ["packed data past the end", (bytes) => writeU64(bytes, l2Of(bytes), 2 ** 62 + 2 ** 40)],
    ["packed data that is none", (bytes) => writeU64(bytes, l2Of(bytes), 2 ** 62)],
  ])("%s: EIO for what it concerns, and nothing is written", async (_name, edit) => {
    const bytes = await image();
    edit(bytes);
    const store = new LogStore(bytes);
    const disk = await openBytes(bytes, true, store);
    await expect(disk.backend.read(new Uint8Array(512), 0)).rejects.toMatchObject({ errno: "EIO" });
    await disk.close();
    expect(store.changes).toBe(0);
  });

  /** Targets of a write that would destroy the image, in the image() layout. */
  const overlaps: [string, (l2: number) => number][] = [
    ["the header", () => 0],
    ["the refcount table", () => 65536],
    ["a refcount block", () => 2 * 65536],
    ["the L1 table", () => L1],
    ["an L2 table", (l2) => l2],
  ];
  it.each(overlaps)(
    "a data cluster on %s is not written, and the image is marked",
    async (_name, target) => {
      const bytes = await image();
      const l2 = l2Of(bytes);
      writeU64(bytes, l2, target(l2));
      if (target(l2) === 0) return;
      writeU32(bytes, l2, 0x80000000);
      const store = new LogStore(bytes);
      const disk = await openBytes(bytes, false, store);
      await expectCorrupt(disk, store, bytes);
    },
  );

  it("a cluster counted as free that is not: it is not handed out, and the image is marked", async () => {
    for (const index of [0, 3, 4]) {
      const bytes = await image();
      writeU32(bytes, l2Of(bytes), 0);
      writeU32(bytes, l2Of(bytes) + 4, 0);
      bytes.set([0, 0], 2 * 65536 + index * 2);
      const store = new LogStore(bytes);
      const disk = await openBytes(bytes, false, store);
      await expectCorrupt(disk, store, bytes);
    }
  });

  it("an L2 table on the L1 table, on a refcount block, on the refcount table", async () => {
    for (const place of [L1, 2 * 65536, 65536]) {
      const bytes = await image();
      writeU32(bytes, L1 + 4, place);
      const store = new LogStore(bytes);
      const disk = await openBytes(bytes, false, store);
      await expectCorrupt(disk, store, bytes);
    }
  });

  async function expectCorrupt(disk: Disk, store: LogStore, before: Uint8Array): Promise<void> {
    const write = () => disk.backend.write(new Uint8Array(65536).fill(1), 0);
    await expect(write()).rejects.toMatchObject({ errno: "EIO" });
    await expect(write()).rejects.toThrow(/corrupt/);
    const changed = store.bytes.slice();
    expect(readU32(changed, 76) & 2).toBe(2);
    writeU32(changed, 76, readU32(before, 76));
    expect(Buffer.compare(changed.subarray(0, before.length), before)).toBe(0);
    await disk.backend.flush().catch(() => {});
    await disk.close();
  }
});

describe.skipIf(!hasQemu)("what we do not maintain", () => {
  it("autoclear bits that nobody knows go off before the first write, and only then", async () => {
    qemuImg(folder, "create", "-q", "-f", "qcow2", "b.qcow2", "1M");
    const bytes = new Uint8Array(readFileSync(join(folder, "b.qcow2")));
    bytes[88] = 0x40;
    const store = new LogStore(bytes);
    const idle = await openBytes(bytes, false, store);
    await readAll(idle);
    await idle.close();
    expect(store.changes).toBe(0);

    const disk = await openBytes(bytes, false, store);
    await disk.backend.write(new Uint8Array(512), 0);
    const [first, ...later] = store.log;
    expect(first).toMatchObject({ kind: "write", offset: 88, bytes: new Uint8Array(8) });
    expect(later.slice(0, 2).map(({ kind }) => kind)).toEqual(["flush-begin", "flush"]);
    await disk.close();
  });
});

describe.skipIf(!hasQemu)("fields at random", () => {
  const boundary = [
    0,
    1,
    2,
    3,
    7,
    8,
    9,
    16,
    21,
    22,
    62,
    63,
    64,
    255,
    511,
    512,
    4096,
    65535,
    65536,
    2 ** 31 - 1,
    2 ** 31,
    2 ** 32 - 1,
  ];

  it("only BlockErrors come out, in bounded memory, and reading writes nothing", async () => {
    writeRaw(folder, "f.raw", mixedData(seededRandom(3), 200 * KiB));
    qemuImg(
      folder,
      "convert",
      "-c",
      "-f",
      "raw",
      "-O",
      "qcow2",
      "-o",
      "cluster_size=4k",
      "f.raw",
      "f1.qcow2",
    );
    qemuImg(
      folder,
      "convert",
      "-f",
      "raw",
      "-O",
      "qcow2",
      "-o",
      "extended_l2=on,cluster_size=16k",
      "f.raw",
      "f2.qcow2",
    );
    qemuIo(folder, "f2.qcow2", "write -z 0 16k");
    qemuImg(folder, "snapshot", "-c", "s", "f2.qcow2");
    const seeds = ["f1.qcow2", "f2.qcow2"].map(
      (name) => new Uint8Array(readFileSync(join(folder, name))),
    );
    for (let seed = 0; seed < 200; seed++) {
      const random = seededRandom(seed);
      const bytes = seeds[seed % 2]!.slice();
      for (let i = 1 + random.below(4); i > 0; i--) {
        // Mostly the header, else the tables, which qemu-img puts right behind it.
        const at = random.below(3) > 0 ? random.below(28) * 4 : random.below(bytes.length / 4) * 4;
        writeU32(
          bytes,
          at,
          random.below(2) ? boundary[random.below(boundary.length)]! : random.below(2 ** 32),
        );
      }
      await abuse(bytes, seed % 3 === 0, seed);
    }
  });

  async function abuse(bytes: Uint8Array, readOnly: boolean, seed: number): Promise<void> {
    const store = new LogStore(bytes);
    const typed = (error: unknown) => {
      if (!(error instanceof BlockError)) throw new Error(`seed ${seed}`, { cause: error });
    };
    const disk = await openBytes(bytes, readOnly, store).catch(typed);
    if (!disk) return;
    const length = Math.min(disk.backend.length, 300 * KiB);
    for (let at = 0; at < length; at += 30_000) {
      await disk.backend.read(new Uint8Array(Math.min(30_000, length - at)), at).catch(typed);
    }
    if (!readOnly) {
      const at = Math.max(0, length - 70_000);
      await disk.backend.write(new Uint8Array(Math.min(length, 66_000)).fill(1), at).catch(typed);
      await disk.backend.writeZeroes(0, Math.min(length, 40_000), { mayUnmap: true }).catch(typed);
      await disk.backend.flush().catch(typed);
    }
    await disk.close().catch(typed);
    if (readOnly) expect(store.changes, `seed ${seed}`).toBe(0);
    expect(store.largestRead, `seed ${seed}`).toBeLessThanOrEqual(4 * MiB);
  }
});
