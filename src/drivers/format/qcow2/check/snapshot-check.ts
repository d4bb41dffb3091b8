/**
 * The snapshot table, read so that a broken one shows what it has, and written anew if it is to be
 * mended:
 *
 *     version 3 without state and disk size    what it means without them is written down
 *     extra data that is longer than it may be  the first 1024 bytes are kept
 */

import { alignUp, readU16, readU32, writeU32, writeU64 } from "../../../../base/bytes.ts";
import { AT } from "../header.ts";
import type { Image } from "../image.ts";
import { decisive } from "../refcount-grow.ts";
import {
  EXTRA_BYTES_MAX,
  FIXED_BYTES,
  parseEntry,
  SNAPSHOT_TABLE_BYTES_MAX,
  TableReader,
  tableBytesOf,
  V3_EXTRA_BYTES_MIN,
  withV3Extra,
} from "../snapshot-table.ts";
import { beginRepair, type Checked, type LooseSnapshot } from "./context.ts";
import type { Tally } from "./tally.ts";

/** What a snapshot table has that is to be mended. */
export interface SnapshotTable {
  readonly snapshots: readonly LooseSnapshot[];
  /** Entries that are not as they must be. */
  readonly wrong: readonly string[];
}

export async function readSnapshotTable(image: Image, tally: Tally): Promise<SnapshotTable> {
  const { file, header } = image;
  const snapshots: LooseSnapshot[] = [];
  const wrong: string[] = [];
  let at = header.snapshotsOffset;
  const end = Math.min(file.length, at + SNAPSHOT_TABLE_BYTES_MAX);
  const table = new TableReader(file);
  for (let i = 0; i < header.snapshotCount; i++) {
    const isThere = at + FIXED_BYTES <= end;
    const fixed = isThere
      ? (await table.read(at, FIXED_BYTES)).slice()
      : new Uint8Array(FIXED_BYTES);
    const extra = readU32(fixed, 36);
    const names = readU16(fixed, 12) + readU16(fixed, 14);
    if (!isThere || at + FIXED_BYTES + extra + names > end) {
      tally.corruption(`Snapshot table entry ${i} lies past the end of the file, or of all tables`);
      tally.isIncomplete = true;
      break;
    }
    const kept = Math.min(extra, EXTRA_BYTES_MAX);
    const raw = new Uint8Array(alignUp(FIXED_BYTES + kept + names, 8));
    raw.set(fixed);
    writeU32(raw, 36, kept);
    raw.set(await table.read(at + FIXED_BYTES, kept), FIXED_BYTES);
    raw.set(await table.read(at + FIXED_BYTES + extra, names), FIXED_BYTES + kept);
    const tableBytes = alignUp(FIXED_BYTES + extra + names, 8);
    snapshots.push({ ...parseEntry(raw, header), tableBytes });
    if (kept < extra) {
      wrong.push(`Snapshot table entry ${i} has ${extra} bytes of extra data`);
    }
    if (header.version === 3 && extra < V3_EXTRA_BYTES_MIN) {
      wrong.push(`Snapshot table entry ${i} is incomplete: it has ${extra} bytes of extra data`);
    }
    at += tableBytes;
    await tally.step(tableBytes);
  }
  return { snapshots, wrong };
}

/**
 * Tells what is wrong; mends it if that is allowed and all else is well, so that room can be had.
 *
 * @throws BlockError what writing throws: the table is as before then
 */
export async function repairSnapshotTable(
  checked: Checked,
  wrong: readonly string[],
): Promise<void> {
  const { image, fix, tally } = checked;
  const { counts } = tally;
  const mayWrite = fix === "all" && counts.corruptions === 0 && counts["check-errors"] === 0;
  if (wrong.length === 0) return;
  if (!mayWrite) {
    for (const text of wrong) tally.corruption(text);
    return;
  }
  await beginRepair(checked);
  const { header, file, epoch, layout } = image;
  const entries =
    header.version === 3 ? checked.snapshots.map((entry) => withV3Extra(entry)) : checked.snapshots;
  const bytes = new Uint8Array(tableBytesOf(entries));
  let at = 0;
  for (const { raw } of entries) {
    bytes.set(raw, at);
    at += raw.length;
  }
  const { guard } = image;
  image.guard = checked.guard;
  const offset = await image.refcounts.allocateRegion(
    Math.ceil(bytes.length / layout.clusterBytes),
  );
  await file.write(bytes, offset);
  await epoch.finish();
  const pointer = new Uint8Array(12);
  writeU32(pointer, 0, entries.length);
  writeU64(pointer, 4, offset);
  await decisive(image, pointer, AT.snapshots);
  const oldBytes = checked.snapshots.reduce((sum, { tableBytes }) => sum + tableBytes, 0);
  epoch.free(header.snapshotsOffset, Math.ceil(oldBytes / layout.clusterBytes));
  image.header = { ...image.header, snapshotsOffset: offset };
  await epoch.finish();
  // That one is about where the table was.
  image.guard = guard;
  for (const text of wrong) tally.fixedCorruption(text);
}
