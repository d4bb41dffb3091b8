/**
 * Larger disks. New bytes read as zeroes, whatever lies in a longer backing file, in the rest of the last
 * cluster, or in clusters that the image holds past its disk's end.
 *
 * Order: what lies past the end is cleaned up (past-end.ts); a longer L1 table is written where nothing refers
 * to it, and one write of 24 header bytes switches to it; the new clusters are made zero; another such
 * write switches the size. A crash or failure in between leaves the disk as long as it was.
 */

import { alignUp, writeU32, writeU64 } from "../../../base/bytes.ts";
import { BlockError } from "../../../base/errors.ts";
import type { Preallocation, TruncateOptions } from "../../../block/driver.ts";
import { cutFileEnd } from "./file-end.ts";
import { AT } from "./header.ts";
import type { Image } from "./image.ts";
import { L1_BYTES_MAX, l1EntriesFor } from "./layout.ts";
import { clearTail, dropPastEnd } from "./past-end.ts";
import { preallocateRange } from "./preallocate.ts";
import { copyWithin, decisive } from "./refcount-grow.ts";
import { writeZeroesLocked } from "./zeroes.ts";

/**
 * Makes the disk `length` bytes long, which is more than it has. Caller holds the mutex; no request is in
 * flight.
 *
 * @throws BlockError ENOTSUP where zeroes would not be certain; EFBIG if the L1 table would be too large;
 *   what reading and writing throw
 */
export async function grow(
  image: Image,
  length: number,
  { preallocation = "off", signal }: TruncateOptions,
): Promise<void> {
  const { header, layout, dataFile } = image;
  const old = header.size;
  const entries = l1EntriesFor(layout, length);
  if (entries * 8 > L1_BYTES_MAX) {
    const most = (L1_BYTES_MAX / 8) * layout.l2CoverBytes;
    throw new BlockError("EFBIG", `A disk with clusters this small has at most ${most} bytes`);
  }
  const shown = backingShown(image, length);
  await image.beginChange();
  await dropPastEnd(image);
  await clearTail(image, old, image.backing !== undefined && image.backing.length > old);
  // Whatever it held past the disk's end, the new bytes are zeroes.
  if (dataFile && dataFile.length > old) await dataFile.truncate(old);
  const ofData = preallocation === "metadata" ? "off" : preallocation;
  if (dataFile)
    await dataFile.truncate(length, { preallocation: ofData, ...(signal && { signal }) });
  await image.epoch.run();

  if (entries > header.l1Entries) {
    const l1 = await longerL1(image, entries);
    await switchSize(image, old, l1.offset, l1.bytes / 8);
  }
  try {
    await fillNew(image, length, shown, preallocation, signal);
  } catch (error) {
    if (error instanceof BlockError && !image.isCorrupt) await giveUpNew(image);
    throw error;
  }
  await switchSize(image, length, image.l1.offset, image.l1.bytes / 8);
}

/** What the new bytes need before they are there. @param shown the backing file ends there */
async function fillNew(
  image: Image,
  length: number,
  shown: number,
  preallocation: Preallocation,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { layout, header } = image;
  const firstNew = Math.min(alignUp(header.size, layout.clusterBytes), length);
  // A raw data file is the disk: every cluster of it is in use.
  const mode = image.isRawExternal && preallocation === "off" ? "metadata" : preallocation;
  await preallocateRange(image, firstNew, length, mode, signal);
  const hides = shown > firstNew;
  // Before the size: at no time may the backing file show through, not even after a crash.
  if (hides && (mode === "off" || mode === "metadata" || layout.extendedL2)) {
    await writeZeroesLocked(image, firstNew, shown - firstNew);
  }
  if (hides || mode !== "off") await image.epoch.run();
}

/** The disk has not grown: nothing may be left past its end that takes room. */
async function giveUpNew(image: Image): Promise<void> {
  try {
    await dropPastEnd(image);
    await image.epoch.finish();
    await cutFileEnd(image);
  } catch (error) {
    // What has failed first is told; what is left goes with the next change of size.
    if (!(error instanceof BlockError)) throw error;
  }
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

/** Other values for the three, by one write that a crash does not tear. */
export async function switchSize(
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
