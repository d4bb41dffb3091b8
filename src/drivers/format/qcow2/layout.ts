/**
 * The numbers of one image that follow from its header, and the entries of its tables as numbers.
 *
 * A guest offset is found in two steps, a refcount likewise:
 *
 *     guest offset ──▶ L1 entry ──▶ L2 table ──▶ L2 entry ──▶ host offset
 *     host cluster ──▶ refcount table entry ──▶ refcount block ──▶ refcount
 *
 * Entries are big-endian u64; here they are handled as two u32, `hi` and `lo`, because bit operators
 * cut to 32 bits. Source: QEMU docs/interop/qcow2.txt.
 */

import { readU32, writeU32 } from "../../../base/bytes.ts";
import { CorruptEntry } from "./corrupt-entry.ts";

export const CLUSTER_BITS_MIN = 9;
export const CLUSTER_BITS_MAX = 21;
export const EXTENDED_CLUSTER_BITS_MIN = 14;
export const L1_BYTES_MAX = 32 * 1024 * 1024;
export const REFCOUNT_TABLE_BYTES_MAX = 8 * 1024 * 1024;
/** Guest sizes and lengths are counted in sectors by everybody else. */
export const SECTOR_BYTES = 512;
/** Bit 63 of an entry, in its upper word: the refcount is exactly one. */
export const COPIED_HI = 0x80000000;
/** Bit 62, in the upper word. */
export const COMPRESSED_HI = 0x40000000;

/** What follows from cluster_bits, refcount_order and extended L2 entries. */
export interface Layout {
  readonly clusterBits: number;
  readonly clusterBytes: number;
  readonly extendedL2: boolean;
  /** 1, or 32 with extended L2 entries. */
  readonly subclusters: number;
  readonly subclusterBytes: number;
  /** All of a cluster's subclusters as a u32 mask. */
  readonly allSubclusters: number;
  readonly l2EntryBytes: number;
  readonly l2Entries: number;
  /** Guest bytes that one L2 table maps. */
  readonly l2CoverBytes: number;
  readonly refcountOrder: number;
  readonly refcountBlockEntries: number;
}

export function layoutOf(clusterBits: number, refcountOrder: number, extendedL2: boolean): Layout {
  const clusterBytes = 2 ** clusterBits;
  const subclusters = extendedL2 ? 32 : 1;
  const l2EntryBytes = extendedL2 ? 16 : 8;
  const l2Entries = clusterBytes / l2EntryBytes;
  return {
    clusterBits,
    clusterBytes,
    extendedL2,
    subclusters,
    subclusterBytes: clusterBytes / subclusters,
    allSubclusters: extendedL2 ? 0xffffffff : 1,
    l2EntryBytes,
    l2Entries,
    l2CoverBytes: l2Entries * clusterBytes,
    refcountOrder,
    refcountBlockEntries: (clusterBytes * 8) / 2 ** refcountOrder,
  };
}

/** Entries of an L1 table that maps `length` guest bytes. */
export function l1EntriesFor(layout: Layout, length: number): number {
  return Math.ceil(length / layout.l2CoverBytes);
}

/**
 * The offset in an L1 or refcount table entry, 0 if there is none.
 *
 * @param what names the entry in errors: "L1 entry 5"
 * @throws BlockError EIO if reserved bits are set, or it is not a cluster's first byte
 */
export function tableOffsetOf(
  page: Uint8Array,
  at: number,
  layout: Layout,
  reserved: { readonly hi: number; readonly lo: number },
  what: string,
): number {
  const hi = readU32(page, at);
  const lo = readU32(page, at + 4);
  const offset = hostOffsetOf(hi, lo);
  if (hi & reserved.hi || lo & reserved.lo || offset % layout.clusterBytes !== 0) {
    const shown = ((BigInt(hi) << 32n) | BigInt(lo)).toString(16);
    throw new CorruptEntry(`The image is corrupt: ${what} is 0x${shown}`);
  }
  return offset;
}

export const L1_RESERVED = { hi: 0x7f000000, lo: 0x1ff } as const;
/** A refcount block above 2^56 cannot be in any file, so those bits may as well be reserved. */
export const REFCOUNT_TABLE_RESERVED = { hi: 0xff000000, lo: 0x1ff } as const;

