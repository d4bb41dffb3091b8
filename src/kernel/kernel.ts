/**
 * The wasm kernels, typed and checked.
 *
 * A kernel works on wasm memory only. A buffer that lies there already (one from allocate(), or a
 * part of one) is used where it is; any other costs a copy, see scratch.ts. Every range is checked
 * here, since nothing is checked below: a wrong index would write over somebody else's buffer.
 */

import { assert } from "../base/errors.ts";
import type { XtsKey } from "./aes.ts";
import { Arena } from "./arena.ts";
import { checkFields, checkList, checkRange } from "./checks.ts";
import { ARENA_START, instantiate, type KernelExports, SCRATCH_BYTES } from "./module.ts";
import { type ClusterRun, unpackRun } from "./runs.ts";
import { Scratch } from "./scratch.ts";

export type { ClusterKind, ClusterRun } from "./runs.ts";

const SUBCLUSTERS = 32;
const SECTOR_BYTES = 512;
/** How many L2 entries of a foreign table are looked at first, and how much further each time. */
const FIRST_ENTRIES = 64;
const FURTHER = 8;

/**
 * Starts a kernel.
 *
 * @param bytesOrModule build/kernel.wasm, or what was compiled from it
 * @throws BlockError ENOTSUP if it does not run on this machine, ENOMEM if it has no room
 */
export async function loadKernel(
  bytesOrModule: BufferSource | WebAssembly.Module,
): Promise<Kernel> {
  return new Kernel(await instantiate(bytesOrModule));
}

export class Kernel {
  readonly #wasm: KernelExports;
  readonly #scratch: Scratch;
  readonly #arena: Arena;

  constructor(wasm: KernelExports) {
    this.#wasm = wasm;
    this.#scratch = new Scratch(wasm.memory.buffer);
    this.#arena = new Arena(wasm.memory.buffer, ARENA_START);
  }

  /** All the memory there is, for buffers and scratch: fixed. */
  get memoryBytes(): number {
    return this.#wasm.memory.buffer.byteLength;
  }

  /** What allocate() could still hand out, though perhaps not in one piece. */
  get freeBytes(): number {
    return this.#arena.freeBytes;
  }

  /**
   * A buffer in wasm memory, or null when there is no room. Its contents are anything, zero them if
   * they matter. It stays valid until free().
   *
   * @param bytes > 0; memory is taken in granules of 4 KiB
   */
  allocate(bytes: number): Uint8Array<ArrayBuffer> | null {
    return this.#arena.allocate(bytes);
  }

  /** Takes back a buffer from allocate(): that one, not a part of it. */
  free(buf: Uint8Array): void {
    this.#arena.free(buf);
  }

  /** Whether a buffer lies in wasm memory, where kernels use it without copying. */
  owns(buf: ArrayBufferView): boolean {
    return this.#scratch.owns(buf);
  }

