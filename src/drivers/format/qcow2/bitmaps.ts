/**
 * Dirty bitmaps inside the image. While they are in memory the image's own are not to be relied on,
 * and say so: marked "in use" before the first change, replaced when the image is closed.
 *
 *     first change    directory: every bitmap in use  ── flush ──  what changes
 *     store           bits, tables, directory, refcounts  ── flush ──  header leads to them
 *                     ── flush ──  the old ones are free
 *
 * A crash before the header leaves bitmaps that are in use, which is what they were anyway.
 * (QEMU: block/qcow2-bitmap.c; it marks them when the image is opened.)
 */

import { alignUp, readU32, writeU16, writeU32, writeU64 } from "../../../base/bytes.ts";
import { BlockError } from "../../../base/errors.ts";
import type { DirtyBitmap } from "../../../block/dirty-bitmap.ts";
import type { BitmapStore, StoredBitmap } from "../../../block/driver.ts";
import { isSameAsStored, loadBits, writeBits } from "./bitmap-bits.ts";
import {
  BITMAP_BYTES_MAX,
  BITMAPS_MAX,
  DIRECTORY_BYTES_MAX,
  DIRTY_TRACKING,
  type DirectoryEntry,
  ENTRY,
  ENTRY_BYTES,
  Flag,
  findDirectory,
  invalid,
  readDirectory,
  tableEntries,
  tableEntriesFor,
} from "./bitmap-directory.ts";
import { hasRoomForBitmaps, switchDirectory } from "./bitmap-header.ts";
import { cutFileEnd } from "./file-end.ts";
import type { Image } from "./image.ts";
import type { HostRun } from "./refcount.ts";

/** @param image as it is at the time of each call */
export function bitmapStoreOf(image: Image): BitmapStore {
  return {
    list: () => list(image),
    checkRoom: (name, granularity, others) => checkRoom(image, name, granularity, others),
    markInUse: () => image.mutex.run(() => image.beginChange()),
    store: (bitmaps) => image.mutex.run(() => store(image, bitmaps)),
  };
}

/**
 * Of an image that is only read, what makes no sense is left out, or good for nothing.
 *
 * @throws BlockError EINVAL that names what is wrong in an image that is written
 */
async function list(image: Image): Promise<readonly StoredBitmap[]> {
  const found: StoredBitmap[] = [];
  let entries: readonly DirectoryEntry[] = [];
  try {
    entries = await readDirectory(image);
  } catch (error) {
    if (!image.readOnly || !isInvalid(error)) throw error;
  }
  for (const entry of entries) {
    let { isUsable } = entry;
    try {
      if (isUsable) await checkTable(image, entry);
    } catch (error) {
      if (!image.readOnly || !isInvalid(error)) throw error;
      isUsable = false;
    }
    found.push({
      name: entry.name,
      granularity: 2 ** entry.granularityBits,
      enabled: (entry.flags & Flag.auto) !== 0,
      inconsistent: !isUsable,
      load: (into) => loadBits(image, entry, into),
    });
  }
  return found;
}

function isInvalid(error: unknown): boolean {
  return error instanceof BlockError && (error.errno === "EINVAL" || error.errno === "EFBIG");
}

/** Before anything is loaded. Clusters that stand in a table twice would be more bits than file. */
async function checkTable(image: Image, entry: DirectoryEntry): Promise<void> {
  let clusters = 0;
  for await (const { kind } of tableEntries(image, entry)) {
    if (kind === "invalid") throw invalid(`bitmap '${entry.name}' has a wrong entry in its table`);
    if (kind === "data") clusters++;
  }
  if (clusters * image.layout.clusterBytes <= image.file.length) return;
  throw invalid(`bitmap '${entry.name}' has more bits than the file has room for`);
}

