/**
 * Smaller disks. The size comes first, and one write switches it: a crash leaves the whole old disk or
 * the new one. What is cut off goes afterwards; what of that a crash leaves behind is referred to and
 * counted as it was, reads as nothing, and goes when the disk's size is changed again (past-end.ts).
 *
 *     size ── flush ──▶ entries past the end, L1 entries, rest of the last cluster ── epoch ──▶ data
 *                       file, refcounts, the file's end
 *
 * Snapshots keep what they have. (QEMU clears first, and leaves the rest of the last cluster as it is,
 * where a disk that grows shows it again.)
 */

import { cutFileEnd } from "./file-end.ts";
import { switchSize } from "./grow.ts";
import type { Image } from "./image.ts";
import { clearTail, dropPastEnd } from "./past-end.ts";

/**
 * Makes the disk `length` bytes long, which is less than it has. Caller holds the mutex; no request is
 * in flight.
 *
 * @throws BlockError what reading and writing throw. The disk may be smaller all the same then: its size
 *   tells
 */
export async function shrink(image: Image, length: number): Promise<void> {
  await image.beginChange();
  await image.epoch.run();
  await switchSize(image, length, image.l1.offset, image.l1.bytes / 8);
  await dropPastEnd(image);
  await clearTail(image, length, false);
  await image.epoch.finish();
  const { dataFile } = image;
  if (dataFile && dataFile.length > length) await dataFile.truncate(length);
  await cutFileEnd(image, true);
}
