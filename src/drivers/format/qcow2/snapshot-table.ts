/**
 * The snapshot table: entries of any length, one behind the other.
 *
 *      0 l1_table_offset  8 l1_size  12 id length  14 name length  16 date  24 clock  32 state size
 *     36 extra data length │ extra data │ id │ name │ padding to a multiple of 8
 *
 * Extra data: 0 state size as u64, 8 disk size, 16 instruction count (all ones: none), then what we
 * do not know. An entry that is kept is written as it was read, with all of that.
 */

import {
  alignUp,
  MiB,
  readU16,
  readU32,
  writeU16,
  writeU32,
  writeU64,
} from "../../../base/bytes.ts";
import { BlockError } from "../../../base/errors.ts";
import type { BlockChild } from "../../../block/child.ts";
import type { SnapshotInfo } from "../../../block/driver.ts";
import type { Header } from "./header.ts";
import { L1_BYTES_MAX, type Layout } from "./layout.ts";

export const FIXED_BYTES = 40;
const EXTRA_BYTES = 24;
export const EXTRA_BYTES_MAX = 1024;
/** Version 3 must tell the state's and the disk's size in the extra data. */
export const V3_EXTRA_BYTES_MIN = 16;
export const SNAPSHOT_TABLE_BYTES_MAX = 64 * MiB;
const WINDOW_BYTES = 64 * 1024;

/** An L1 table in the file. */
export interface L1Place {
  readonly offset: number;
  readonly entries: number;
}

/** Reads the table in pieces: its entries are short, and may be many. */
export class TableReader {
  readonly #file: BlockChild;
  #window = new Uint8Array(0);
  #windowAt = 0;

  constructor(file: BlockChild) {
    this.#file = file;
  }

