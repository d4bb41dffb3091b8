/**
 * Tables that lie to who writes, to who takes snapshots, and to who makes the disk larger: what is there
 * stays, and no more work is done than the file is large. See docs/hostile.md.
 */

import { describe, expect, it } from "vitest";
import { KiB, MiB, readU32, writeU32, writeU64 } from "../../../../src/base/bytes.ts";
import { BlockError } from "../../../../src/base/errors.ts";
import { LogStore } from "../log-store.ts";
import { type Disk, firstDifference, readAll } from "../rig.ts";
import { type Edit, image, openBytes } from "./lies.ts";

const TAKEN = { seconds: 0, nanoseconds: 0 };
/** Places in an image(): 64 KiB clusters, the tables one behind the other. */
const REFCOUNT_TABLE = 65536;
const REFCOUNT_BLOCK = 2 * 65536;
const L1 = 3 * 65536;
const l2Of = (bytes: Uint8Array) => readU32(bytes, L1 + 4);

async function withSnapshot(options = {}): Promise<Uint8Array> {
  const store = new LogStore(await image(options));
  const disk = await openBytes(store.bytes, false, store);
  await disk.node.state.snapshots!.create("s", TAKEN);
  await disk.backend.write(new Uint8Array(64 * KiB).fill(9), 0);
  await disk.close();
  return store.bytes.slice();
}

describe("a snapshot that lies", () => {
  it.each([
    ["2^52 bytes", 2 ** 52],
    ["more than the largest L1 table maps", 2 ** 22 * 512 * MiB + 64 * KiB],
  ])("of a disk of %s is not applied, and nothing is made for it", async (_name, size) => {
    const bytes = await withSnapshot();
    writeU64(bytes, readU32(bytes, 68) + 48, size);
    const store = new LogStore(bytes);
    const disk = await openBytes(bytes, false, store);
    const before = store.changes;
    await expect(disk.node.state.snapshots!.apply("1")).rejects.toMatchObject({ errno: "EFBIG" });
    expect(store.changes).toBe(before);
    expect(disk.node.state.snapshots!.list()).toHaveLength(1);
    await disk.close();
  });

  it("leaves its L2 table alone when the disk's data is said to lie there", async () => {
    const bytes = await withSnapshot();
    const l2OfSnapshot = readU32(bytes, readU32(bytes, readU32(bytes, 68) + 4) + 4);
    const l1 = readU32(bytes, 44);
    const l2 = readU32(bytes, l1 + 4);
    expect(l2).not.toBe(l2OfSnapshot);
    const before = bytes.slice(l2OfSnapshot, l2OfSnapshot + 64 * KiB);
    writeU64(bytes, l2, l2OfSnapshot);
    writeU32(bytes, l2, 0x80000000);
    const store = new LogStore(bytes);
    const disk = await openBytes(bytes, false, store);
    await expectRefusal(disk);
    const after = store.bytes.slice(l2OfSnapshot, l2OfSnapshot + 64 * KiB);
    expect(firstDifference(after, before)).toBe(-1);
    await close(disk);
  });
});

describe("an entry that cannot be is an error for its cluster alone", () => {
  it.each<[string, object, Edit]>([
    [
      "a subcluster that has data and is zero",
      { "extended-l2": true },
      (bytes) => writeU32(bytes, l2Of(bytes) + 8, 0xffffffff),
    ],
    [
      "packed data with a subcluster bitmap",
      { "extended-l2": true },
      (bytes) => bytes.set([0x40], l2Of(bytes)),
    ],
    ["packed data that crosses the end", {}, (bytes) => packAt(bytes, bytes.length - 100)],
    ["packed data far away", {}, (bytes) => packAt(bytes, 2 ** 53)],
    ["a zero cluster that is not aligned", {}, (bytes) => unalign(bytes, 1)],
    ["a data cluster that is not aligned", {}, (bytes) => unalign(bytes, 0)],
  ])("%s", async (_name, options, edit) => {
    const bytes = await image(options);
    edit(bytes);
    const store = new LogStore(bytes);
    const disk = await openBytes(bytes, true, store);
    const read = (at: number) => disk.backend.read(new Uint8Array(512), at);
    await expect(read(0)).rejects.toMatchObject({ errno: "EIO" });
    await read(70 * KiB);
    await disk.close();
    expect(store.changes).toBe(0);
    const writing = await openBytes(bytes, false, store);
    // Not in its place, and not over anybody else.
    await writing.backend.write(new Uint8Array(512), 0).catch(typed);
    await writing.backend.discard(0, 64 * KiB).catch(typed);
    await close(writing);
    expect(store.largestRead).toBeLessThanOrEqual(4 * MiB);
  });

  function packAt(bytes: Uint8Array, offset: number): void {
    writeU64(bytes, l2Of(bytes), offset);
    bytes[l2Of(bytes)]! |= 0x40;
  }

  function unalign(bytes: Uint8Array, zero: number): void {
    const at = l2Of(bytes);
    bytes[at + 6]! |= 0x2a;
    bytes[at + 7]! |= zero;
  }
});

