/**
 * Larger disks. New bytes read as zeroes, whatever lies in a longer backing file or in the rest of
 * the last cluster; smaller disks are not supported.
 *
 * Order: the disk's old last cluster is cleaned up; a longer L1 table is written where nothing refers
 * to it, and one write of 24 header bytes switches to it; the new clusters are made zero; another such
 * write switches the size. A crash or failure in between leaves the disk as long as it was.
 */

import { alignUp, writeU32, writeU64 } from "../../../base/bytes.ts";
import { assert, BlockError } from "../../../base/errors.ts";
import { allocateLocked } from "./allocate.ts";
import { readEncoded } from "./compressed.ts";
import { AT } from "./header.ts";
import type { Image } from "./image.ts";
import { l2OffsetOf, mapRun, withL2 } from "./l2.ts";
import { L1_BYTES_MAX, l1EntriesFor, SECTOR_BYTES } from "./layout.ts";
import { copyWithin, decisive } from "./refcount-grow.ts";
import { writeZeroesLocked } from "./zeroes.ts";

/**
 * Makes the disk `length` bytes long. Caller holds the mutex; no request is in flight.
 *
 * @throws BlockError ENOTSUP to make it smaller, or where zeroes would not be certain; EINVAL if
 *   not whole sectors; EFBIG if the L1 table would be too large
 */
export async function grow(image: Image, length: number): Promise<void> {
  const { header, layout } = image;
  const old = header.size;
  if (length === old) return;
  if (length < old) throw new BlockError("ENOTSUP", "A qcow2 image cannot be made smaller yet");
  if (length % SECTOR_BYTES !== 0) {
    throw new BlockError("EINVAL", `The new size must be a multiple of ${SECTOR_BYTES}`);
  }
  const entries = l1EntriesFor(layout, length);
  if (entries * 8 > L1_BYTES_MAX) {
    const most = (L1_BYTES_MAX / 8) * layout.l2CoverBytes;
    throw new BlockError("EFBIG", `A disk with clusters this small has at most ${most} bytes`);
  }
  checkSnapshots(image);
  const shown = backingShown(image, length);
  await image.beginChange();
  await clearTail(image, old);
  await checkUnused(image, l1EntriesFor(layout, old), Math.min(entries, header.l1Entries));
  const { dataFile } = image;
  if (dataFile && dataFile.length < length) await dataFile.truncate(length);
  await image.epoch.run();

  if (entries > header.l1Entries) {
    const l1 = await longerL1(image, entries);
    await switchSize(image, old, l1.offset, l1.bytes / 8);
  }
  // Before the size: at no time may the backing file show through, not even after a crash.
  const firstNew = Math.min(alignUp(old, layout.clusterBytes), length);
  if (shown > firstNew) {
    await writeZeroesLocked(image, firstNew, shown - firstNew);
    await image.epoch.run();
  }
  await switchSize(image, length, image.l1.offset, image.l1.bytes / 8);
}

function checkSnapshots({ header }: Image): void {
  if (header.version === 3 || header.snapshotCount === 0) return;
  throw new BlockError("ENOTSUP", "A version 2 image with snapshots cannot change its size");
}

/** End of what a backing file would show of the new bytes, at most `length`. */
function backingShown(image: Image, length: number): number {
  const { header, backing } = image;
  if (!image.mayHaveBacking) return 0;
  if (!backing) {
    throw new BlockError(
      "ENOTSUP",
      `The image has the backing file '${image.extensions.backingName}', which is not open: what ` +
        "of it the new bytes would show is not known. Open the image with it",
    );
  }
  const end = Math.min(length, backing.length);
  if (end <= header.size) return 0;
  if (header.version === 2) {
    throw new BlockError("ENOTSUP", "A version 2 image cannot hide the rest of its backing file");
  }
  return end;
}

/** Zeroes what the disk's last cluster holds past the disk's end. */
async function clearTail(image: Image, size: number): Promise<void> {
  const { clusterBytes } = image.layout;
  const start = size - (size % clusterBytes);
  if (start === size) return;
  const mapping = await mapRun(image, start, size - start);
  const whole = new Uint8Array(clusterBytes);
  if (mapping.kind === "encoded") {
    // Packed clusters are packed whole; whoever wrote this one may have left anything in there.
    await readEncoded(image, whole, start);
    if (image.kernel.isZero(whole.subarray(size - start))) return;
  }
  await image.epoch.makeRoom();
  await rewriteTail(image, start, size, whole);
}