  /** @returns bytes of the file, which has them; until the next call */
  async read(from: number, bytes: number): Promise<Uint8Array> {
    if (from < this.#windowAt || from + bytes > this.#windowAt + this.#window.length) {
      const length = Math.min(Math.max(bytes, WINDOW_BYTES), this.#file.length - from);
      this.#window = new Uint8Array(length);
      this.#windowAt = from;
      await this.#file.read(this.#window, from);
    }
    const at = from - this.#windowAt;
    return this.#window.subarray(at, at + bytes);
  }
}

export interface SnapshotEntry {
  /** As the entry says: see isPossibleL1(). */
  readonly l1: L1Place;
  readonly info: SnapshotInfo;
  /** The whole entry as it is in the table, padding included. */
  readonly raw: Uint8Array;
}

/**
 * Reads the table in pieces of 64 KiB, and keeps what is in it.
 *
 * @throws BlockError EINVAL that names the snapshot and the field
 */
export async function readSnapshots(file: BlockChild, header: Header): Promise<SnapshotEntry[]> {
  const start = header.snapshotsOffset;
  const entries: SnapshotEntry[] = [];
  const table = new TableReader(file);
  let at = start;
  const read = (bytes: number, index: number) => {
    if (at + bytes > file.length) throw invalid(index, "lies past the end of the file");
    return table.read(at, bytes);
  };

  for (let i = 0; i < header.snapshotCount; i++) {
    const fixed = await read(FIXED_BYTES, i);
    const extra = readU32(fixed, 36);
    if (extra > EXTRA_BYTES_MAX) {
      throw invalid(i, `has ${extra} bytes of extra data; at most ${EXTRA_BYTES_MAX} are allowed`);
    }
    if (header.version === 3 && extra < V3_EXTRA_BYTES_MIN) {
      throw invalid(i, `has ${extra} bytes of extra data; version 3 needs ${V3_EXTRA_BYTES_MIN}`);
    }
    const names = readU16(fixed, 12) + readU16(fixed, 14);
    const bytes = FIXED_BYTES + extra + names;
    if (at + bytes - start > SNAPSHOT_TABLE_BYTES_MAX) {
      throw invalid(i, `makes the table longer than ${SNAPSHOT_TABLE_BYTES_MAX} bytes`);
    }
    // The padding of the last entry may be left out at the file's end.
    const raw = new Uint8Array(alignUp(bytes, 8));
    raw.set(await read(bytes, i));
    entries.push(parseEntry(raw, header));
    at += raw.length;
  }
  return entries;
}

export function parseEntry(raw: Uint8Array, header: Header): SnapshotEntry {
  const extra = readU32(raw, 36);
  const idAt = FIXED_BYTES + extra;
  const nameAt = idAt + readU16(raw, 12);
  const icount = extra >= 24 ? readIcount(raw, FIXED_BYTES + 16) : undefined;
  return {
    l1: { offset: roughly(raw, 0), entries: readU32(raw, 8) },
    info: {
      id: text(raw.subarray(idAt, nameAt)),
      name: text(raw.subarray(nameAt, nameAt + readU16(raw, 14))),
      vmStateBytes: extra >= 8 ? roughly(raw, FIXED_BYTES) : readU32(raw, 32),
      dateSeconds: readU32(raw, 16),
      dateNanoseconds: readU32(raw, 20),
      clockNanoseconds: roughly(raw, 24),
      diskBytes: extra >= 16 ? roughly(raw, FIXED_BYTES + 8) : header.size,
      ...(icount !== undefined && { icount }),
    },
    raw,
  };
}

function readIcount(raw: Uint8Array, at: number): number | undefined {
  return readU32(raw, at) === 0xffffffff ? undefined : roughly(raw, at);
}

/**
 * A number of 64 bits; past 2^53 its last digits are lost. One snapshot that says too much of itself must
 * not keep the others, and the disk, from being used: a disk of such a size is refused when it is to be
 * the disk again, from the rest nothing is worked out. In the file the entry stays as it is.
 */
function roughly(raw: Uint8Array, at: number): number {
  return readU32(raw, at) * 2 ** 32 + readU32(raw, at + 4);
}

function text(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

/** A new entry, as it goes into the table. @param info without state */
export function makeEntry(info: SnapshotInfo, l1: L1Place): SnapshotEntry {
  const id = new TextEncoder().encode(info.id);
  const name = new TextEncoder().encode(info.name);
  const raw = new Uint8Array(alignUp(FIXED_BYTES + EXTRA_BYTES + id.length + name.length, 8));
  writeU64(raw, 0, l1.offset);
  writeU32(raw, 8, l1.entries);
  writeU16(raw, 12, id.length);
  writeU16(raw, 14, name.length);
  writeU32(raw, 16, info.dateSeconds % 2 ** 32);
  writeU32(raw, 20, info.dateNanoseconds);
  writeU64(raw, 24, info.clockNanoseconds);
  writeU32(raw, 36, EXTRA_BYTES);
  writeU64(raw, FIXED_BYTES + 8, info.diskBytes);
  if (info.icount === undefined) raw.fill(0xff, FIXED_BYTES + 16, FIXED_BYTES + 24);
  else writeU64(raw, FIXED_BYTES + 16, info.icount);
  raw.set(id, FIXED_BYTES + EXTRA_BYTES);
  raw.set(name, FIXED_BYTES + EXTRA_BYTES + id.length);
  return { l1, info, raw };
}

/** The entry with all that version 3 asks for in its extra data. */
export function withV3Extra(entry: SnapshotEntry): SnapshotEntry {
  const { raw, info } = entry;
  const extra = readU32(raw, 36);
  if (extra >= V3_EXTRA_BYTES_MIN) return entry;
  const names = raw.subarray(FIXED_BYTES + extra);
  const longer = new Uint8Array(alignUp(FIXED_BYTES + EXTRA_BYTES + names.length, 8));
  longer.set(raw.subarray(0, FIXED_BYTES));
  writeU32(longer, 36, EXTRA_BYTES);
  if (extra >= 8) longer.set(raw.subarray(FIXED_BYTES, FIXED_BYTES + 8), FIXED_BYTES);
  else writeU64(longer, FIXED_BYTES, info.vmStateBytes);
  writeU64(longer, FIXED_BYTES + 8, info.diskBytes);
  longer.fill(0xff, FIXED_BYTES + 16, FIXED_BYTES + 24);
  longer.set(names, FIXED_BYTES + EXTRA_BYTES);
  return { ...entry, raw: longer };
}

export function tableBytesOf(entries: readonly SnapshotEntry[]): number {
  let bytes = 0;
  for (const { raw } of entries) bytes += raw.length;
  return bytes;
}

/** By its last digits, which an offset past 2^53 has lost. */
export function hasAlignedL1({ raw }: SnapshotEntry, { clusterBytes }: Layout): boolean {
  return readU32(raw, 4) % clusterBytes === 0;
}

/** True if an L1 table can be where an entry says: a wrong one is only found when it is used. */
export function isPossibleL1(entry: SnapshotEntry, { layout }: Header): boolean {
  const { offset, entries } = entry.l1;
  if (entries * 8 > L1_BYTES_MAX || !Number.isSafeInteger(offset)) return false;
  return hasAlignedL1(entry, layout);
}

function invalid(index: number, problem: string): BlockError {
  return new BlockError("EINVAL", `Invalid qcow2 snapshot table: snapshot ${index} ${problem}`);
}