/** One L2 entry, of either size. A standard entry has one subcluster. */
export interface L2Entry {
  /** Host offset, -1 if there is no host cluster. With an external data file 0 is one. */
  readonly host: number;
  readonly copied: boolean;
  readonly compressed: boolean;
  /** One bit for each subcluster that has data; never both this and `zero`. */
  readonly allocated: number;
  /** One bit for each subcluster that reads as zeroes. */
  readonly zero: number;
}

/** Reads an entry that the kernel has not called invalid. */
export function readL2Entry(
  page: Uint8Array,
  at: number,
  layout: Layout,
  externalData: boolean,
): L2Entry {
  const hi = readU32(page, at);
  const lo = readU32(page, at + 4);
  if (hi & COMPRESSED_HI) {
    return { host: -1, copied: false, compressed: true, allocated: 0, zero: 0 };
  }
  const offset = hostOffsetOf(hi, lo);
  const copied = (hi & COPIED_HI) !== 0;
  const host = offset > 0 || (externalData && copied) ? offset : -1;
  if (layout.extendedL2) {
    const zero = readU32(page, at + 8);
    return { host, copied, compressed: false, allocated: readU32(page, at + 12), zero };
  }
  const zero = lo & 1;
  return { host, copied, compressed: false, allocated: host >= 0 && !zero ? 1 : 0, zero };
}

export function hostOffsetOf(hi: number, lo: number): number {
  return (hi & 0x00ffffff) * 2 ** 32 + ((lo & 0xfffffe00) >>> 0);
}

/** Writes an entry whose cluster, if it has one, is this image's alone or as `copied` says. */
export function writeL2Entry(page: Uint8Array, at: number, layout: Layout, entry: L2Entry): void {
  const offset = Math.max(0, entry.host);
  const copied = entry.host >= 0 && entry.copied ? COPIED_HI : 0;
  writeU32(page, at, (Math.floor(offset / 2 ** 32) | copied) >>> 0);
  const low = (offset % 2 ** 32) >>> 0;
  writeU32(page, at + 4, layout.extendedL2 ? low : (low | (entry.zero & 1)) >>> 0);
  if (layout.extendedL2) {
    writeU32(page, at + 8, entry.zero);
    writeU32(page, at + 12, entry.allocated);
  }
}

/** Where packed data lies in the file. */
export interface PackedPlace {
  /** First byte, any alignment. */
  readonly offset: number;
  /** Up to the end of the last sector; the data itself may end before. */
  readonly bytes: number;
}

/**
 * A compressed entry, x = 62 - (cluster_bits - 8):
 *
 *    63  62  61 ........ x  x-1 ................. 0
 *   ┌───┬───┬──────────────┬───────────────────────┐
 *   │ 0 │ 1 │ more sectors │ host offset, any byte │
 *   └───┴───┴──────────────┴───────────────────────┘
 */
export function readPackedPlace(hi: number, lo: number, clusterBits: number): PackedPlace {
  const hiBits = 62 - (clusterBits - 8) - 32;
  const offset = (hi & (2 ** hiBits - 1)) * 2 ** 32 + lo;
  const moreSectors = (hi & 0x3fffffff) >>> hiBits;
  return { offset, bytes: (moreSectors + 1) * SECTOR_BYTES - (offset % SECTOR_BYTES) };
}

/** Writes the compressed entry for `bytes` > 0 bytes at `offset`. */
export function writePackedPlace(
  page: Uint8Array,
  at: number,
  layout: Layout,
  offset: number,
  bytes: number,
): void {
  const hiBits = 62 - (layout.clusterBits - 8) - 32;
  const last = Math.floor((offset + bytes - 1) / SECTOR_BYTES);
  const moreSectors = last - Math.floor(offset / SECTOR_BYTES);
  const hi = (COMPRESSED_HI | (moreSectors << hiBits) | Math.floor(offset / 2 ** 32)) >>> 0;
  writeU32(page, at, hi);
  writeU32(page, at + 4, (offset % 2 ** 32) >>> 0);
  if (layout.extendedL2) page.fill(0, at + 8, at + 16);
}

/** First byte past the host offsets that a compressed entry can hold. */
export function packedOffsetEnd(clusterBits: number): number {
  return Math.min(2 ** (62 - (clusterBits - 8)), 2 ** 53);
}