describe("a write that meets an entry that cannot be marks the image corrupt", () => {
  const crooked =
    (place: (bytes: Uint8Array) => number): Edit =>
    (bytes) =>
      (bytes[place(bytes) + 6]! |= 0x2a);
  /** And where a write comes by it: refcounts are looked at for new clusters only. */
  const cases: [string, Edit, number][] = [
    ["an L1 entry", crooked(() => L1), 0],
    ["an L2 entry", crooked(l2Of), 0],
    ["a refcount table entry", crooked(() => REFCOUNT_TABLE), 512 * KiB],
  ];
  it.each(cases)("%s that is not aligned", async (_name, edit, at) => {
    const bytes = await image();
    edit(bytes);
    const store = new LogStore(bytes);
    const disk = await openBytes(bytes, false, store);
    const write = (to: number) => disk.backend.write(new Uint8Array(512).fill(5), to);
    await expect(write(at)).rejects.toMatchObject({ errno: "EIO" });
    expect(store.bytes[79]! & 2).toBe(2);
    await expect(write(70 * KiB)).rejects.toThrow(/corrupt/);
    await close(disk);
    await expect(openBytes(store.bytes, false)).rejects.toMatchObject({ errno: "EPERM" });
    const reading = await openBytes(store.bytes, true);
    await reading.close();
  });

  it("what was written before is in the file", async () => {
    const bytes = await image();
    const place = l2Of(bytes) + 8 * 8;
    writeU64(bytes, place, 0x2a00);
    const store = new LogStore(bytes);
    const disk = await openBytes(bytes, false, store);
    await disk.backend.write(new Uint8Array(512).fill(5), 256 * KiB);
    await expect(disk.backend.write(new Uint8Array(512), 512 * KiB)).rejects.toThrow(/L2 entry/);
    await close(disk);
    const reading = await openBytes(store.bytes, true);
    const seen = new Uint8Array(512);
    await reading.backend.read(seen, 256 * KiB);
    expect(seen.every((byte) => byte === 5)).toBe(true);
    await reading.close();
  });
});

describe("refcounts that lie", () => {
  it.each<[string, Edit]>([
    ["a block past the file's end", (bytes) => writeU32(bytes, REFCOUNT_TABLE + 4, 0x40000000)],
    ["a block that is not aligned", (bytes) => writeU32(bytes, REFCOUNT_TABLE + 4, 0x22a00)],
    ["a block at the far end", (bytes) => writeU32(bytes, REFCOUNT_TABLE, 0x00ff0000)],
    ["a block on the header", (bytes) => writeU32(bytes, REFCOUNT_TABLE + 4, 0)],
    ["a block on its table", (bytes) => writeU32(bytes, REFCOUNT_TABLE + 4, REFCOUNT_TABLE)],
    ["a block on the L1 table", (bytes) => writeU32(bytes, REFCOUNT_TABLE + 4, L1)],
    ["no counts at all", (bytes) => bytes.fill(0, REFCOUNT_BLOCK, REFCOUNT_BLOCK + 65536)],
  ])("%s: what the disk has is read, nothing is allocated, nothing lost", async (_name, edit) => {
    const bytes = await image();
    edit(bytes);
    const store = new LogStore(bytes);
    const seen = await withDisk(bytes, true, readAll);
    const disk = await openBytes(bytes, false, store);
    // A new cluster would be needed.
    const write = disk.backend.write(new Uint8Array(512).fill(1), 512 * KiB);
    await expect(write).rejects.toMatchObject({ errno: "EIO" });
    await close(disk);
    expect(firstDifference(await withDisk(store.bytes, true, readAll), seen)).toBe(-1);
  });
});

describe("an external data file", () => {
  it("is not looked for by its name, and forbids what cannot be in it", async () => {
    const bytes = await image();
    writeU32(bytes, 76, 4);
    await expect(openBytes(bytes, false)).rejects.toThrow("'data-file'");
  });
});

describe("the disk's end", () => {
  it("what its last L2 table maps past it does not show when the disk grows", async () => {
    const bytes = await image({ size: 128 * KiB });
    // The second cluster is one of the disk's no more.
    writeU64(bytes, 24, 64 * KiB);
    const store = new LogStore(bytes);
    const disk = await openBytes(bytes, false, store);
    await disk.backend.truncate(192 * KiB);
    const seen = await readAll(disk);
    expect(seen.subarray(10 * KiB, 64 * KiB).every((byte) => byte === 7)).toBe(true);
    expect(seen.subarray(64 * KiB).every((byte) => byte === 0)).toBe(true);
    await disk.close();
  });

  it("takes no bytes at all, packed or not", async () => {
    const bytes = await image({ size: 128 * KiB });
    const store = new LogStore(bytes);
    const disk = await openBytes(bytes, false, store);
    await disk.backend.writeCompressed(new Uint8Array(0), 128 * KiB);
    await disk.backend.write(new Uint8Array(0), 128 * KiB);
    expect(store.changes).toBe(0);
    await disk.close();
  });
});

describe("a file that was cut off", () => {
  it("at any place: an error or what was there, never zeroes for data", async () => {
    const whole = await image();
    for (let at = 0; at < whole.length; at += at < 1024 ? 13 : 8191) {
      const bytes = whole.slice(0, at);
      const store = new LogStore(bytes);
      const disk = await openBytes(bytes, true, store).catch(typed);
      if (!disk) continue;
      const piece = new Uint8Array(100 * KiB);
      const seen = await disk.backend.read(piece, 10 * KiB).then(() => true, typed);
      if (seen) expect(piece.every((byte) => byte === 7)).toBe(true);
      await disk.close();
      expect(store.changes).toBe(0);
    }
  });
});

function typed(error: unknown): null {
  if (!(error instanceof BlockError)) throw error;
  return null;
}

async function expectRefusal(disk: Disk): Promise<void> {
  const write = disk.backend.write(new Uint8Array(65536).fill(1), 0);
  await expect(write).rejects.toMatchObject({ errno: "EIO" });
}

async function close(disk: Disk): Promise<void> {
  await disk.backend.flush().catch(typed);
  await disk.close().catch(typed);
}

async function withDisk<T>(
  bytes: Uint8Array,
  readOnly: boolean,
  use: (disk: Disk) => Promise<T>,
): Promise<T> {
  const disk = await openBytes(bytes, readOnly);
  try {
    return await use(disk);
  } finally {
    await disk.close();
  }
}
