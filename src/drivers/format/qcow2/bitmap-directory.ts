/**
 * The directory of an image's dirty bitmaps, and the tables that it leads to:
 *
 *     header extension ──▶ directory: one entry for each bitmap ──▶ table ──▶ clusters of bits
 *
 *     extension   0 number u32   4 reserved   8 directory bytes u64   16 directory offset u64
 *     entry       0 table offset u64   8 table entries u32   12 flags u32   16 type u8
 *                17 granularity bits u8   18 name bytes u16   20 extra data bytes u32
 *                24 extra data │ name │ padding to a multiple of 8
 *     table       u64 each: 0 the cluster's bits are all 0, 1 all 1, else offset of the cluster
 *
 * Bit 0 of a cluster of bits is the lowest of its first byte. Source: QEMU docs/interop/qcow2.txt; limits of
 * QEMU's block/qcow2-bitmap.c.
 */

import { alignUp, MiB, readU16, readU32, readU64 } from "../../../base/bytes.ts";
import { BlockError } from "../../../base/errors.ts";
import { type Extensions, ExtensionType } from "./extensions.ts";
import { Autoclear, type Header } from "./header.ts";
import type { Image } from "./image.ts";
import { hostOffsetOf, type Layout } from "./layout.ts";

export const EXTENSION_BYTES = 24;
export const ENTRY_BYTES = 24;
export const BITMAPS_MAX = 65535;
/** QEMU takes up to 64 MiB; names and extra data of real ones are short. */
export const DIRECTORY_BYTES_MAX = 4 * MiB;
/** Of one bitmap's bits. */
export const BITMAP_BYTES_MAX = 512 * MiB;
const GRANULARITY_BITS_MIN = 9;
const GRANULARITY_BITS_MAX = 31;
const NAME_BYTES_MAX = 1023;

/** Field offsets of a directory entry. */
export const ENTRY = { tableOffset: 0, tableEntries: 8, flags: 12, type: 16 } as const;

export const Flag = { inUse: 1, auto: 2, extraDataCompatible: 4 } as const;
const FLAGS_KNOWN = 7;
/** The only type there is. */
export const DIRTY_TRACKING = 1;

/** Where the directory is. */
export interface Directory {
  readonly count: number;
  readonly offset: number;
  readonly bytes: number;
}

export interface DirectoryEntry {
  readonly name: string;
  readonly granularityBits: number;
  readonly flags: number;
  readonly tableOffset: number;
  readonly tableEntries: number;
  /** The bits may be relied on. */
  readonly isUsable: boolean;
  /** As it is in the directory, padding included. */
  readonly raw: Uint8Array;
}

/**
 * The image's directory; null if there is none that holds, as when somebody wrote to the image who
 * does not know of bitmaps.
 *
 * @throws BlockError EINVAL that names the field
 */
export function findDirectory(header: Header, extensions: Extensions): Directory | null {
  if ((header.autoclear.lo & Autoclear.bitmaps) === 0) return null;
  const data = extensions.list.find(({ type }) => type === ExtensionType.bitmaps)?.data;
  if (!data) return null;
  if (data.length !== EXTENSION_BYTES) {
    throw invalid(`the header extension has ${data.length} bytes, not ${EXTENSION_BYTES}`);
  }
  const count = readU32(data, 0);
  const bytes = readU64(data, 8, "bitmap_directory_size");
  const offset = readU64(data, 16, "bitmap_directory_offset");
  const { clusterBytes } = header.layout;
  if (count === 0 || count > BITMAPS_MAX) {
    throw invalid(`nb_bitmaps is ${count}; 1 to ${BITMAPS_MAX} are allowed`);
  }
  if (bytes < count * ENTRY_BYTES || bytes > DIRECTORY_BYTES_MAX) {
    throw invalid(
      `bitmap_directory_size is ${bytes}; ${count * ENTRY_BYTES} to ${DIRECTORY_BYTES_MAX} are allowed`,
    );
  }
  if (offset === 0 || offset % clusterBytes !== 0) {
    throw invalid(`bitmap_directory_offset is ${offset}, not a cluster's first byte`);
  }
  return { count, offset, bytes };
}

/**
 * All that the image knows of its bitmaps, but for their bits.
 *
 * @throws BlockError EINVAL that names the bitmap and the field, and what reading throws
 */
export async function readDirectory(image: Image): Promise<readonly DirectoryEntry[]> {
  const { file, header, extensions } = image;
  const directory = findDirectory(header, extensions);
  if (!directory) return [];
  const { offset, bytes, count } = directory;
  if (offset + bytes > file.length) throw invalid(`the directory at ${offset} is cut off`);
  const raw = new Uint8Array(bytes);
  await file.read(raw, offset);
  const entries: DirectoryEntry[] = [];
  const names = new Set<string>();
  let at = 0;
  for (let i = 0; i < count; i++) {
    const entry = parseEntry(raw, at, i, image);
    if (names.has(entry.name)) throw invalid(`there are two bitmaps '${entry.name}'`);
    names.add(entry.name);
    entries.push(entry);
    at += entry.raw.length;
  }
  if (at !== bytes) throw invalid(`the directory has ${bytes} bytes; its entries have ${at}`);
  return entries;
}