  /** Whether all bytes are zero. No bytes at all are zero, too. */
  isZero(buf: Uint8Array): boolean {
    let zero = true;
    this.#scratch.pieces(buf, 0, buf.length, (address, _at, bytes) => {
      zero = this.#wasm.isZero(address, bytes) !== 0;
      return zero;
    });
    return zero;
  }

  /**
   * How many bytes from the start on have one answer to isZero(), asked granule by granule.
   *
   * @param buf not empty; a short last granule is asked for what there is of it
   * @param granule bytes, > 0
   * @returns `bytes` > 0, whole granules or up to the end; `zero`: all of them are zeroes, or else
   *   every granule holds data
   */
  zeroRun(buf: Uint8Array, granule: number): { bytes: number; zero: boolean } {
    assert(buf.length > 0, "a zero run is asked of a buffer that is not empty");
    assert(Number.isSafeInteger(granule) && granule > 0, "a granule is a whole number above zero");
    if (this.owns(buf)) {
      // Past the buffer's length one granule is like another, but not every number fits a u32.
      const result = this.#wasm.zeroRun(buf.byteOffset, buf.length, Math.min(granule, buf.length));
      return { bytes: result >>> 1, zero: (result & 1) === 1 };
    }
    const zero = this.isZero(buf.subarray(0, granule));
    let bytes = Math.min(granule, buf.length);
    while (bytes < buf.length && this.isZero(buf.subarray(bytes, bytes + granule)) === zero) {
      bytes = Math.min(bytes + granule, buf.length);
    }
    return { bytes, zero };
  }

  /** The offset of the first byte in which two buffers of one length differ, or -1. */
  firstDifference(a: Uint8Array, b: Uint8Array): number {
    assert(a.length === b.length, "buffers that are compared are of one length");
    if (this.owns(a) && this.owns(b)) {
      return this.#wasm.firstDifference(a.byteOffset, b.byteOffset, a.length);
    }
    let found = -1;
    for (let at = 0; at < a.length && found < 0; at += SCRATCH_BYTES) {
      const bytes = Math.min(SCRATCH_BYTES, a.length - at);
      const left = this.#scratch.lend(a, at, bytes, 0);
      const difference = this.#wasm.firstDifference(
        left,
        this.#scratch.lend(b, at, bytes, 1),
        bytes,
      );
      if (difference >= 0) found = at + difference;
    }
    return found;
  }

  /** Copies the source to the target's front; they may overlap. The target is as long or longer. */
  copy(target: Uint8Array, source: Uint8Array): void {
    assert(source.length <= target.length, "a copy fits its target");
    if (this.owns(target) && this.owns(source)) {
      this.#wasm.copy(target.byteOffset, source.byteOffset, source.length);
    } else {
      target.set(source);
    }
  }

  /**
   * Copies clusters source[indexes[i]] to target[i], for every i. Target and source must not
   * overlap.
   *
   * @param indexes in clusters of the source, any order, repeats allowed
   */
  gather(target: Uint8Array, source: Uint8Array, indexes: Uint32Array, clusterBytes: number): void {
    checkList(source, target, indexes, clusterBytes);
    if (this.owns(target) && this.owns(source)) {
      this.#scratch.list(indexes, (list, first, count) => {
        const front = target.byteOffset + first * clusterBytes;
        this.#wasm.gather(front, source.byteOffset, list, count, clusterBytes);
      });
      return;
    }
    indexes.forEach((index, i) => {
      const cluster = source.subarray(index * clusterBytes, (index + 1) * clusterBytes);
      target.set(cluster, i * clusterBytes);
    });
  }

  /**
   * Copies clusters source[i] to target[indexes[i]], for every i, in order. Target and source must
   * not overlap.
   *
   * @param indexes in clusters of the target, any order; of repeats the last one wins
   */
  scatter(
    target: Uint8Array,
    source: Uint8Array,
    indexes: Uint32Array,
    clusterBytes: number,
  ): void {
    checkList(target, source, indexes, clusterBytes);
    if (this.owns(target) && this.owns(source)) {
      this.#scratch.list(indexes, (list, first, count) => {
        const front = source.byteOffset + first * clusterBytes;
        this.#wasm.scatter(target.byteOffset, front, list, count, clusterBytes);
      });
      return;
    }
    indexes.forEach((index, i) => {
      const cluster = source.subarray(i * clusterBytes, (i + 1) * clusterBytes);
      target.set(cluster, index * clusterBytes);
    });
  }

  /**
   * The run of like entries in a standard L2 table from `index` on: of one kind, and where there are
   * host clusters, those side by side and alike in COPIED.
   *
   * Compressed and invalid runs are of one entry. In version 2 there is no ZERO bit: there the zero
   * kinds mean an invalid entry.
   *
   * @param table whole or part of an L2 table, as on disk, at most 2 MiB
   * @param index first entry, in this table
   * @param limit most entries to look at, > 0, all in this table
   * @param clusterBits log2 of the cluster size in bytes, 9 .. 21
   * @param externalData the image has an external data file
   */
  l2Run(
    table: Uint8Array,
    index: number,
    limit: number,
    clusterBits: number,
    externalData: boolean,
  ): ClusterRun {
    checkRange(index, limit, table.length / 8, "an L2 run lies in its table");
    assert(limit > 0, "an L2 run has a first entry");
    assert(9 <= clusterBits && clusterBits <= 21, "clusters have 2^9 to 2^21 bytes");
    const external = Number(externalData);
    // The usual case, without detours: where runs are short, calls are what counts (measured).
    if (this.owns(table)) {
      return unpackRun(this.#wasm.l2Run(table.byteOffset, index, limit, clusterBits, external));
    }
    return this.#look(table, limit, FIRST_ENTRIES, (reach) => {
      const address = this.#scratch.lend(table, index * 8, reach * 8);
      return this.#wasm.l2Run(address, 0, reach, clusterBits, external);
    });
  }

  /**
   * l2Run() over extended entries, all counted in subclusters; compressed and invalid runs end with
   * their entry, so one starting at subcluster 0 reports 32 or the limit.
   *
   * @param index entry of the first subcluster
   * @param subcluster the first one, in that entry, 0 .. 31
   * @param limitSubclusters most subclusters to look at, > 0, all in this table
   * @param clusterBits log2 of the cluster (not subcluster) size in bytes, 14 .. 21
   */
  l2RunExtended(
    table: Uint8Array,
    index: number,
    subcluster: number,
    limitSubclusters: number,
    clusterBits: number,
    externalData: boolean,
  ): ClusterRun {
    const inTable = "an L2 run lies in its table";
    const entries = Math.floor(table.length / 16);
    const first = index * SUBCLUSTERS + subcluster;
    checkRange(index, 1, entries, inTable);
    checkRange(subcluster, 1, SUBCLUSTERS, "a subcluster lies in its cluster");
    checkRange(first, limitSubclusters, entries * SUBCLUSTERS, inTable);
    assert(limitSubclusters > 0, "an L2 run has a first subcluster");
    assert(14 <= clusterBits && clusterBits <= 21, "extended clusters have 2^14 to 2^21 bytes");
    const external = Number(externalData);
    return this.#look(table, limitSubclusters, FIRST_ENTRIES * SUBCLUSTERS, (reach) => {
      const touched = Math.ceil((subcluster + reach) / SUBCLUSTERS);
      const address = this.#scratch.lend(table, index * 16, touched * 16);
      return this.#wasm.l2RunExtended(address, 0, subcluster, reach, clusterBits, external);
    });
  }

  /**
   * The first run of zero refcounts in a refcount block, cut at `want`, or null if there is none.
   *
   * @param block as on disk, a multiple of 8 bytes
   * @param order the header's refcount_order: a refcount has 1 << order bits, order 0 .. 6
   * @param start first index to look at
   * @param limit most refcounts to look at, all in the block
   * @param want most that the caller can use, > 0
   * @returns `index` in the block, `count` 1 .. want
   */
  findFreeRun(
    block: Uint8Array,
    order: number,
    start: number,
    limit: number,
    want: number,
  ): { index: number; count: number } | null {
    checkFields(block, order, start, limit);
    assert(Number.isSafeInteger(want) && want > 0, "at least one free refcount is wanted");
    const index = this.#find(block, order, start, start + limit, (address, from, to) =>
      this.#wasm.refcountNextFree(address, order, from, to),
    );
    if (index < 0) return null;
    const end = Math.min(index + want, start + limit);
    const used = this.#find(block, order, index, end, (address, from, to) =>
      this.#wasm.refcountNextUsed(address, order, from, to),
    );
    return { index, count: (used < 0 ? end : used) - index };
  }

  /** A refcount, exact below 2^53; 2^53 itself stands for anything from there on. */
  refcountGet(block: Uint8Array, order: number, index: number): number {
    checkFields(block, order, index, 1);
    const perWord = 64 / 2 ** order;
    const address = this.#scratch.lend(block, Math.floor(index / perWord) * 8, 8);
    return this.#wasm.refcountGet(address, order, index % perWord);
  }

  /**
   * Adds `delta` to `count` refcounts from `index` on, or to none of them.
   *
   * @param delta whole, |delta| < 2^31
   * @returns -1, or the first index whose refcount would leave its range; nothing has changed then
   */
  refcountAdd(
    block: Uint8Array,
    order: number,
    index: number,
    count: number,
    delta: number,
  ): number {
    checkFields(block, order, index, count);
    assert(Number.isInteger(delta) && Math.abs(delta) < 2 ** 31, "a refcount delta is an i32");
    if (count === 0) return -1;
    const perWord = 64 / 2 ** order;
    const offset = Math.floor(index / perWord) * 8;
    const bytes = Math.ceil((index + count) / perWord) * 8 - offset;
    // All or nothing: the range must be in scratch as a whole.
    const address = this.#scratch.lend(block, offset, bytes);
    const wrong = this.#wasm.refcountAdd(address, order, index % perWord, count, delta);
    if (wrong >= 0) return (offset / 8) * perWord + wrong;
    this.#scratch.giveBack(block, offset, bytes, address);
    return -1;
  }

  /** The first set bit in start .. end-1, or -1. @param map a multiple of 8 bytes */
  bitmapNextSet(map: Uint8Array, start: number, end: number): number {
    checkFields(map, 0, start, end - start);
    return this.#find(map, 0, start, end, this.#wasm.bitmapNextSet);
  }

  /** The first clear bit in start .. end-1, or -1. */
  bitmapNextClear(map: Uint8Array, start: number, end: number): number {
    checkFields(map, 0, start, end - start);
    return this.#find(map, 0, start, end, this.#wasm.bitmapNextClear);
  }

  /** Sets `count` bits from `start` on. */
  bitmapSet(map: Uint8Array, start: number, count: number): void {
    this.#fill(map, start, count, this.#wasm.bitmapSet);
  }

  /** Clears `count` bits from `start` on. */
  bitmapClear(map: Uint8Array, start: number, count: number): void {
    this.#fill(map, start, count, this.#wasm.bitmapClear);
  }

  /** How many of `count` bits from `start` on are set. */
  bitmapCount(map: Uint8Array, start: number, count: number): number {
    checkFields(map, 0, start, count);
    let set = 0;
    this.#scratch.fields(map, 0, start, start + count, (address, from, to) => {
      set += this.#wasm.bitmapCount(address, from, to - from);
      return true;
    });
    return set;
  }

  /** Sets in the target what is set in the source; both of one length, a multiple of 8 bytes. */
  bitmapMerge(target: Uint8Array, source: Uint8Array): void {
    assert(target.length === source.length, "bitmaps that are merged are of one length");
    assert(target.length % 8 === 0, "a bitmap is whole words");
    for (let at = 0; at < target.length; at += SCRATCH_BYTES) {
      const bytes = Math.min(SCRATCH_BYTES, target.length - at);
      const address = this.#scratch.lend(target, at, bytes, 0);
      this.#wasm.bitmapMerge(address, this.#scratch.lend(source, at, bytes, 1), bytes);
      this.#scratch.giveBack(target, at, bytes, address);
    }
  }

  /**
   * Encrypts or decrypts whole sectors of 512 bytes in place: AES-XTS, the sector's number as IV.
   *
   * @param sector number of the first one
   */
  xts(buf: Uint8Array, key: XtsKey, sector: number, way: "encrypt" | "decrypt"): void {
    assert(buf.length % SECTOR_BYTES === 0, "whole sectors are encrypted");
    checkRange(sector, buf.length / SECTOR_BYTES, 2 ** 53 - 1, "a sector has a number");
    const data = way === "encrypt" ? key.encryption : key.decryption;
    const keys = new Uint8Array(data.length + key.tweak.length);
    keys.set(data);
    keys.set(key.tweak, data.length);
    const address = this.#scratch.lend(keys, 0, keys.length, 1);
    this.#scratch.pieces(buf, 0, buf.length, (at, done, bytes) => {
      const first = sector + done / SECTOR_BYTES;
      this.#wasm.xtsSectors(
        address,
        address + data.length,
        key.rounds,
        at,
        bytes / SECTOR_BYTES,
        first >>> 0,
        Math.floor(first / 2 ** 32),
        Number(way === "decrypt"),
      );
      this.#scratch.giveBack(buf, done, bytes, at);
      return true;
    });
    // Keys are not left lying about where every kernel works.
    this.#scratch.lend(keys.fill(0), 0, keys.length, 1);
  }

  /** What `look` says of a run; asked a little at first, and further while the run may go on. */
  #look(
    table: Uint8Array,
    limit: number,
    first: number,
    look: (reach: number) => number,
  ): ClusterRun {
    let reach = this.owns(table) ? limit : Math.min(first, limit);
    let packed = look(reach);
    while (packed >>> 4 === reach && reach < limit) {
      reach = Math.min(reach * FURTHER, limit);
      packed = look(reach);
    }
    return unpackRun(packed);
  }

  /** The first field of start .. end-1 that `next` finds in a piece, or -1. */
  #find(
    buf: Uint8Array,
    order: number,
    start: number,
    end: number,
    next: (address: number, from: number, to: number) => number,
  ): number {
    let found = -1;
    this.#scratch.fields(buf, order, start, end, (address, from, to, base) => {
      const hit = next(address, from, to);
      if (hit >= 0) found = base + hit;
      return hit < 0;
    });
    return found;
  }

  #fill(
    map: Uint8Array,
    start: number,
    count: number,
    fill: (address: number, from: number, count: number) => void,
  ): void {
    checkFields(map, 0, start, count);
    this.#scratch.fields(map, 0, start, start + count, (address, from, to, base) => {
      fill(address, from, to - from);
      this.#scratch.giveBack(map, base / 8, Math.ceil(to / 64) * 8, address);
      return true;
    });
  }
}