function checkRoom(image: Image, name: string, granularity: number, others: number): void {
  const { header, layout } = image;
  if (header.version === 2) {
    throw new BlockError("ENOTSUP", "A version 2 image has no place for bitmaps");
  }
  if (others >= BITMAPS_MAX) {
    throw new BlockError("ENOSPC", `An image has at most ${BITMAPS_MAX} bitmaps`);
  }
  const bytes = tableEntriesFor(layout, header.size, granularity) * layout.clusterBytes;
  if (bytes > BITMAP_BYTES_MAX) {
    throw new BlockError(
      "EINVAL",
      `Bitmap '${name}' would have ${bytes} bytes; at most ${BITMAP_BYTES_MAX} can be kept: take a ` +
        "larger granularity",
    );
  }
  // With the longest names for those that are not known here.
  const entry = alignUp(ENTRY_BYTES + new TextEncoder().encode(name).length, 8);
  if (entry + others * ENTRY_BYTES > DIRECTORY_BYTES_MAX) {
    throw new BlockError("ENOSPC", "The image has no place for more bitmaps");
  }
  if (hasRoomForBitmaps(image)) return;
  throw new BlockError("ENOSPC", "The image's first cluster has no room for bitmaps");
}

/**
 * Makes the bitmaps the image's, and no others. Caller holds the mutex; no request is in flight.
 *
 * @throws BlockError ENOSPC, EIO and what the file throws; the image's bitmaps are then in use still
 */
async function store(image: Image, bitmaps: readonly DirtyBitmap[]): Promise<void> {
  const { epoch, layout, refcounts } = image;
  const entries = await readDirectory(image);
  if (bitmaps.length === 0 && entries.length === 0) return;
  if (image.isCorrupt) return giveUp(image);
  if (!image.hasBegunChanging && (await isAllSame(image, bitmaps, entries))) return;
  await image.beginChange();
  const old = findDirectory(image.header, image.extensions);
  const byName = new Map(entries.map((entry) => [entry.name, entry]));
  const held: HostRun[] = [];
  const kept = new Set<DirectoryEntry>();
  try {
    const rows: Uint8Array[] = [];
    for (const bitmap of inOrder(bitmaps, entries)) {
      const entry = byName.get(bitmap.name ?? "");
      if (bitmap.inconsistent && entry) {
        kept.add(entry);
        rows.push(inUse(entry.raw));
      } else if (!bitmap.inconsistent) {
        rows.push(await writeBitmap(image, bitmap, entry, held));
      }
    }
    const directory = rows.length > 0 ? await writeDirectory(image, rows, held) : null;
    await epoch.run();
    await switchDirectory(image, directory);
  } catch (error) {
    // After the switch was tried nobody knows what the header leads to, and nothing is written.
    if (!image.isCorrupt) for (const run of held) await refcounts.release(run);
    throw error;
  }
  if (old) epoch.free(old.offset, Math.ceil(old.bytes / layout.clusterBytes));
  for (const entry of entries) if (!kept.has(entry)) await freeBitmap(image, entry);
  await epoch.finish();
  await cutFileEnd(image);
  // Whatever comes next is not in these bitmaps: it marks them in use again.
  image.endChange();
}

/** Those that the image has already stay where they are; then come the others, the newest first. */
function inOrder(
  bitmaps: readonly DirtyBitmap[],
  entries: readonly DirectoryEntry[],
): readonly DirtyBitmap[] {
  const places = new Map(entries.map(({ name }, i) => [name, i]));
  const place = ({ name }: DirtyBitmap) => places.get(name ?? "") ?? entries.length;
  return [...bitmaps].reverse().sort((a, b) => place(a) - place(b));
}

/** Told once; then the image can be closed. */
function giveUp(image: Image): void {
  if (image.hasGivenUpBitmaps) return;
  image.hasGivenUpBitmaps = true;
  throw new BlockError(
    "EIO",
    `The image of node '${image.nodeName}' is corrupt: its bitmaps cannot be kept`,
  );
}

async function isAllSame(
  image: Image,
  bitmaps: readonly DirtyBitmap[],
  entries: readonly DirectoryEntry[],
): Promise<boolean> {
  if (bitmaps.length !== entries.length) return false;
  for (const [i, bitmap] of bitmaps.entries()) {
    const entry = entries[i]!;
    if (entry.name !== bitmap.name || entry.isUsable === bitmap.inconsistent) return false;
    if (bitmap.inconsistent) continue;
    if (2 ** entry.granularityBits !== bitmap.granularity) return false;
    if (((entry.flags & Flag.auto) !== 0) !== bitmap.enabled) return false;
    if (!(await isSameAsStored(image, entry, bitmap))) return false;
  }
  return true;
}