function parseEntry(raw: Uint8Array, at: number, index: number, image: Image): DirectoryEntry {
  const bad = (problem: string) => invalid(`bitmap ${index} ${problem}`);
  if (at + ENTRY_BYTES > raw.length) throw bad("is cut off");
  const nameBytes = readU16(raw, at + 18);
  const extraBytes = readU32(raw, at + 20);
  const bytes = alignUp(ENTRY_BYTES + extraBytes + nameBytes, 8);
  if (at + bytes > raw.length) throw bad("is cut off");
  if (nameBytes === 0 || nameBytes > NAME_BYTES_MAX) {
    throw bad(`has a name of ${nameBytes} bytes; 1 to ${NAME_BYTES_MAX} are allowed`);
  }
  const flags = readU32(raw, at + ENTRY.flags);
  if ((flags & ~FLAGS_KNOWN) !== 0) throw bad(`has unknown flags, 0x${flags.toString(16)}`);
  const type = raw[at + ENTRY.type]!;
  if (type !== DIRTY_TRACKING) throw bad(`is of type ${type}; ${DIRTY_TRACKING} is allowed`);
  const granularityBits = raw[at + 17]!;
  if (granularityBits < GRANULARITY_BITS_MIN || granularityBits > GRANULARITY_BITS_MAX) {
    throw bad(
      `has ${granularityBits} granularity bits; ${GRANULARITY_BITS_MIN} to ` +
        `${GRANULARITY_BITS_MAX} are allowed`,
    );
  }
  const isInUse = (flags & Flag.inUse) !== 0;
  const table = {
    tableOffset: readU64(raw, at + ENTRY.tableOffset, "bitmap_table_offset"),
    tableEntries: readU32(raw, at + ENTRY.tableEntries),
  };
  const problem = tableProblem(image, table, isInUse ? 0 : 2 ** granularityBits);
  if (problem) throw bad(problem);
  const nameAt = at + ENTRY_BYTES + extraBytes;
  return {
    ...table,
    name: decodeName(raw.subarray(nameAt, nameAt + nameBytes), index),
    granularityBits,
    flags,
    // What we do not know of may say that the bits mean something else.
    isUsable: !isInUse && (extraBytes === 0 || (flags & Flag.extraDataCompatible) !== 0),
    raw: raw.slice(at, at + bytes),
  };
}

/** @param granularity 0: the disk may have got another size since, so the table may not fit it */
function tableProblem(
  { layout, header, file, guard }: Image,
  table: { readonly tableOffset: number; readonly tableEntries: number },
  granularity: number,
): string | null {
  const { tableOffset: offset, tableEntries: entries } = table;
  const { clusterBytes } = layout;
  const most = BITMAP_BYTES_MAX / clusterBytes;
  if (entries === 0 || entries > most) {
    return `has a table of ${entries} entries; 1 to ${most} are allowed`;
  }
  const needed = granularity === 0 ? entries : tableEntriesFor(layout, header.size, granularity);
  if (entries !== needed) return `has a table of ${entries} entries; the disk needs ${needed}`;
  if (offset === 0 || offset % clusterBytes !== 0) {
    return `has its table at ${offset}, which is not a cluster's first byte`;
  }
  if (offset + entries * 8 > file.length) return `has a table that is cut off`;
  const area = guard.find(offset, alignUp(entries * 8, clusterBytes));
  return area === null ? null : `has its table on the image's ${area}`;
}

/** Entries of the table of a bitmap; 1 at least. */
export function tableEntriesFor(layout: Layout, size: number, granularity: number): number {
  const bits = Math.ceil(size / granularity);
  return Math.max(1, Math.ceil(bits / (layout.clusterBytes * 8)));
}

function decodeName(bytes: Uint8Array, index: number): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw invalid(`bitmap ${index} has a name that is not UTF-8`);
  }
}

/** What one entry of a table says. */
export type TableEntry =
  | { readonly kind: "clear" | "set" }
  | { readonly kind: "data"; readonly offset: number }
  | { readonly kind: "invalid" };

export function readTableEntry(table: Uint8Array, at: number, image: Image): TableEntry {
  const hi = readU32(table, at);
  const lo = readU32(table, at + 4);
  const offset = hostOffsetOf(hi, lo);
  if ((hi & 0xff000000) !== 0 || (lo & 0x1fe) !== 0) return { kind: "invalid" };
  if (offset === 0) return { kind: lo === 0 ? "clear" : "set" };
  const { clusterBytes } = image.layout;
  const isPlace = (lo & 1) === 0 && offset % clusterBytes === 0;
  if (!isPlace || offset + clusterBytes > image.file.length) return { kind: "invalid" };
  return { kind: "data", offset };
}

/** Bytes of table that are looked at in one piece. */
const PIECE_BYTES = 64 * 1024;

/** The entries of a table, first to last, at most `most`. @throws BlockError what reading throws */
export async function* tableEntries(
  image: Image,
  { tableOffset, tableEntries: count }: DirectoryEntry,
  most = Number.POSITIVE_INFINITY,
): AsyncGenerator<TableEntry> {
  const bytes = Math.min(count, most) * 8;
  for (let at = 0; at < bytes; at += PIECE_BYTES) {
    const piece = new Uint8Array(Math.min(PIECE_BYTES, bytes - at));
    await image.file.read(piece, tableOffset + at);
    for (let i = 0; i < piece.length; i += 8) yield readTableEntry(piece, i, image);
  }
}

export function invalid(problem: string): BlockError {
  return new BlockError("EINVAL", `Invalid qcow2 bitmaps: ${problem}`);
}
