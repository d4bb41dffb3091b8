/**
 * All that one state of the disk refers to: its L2 tables one after the other, and the host clusters
 * behind each. For snapshots, whose tables no page holds: everything is read from the file, so what
 * is in memory must have been written first.
 *
 *     L1 table ──▶ L2 table, one at a time ──▶ references, runs of host clusters
 */

import { alignDown, alignUp, readU32 } from "../../../base/bytes.ts";
import { BlockError } from "../../../base/errors.ts";
import type { Image } from "./image.ts";
import { decodeEntry } from "./l2.ts";
import { COPIED_HI, L1_RESERVED, readPackedPlace, tableOffsetOf } from "./layout.ts";
import type { L1Place } from "./snapshot-table.ts";

export const L1_PIECE_BYTES = 64 * 1024;

export interface FoundTable {
  /** Of the L1 entry that leads to it. */
  readonly index: number;
  readonly offset: number;
  /** The L1 entry's COPIED flag. */
  readonly copied: boolean;
  /** The whole table: the visitor's to change until it is done. */
  readonly bytes: Uint8Array;
}

/** Host clusters side by side that one reference each leads to, from entry `entry` of a table on. */
export interface Reference {
  /** First host cluster, in clusters. */
  readonly cluster: number;
  readonly count: number;
  readonly entry: number;
  /** The entries' COPIED flag, the same in all; packed data never has it. */
  readonly copied: boolean;
  readonly packed: boolean;
}

/**
 * Visits every L2 table of an L1 table, in order. Memory: one cluster, and a piece of L1 table.
 *
 * @throws BlockError EIO if a table cannot be read or makes no sense; what the visitor throws
 */
export async function eachL2(
  image: Image,
  l1: L1Place,
  visit: (table: FoundTable) => Promise<void>,
): Promise<void> {
  const { file, kernel, layout } = image;
  const inside = kernel.allocate(layout.clusterBytes);
  const bytes = inside ?? new Uint8Array(layout.clusterBytes);
  // Nothing stops a damaged table from leading to one and the same place again and again.
  let left = Math.ceil(file.length / layout.clusterBytes);
  try {
    for (let from = 0; from < l1.entries; from += L1_PIECE_BYTES / 8) {
      const count = Math.min(L1_PIECE_BYTES / 8, l1.entries - from);
      const piece = new Uint8Array(count * 8);
      await readWhole(image, piece, l1.offset + from * 8, "L1 table");
      for (let i = 0; i < count; i++) {
        if (isEmpty(piece, i * 8, 8)) continue;
        const what = `L1 entry ${from + i} of the table at ${l1.offset}`;
        const offset = tableOffsetOf(piece, i * 8, layout, L1_RESERVED, what);
        if (offset === 0) continue;
        if (left-- === 0) {
          throw new BlockError("EIO", "The image is corrupt: it has more L2 tables than room");
        }
        await readWhole(image, bytes, offset, "L2 table");
        const copied = (readU32(piece, i * 8) & COPIED_HI) !== 0;
        await visit({ index: from + i, offset, copied, bytes });
      }
    }
  } finally {
    if (inside) kernel.free(inside);
  }
}

async function readWhole(
  { file }: Image,
  buf: Uint8Array,
  offset: number,
  what: string,
): Promise<void> {
  if (offset + buf.length > file.length) {
    throw new BlockError(
      "EIO",
      `The image is cut off: the ${what} at ${offset} needs ${offset + buf.length} bytes of file; ` +
        `there are ${file.length}`,
    );
  }
  await file.read(buf, offset);
}

/**
 * The references of an L2 table. Entries may be changed up to the one that was told last.
 *
 * @throws BlockError EIO if an entry is not valid
 */
export function* referencesOf(image: Image, table: FoundTable): Generator<Reference> {
  const { clusterBytes, clusterBits, l2Entries, l2EntryBytes, l2CoverBytes } = image.layout;
  const { bytes } = table;
  let run: Writable<Reference> | undefined;
  for (let entry = 0; entry < l2Entries; entry++) {
    const at = entry * l2EntryBytes;
    if (isEmpty(bytes, at, l2EntryBytes)) continue;
    const place = table.index * l2CoverBytes + entry * clusterBytes;
    const { host, copied, compressed } = decodeEntry(image, bytes, entry, place);
    if (compressed) {
      const packed = readPackedPlace(readU32(bytes, at), readU32(bytes, at + 4), clusterBits);
      const first = alignDown(packed.offset, clusterBytes) / clusterBytes;
      const end = alignUp(packed.offset + packed.bytes, clusterBytes) / clusterBytes;
      yield { cluster: first, count: end - first, entry, copied: false, packed: true };
      continue;
    }
    if (host < 0) continue;
    const cluster = host / clusterBytes;
    if (run && follows(run, entry, cluster, copied)) {
      run.count++;
      continue;
    }
    if (run) yield run;
    run = { cluster, count: 1, entry, copied, packed: false };
  }
  if (run) yield run;
}

type Writable<T> = { -readonly [K in keyof T]: T[K] };

function follows(run: Reference, entry: number, cluster: number, copied: boolean): boolean {
  const next = run.entry + run.count === entry && run.cluster + run.count === cluster;
  return next && run.copied === copied;
}

function isEmpty(bytes: Uint8Array, at: number, length: number): boolean {
  for (let i = at; i < at + length; i += 4) if (readU32(bytes, i) !== 0) return false;
  return true;
}
