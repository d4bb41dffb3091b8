/**
 * The snapshot table, as far as it must be known to leave snapshots alone: where they keep things.
 *
 *      0 l1_table_offset  8 l1_size  12 id length  14 name length  16 date  24 clock  32 state size
 *     36 extra data length │ extra data │ id │ name │ padding to a multiple of 8
 */

import { alignUp, MiB, readU16, readU32, readU64 } from "../../../base/bytes.ts";
import { BlockError } from "../../../base/errors.ts";
import type { BlockChild } from "../../../block/child.ts";
import type { Header } from "./header.ts";
import { L1_BYTES_MAX } from "./layout.ts";

const FIXED_BYTES = 40;
const EXTRA_BYTES_MAX = 1024;
/** Version 3 must tell the state's and the disk's size in the extra data. */
const V3_EXTRA_BYTES_MIN = 16;
const TABLE_BYTES_MAX = 64 * MiB;
const WINDOW_BYTES = 64 * 1024;

export interface SnapshotAreas {
  readonly tableBytes: number;
  /** Those that can be right. */
  readonly l1Tables: readonly { readonly offset: number; readonly bytes: number }[];
}

/**
 * Reads through the table in pieces of 64 KiB.
 *
 * @throws BlockError EINVAL that names the snapshot and the field
 */
export async function readSnapshots(file: BlockChild, header: Header): Promise<SnapshotAreas> {
  const start = header.snapshotsOffset;
  const l1Tables: { offset: number; bytes: number }[] = [];
  let window = new Uint8Array(0);
  let windowAt = start;
  let at = start;
  const need = async (bytes: number, index: number): Promise<number> => {
    if (at + bytes > file.length) throw invalid(index, "lies past the end of the file");
    if (at + bytes > windowAt + window.length) {
      windowAt = at;
      window = new Uint8Array(Math.min(WINDOW_BYTES, file.length - at));
      await file.read(window, windowAt);
    }
    return at - windowAt;
  };

  for (let i = 0; i < header.snapshotCount; i++) {
    const fixed = await need(FIXED_BYTES, i);
    const offset = readU64(window, fixed, `The L1 table's offset of snapshot ${i}`);
    const bytes = readU32(window, fixed + 8) * 8;
    const extra = readU32(window, fixed + 36);
    if (extra > EXTRA_BYTES_MAX) {
      throw invalid(i, `has ${extra} bytes of extra data; at most ${EXTRA_BYTES_MAX} are allowed`);
    }
    if (header.version === 3 && extra < V3_EXTRA_BYTES_MIN) {
      throw invalid(i, `has ${extra} bytes of extra data; version 3 needs ${V3_EXTRA_BYTES_MIN}`);
    }
    const names = readU16(window, fixed + 12) + readU16(window, fixed + 14);
    const whole = alignUp(FIXED_BYTES + extra + names, 8);
    at += whole;
    if (at - start > TABLE_BYTES_MAX) {
      throw invalid(i, `makes the table longer than ${TABLE_BYTES_MAX} bytes`);
    }
    if (bytes > 0 && bytes <= L1_BYTES_MAX && offset % header.layout.clusterBytes === 0) {
      l1Tables.push({ offset, bytes });
    }
  }
  return { tableBytes: at - start, l1Tables };
}

function invalid(index: number, problem: string): BlockError {
  return new BlockError("EINVAL", `Invalid qcow2 snapshot table: snapshot ${index} ${problem}`);
}