/** Writes bits and table. @returns the directory's entry */
async function writeBitmap(
  image: Image,
  bitmap: DirtyBitmap,
  before: DirectoryEntry | undefined,
  held: HostRun[],
): Promise<Uint8Array> {
  const table = await writeBits(image, bitmap, held);
  const name = new TextEncoder().encode(bitmap.name ?? "");
  // Of what we do not know, what may stay stays.
  const mayStay = before && (before.flags & Flag.extraDataCompatible) !== 0;
  const extra = mayStay ? extraOf(before) : new Uint8Array(0);
  const row = new Uint8Array(alignUp(ENTRY_BYTES + extra.length + name.length, 8));
  writeU64(row, ENTRY.tableOffset, table.offset);
  writeU32(row, ENTRY.tableEntries, table.entries);
  const flags =
    (bitmap.enabled ? Flag.auto : 0) | (extra.length > 0 ? Flag.extraDataCompatible : 0);
  writeU32(row, ENTRY.flags, flags);
  row[ENTRY.type] = DIRTY_TRACKING;
  row[17] = Math.log2(bitmap.granularity);
  writeU16(row, 18, name.length);
  writeU32(row, 20, extra.length);
  row.set(extra, ENTRY_BYTES);
  row.set(name, ENTRY_BYTES + extra.length);
  return row;
}

function extraOf({ raw }: DirectoryEntry): Uint8Array {
  return raw.subarray(ENTRY_BYTES, ENTRY_BYTES + readU32(raw, 20));
}

function inUse(raw: Uint8Array): Uint8Array {
  const row = raw.slice();
  row[ENTRY.flags + 3] = row[ENTRY.flags + 3]! | Flag.inUse;
  return row;
}

async function writeDirectory(image: Image, rows: readonly Uint8Array[], held: HostRun[]) {
  const { layout, refcounts, file, pages, epoch } = image;
  const bytes = rows.reduce((sum, row) => sum + row.length, 0);
  if (bytes > DIRECTORY_BYTES_MAX) {
    throw new BlockError("ENOSPC", "The image has no place for so many bitmaps with such names");
  }
  const count = Math.ceil(bytes / layout.clusterBytes);
  await epoch.makeRoom();
  const offset = await refcounts.allocateRegion(count);
  held.push({ offset, count });
  pages.drop(offset, count * layout.clusterBytes);
  const whole = new Uint8Array(count * layout.clusterBytes);
  let at = 0;
  for (const row of rows) {
    whole.set(row, at);
    at += row.length;
  }
  await file.write(whole, offset);
  return { count: rows.length, offset, bytes };
}

async function freeBitmap(image: Image, entry: DirectoryEntry): Promise<void> {
  const { epoch, layout, guard } = image;
  for await (const place of tableEntries(image, entry)) {
    if (place.kind !== "data") continue;
    // A wrong entry must not free what something else has: a leak does less harm.
    if (guard.find(place.offset, layout.clusterBytes) !== null) continue;
    await epoch.makeRoom();
    epoch.free(place.offset, 1);
  }
  epoch.free(entry.tableOffset, Math.ceil((entry.tableEntries * 8) / layout.clusterBytes));
}

/** @returns false if the directory makes no sense: then nothing has been written */
export async function markBitmapsInUse(image: Image): Promise<boolean> {
  let entries: readonly DirectoryEntry[];
  try {
    entries = await readDirectory(image);
  } catch (error) {
    if (!isInvalid(error)) throw error;
    return false;
  }
  const directory = findDirectory(image.header, image.extensions);
  if (!directory) return false;
  const whole = new Uint8Array(directory.bytes);
  let at = 0;
  for (const { raw } of entries) {
    whole.set(inUse(raw), at);
    at += raw.length;
  }
  // Only one bit of each entry changes: however a crash tears it, every entry makes sense.
  await image.file.write(whole, directory.offset);
  return true;
}