/** Writes the last cluster anew, with zeroes up to its end. */
async function rewriteTail(
  image: Image,
  start: number,
  size: number,
  whole: Uint8Array,
): Promise<void> {
  const { clusterBytes } = image.layout;
  const kinds = new Set<string>();
  for (let at = start; at < size; ) {
    const mapping = await mapRun(image, at, size - at);
    const piece = whole.subarray(at - start, at - start + mapping.bytes);
    kinds.add(mapping.kind);
    if (mapping.kind === "data") await childOf(image).read(piece, mapping.offset);
    else if (mapping.kind === "encoded") await readEncoded(image, piece, at);
    else if (mapping.kind === "unallocated" && image.backing) await image.backing.read(piece, at);
    else piece.fill(0);
    at += mapping.bytes;
  }
  whole.fill(0, size - start);
  const showsMore = image.backing !== undefined && image.backing.length > size;
  const isBare = kinds.size === 1 && (kinds.has("unallocated") || kinds.has("zero"));
  if (isBare && !showsMore) return;
  // The whole cluster, past the disk's end: so that nothing behind it is left undecided.
  const room = await allocateLocked(image, start, clusterBytes);
  assert(room.bytes === clusterBytes, "one cluster gets its room in one piece");
  try {
    await childOf(image).write(whole, room.offset);
  } catch (error) {
    await room.abortLocked();
    throw error;
  }
  await room.commitLocked();
}

function childOf(image: Image) {
  const child = image.externalData ? image.dataFile : image.file;
  assert(child, "an image has a file for its data");
  return child;
}

/** The entries that come into use may hold a virtual machine's state: then it stays as it is. */
async function checkUnused(image: Image, from: number, to: number): Promise<void> {
  for (let index = from; index < to; index++) {
    const offset = await withL2(image, index * image.layout.l2CoverBytes, (_spot, l1) =>
      l2OffsetOf(image, l1),
    );
    if (offset === 0) continue;
    throw new BlockError("ENOTSUP", "The image has data past its disk's end; it cannot grow");
  }
}

/** A copy of the L1 table with more entries, written and flushed, that nothing refers to yet. */
async function longerL1(image: Image, entries: number): Promise<{ offset: number; bytes: number }> {
  const { layout, file, l1, refcounts } = image;
  const clusters = Math.ceil((entries * 8) / layout.clusterBytes);
  const offset = await refcounts.allocateRegion(clusters);
  try {
    await file.writeZeroes(offset, clusters * layout.clusterBytes);
    if (l1.bytes > 0) await copyWithin(image, l1.offset, offset, l1.bytes);
    // What was in memory of this place belonged to a table that is gone.
    image.pages.drop(offset, clusters * layout.clusterBytes);
    // Writes the refcounts, and flushes the copy.
    await image.epoch.run();
  } catch (error) {
    await refcounts.release({ offset, count: clusters });
    throw error;
  }
  return { offset, bytes: entries * 8 };
}

async function switchSize(
  image: Image,
  size: number,
  l1Offset: number,
  l1Entries: number,
): Promise<void> {
  const { layout, guard, pages, file } = image;
  const before = image.l1;
  const head = new Uint8Array(24);
  await file.read(head, AT.size);
  writeU64(head, 0, size);
  writeU32(head, AT.l1Size - AT.size, l1Entries);
  writeU64(head, AT.l1Size - AT.size + 4, l1Offset);
  await decisive(image, head, AT.size);
  image.header = { ...image.header, size, l1Offset, l1Entries };
  if (l1Offset === before.offset) return;
  image.l1 = { kind: "l1", offset: l1Offset, bytes: l1Entries * 8 };
  pages.drop(before.offset, before.bytes);
  guard.setArea("L1 table", l1Offset, l1Entries * 8);
  if (before.bytes === 0) return;
  image.epoch.free(before.offset, Math.ceil(before.bytes / layout.clusterBytes));
}
