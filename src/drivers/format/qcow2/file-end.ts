/**
 * The end of the file: what lies behind the last cluster in use is cut off, so that a file gives back
 * what the disk gave up.
 *
 *     │ … in use │ free … │ refcount block that counts but itself │ free … │ end of the file
 *                │◀─────────────────────── cut off ───────────────────────▶│
 *
 *   1. Free means: free in memory, and so no longer referred to on disk (epoch.ts, invariant 3).
 *   2. A refcount block that has nothing left to count goes too, but first the entry that leads to it,
 *      with a flush in between: a crash must not leave an entry that leads past the file's end.
 *   3. Only a file whose last cluster was freed here is cut: what others have put behind it stays.
 *   4. A guest's write may be on its way to behind the file's end, and come to be before the cut: so room
 *      there that is in use is looked for as well, and then nothing is cut off.
 *   5. That it cannot be done is no error: the clusters are free all the same, and are used again. Whoever
 *      asks for it has done what he was asked for, and must not be told that he has not.
 */

import { writeU64 } from "../../../base/bytes.ts";
import { BlockError } from "../../../base/errors.ts";
import type { Image } from "./image.ts";

/**
 * To be called under the mutex when an epoch has ended.
 *
 * @param always also if the last cluster was not freed here
 */
export async function cutFileEnd(image: Image, always = false): Promise<void> {
  try {
    await cut(image, always);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
  }
}

async function cut(image: Image, always: boolean): Promise<void> {
  const { refcounts, layout, file, guard } = image;
  const wasFreed = refcounts.takeFreedEnd() * layout.clusterBytes >= file.length;
  if (image.isCorrupt || !(wasFreed || always)) return;
  await dropEmptyBlocks(image, always);
  const last = Math.ceil(file.length / layout.clusterBytes) - 1;
  const end = (await refcounts.lastUsed(Math.max(last, refcounts.roomEnd - 1))) + 1;
  if (end > last) return;
  const at = end * layout.clusterBytes;
  // A table that is not counted is damage enough.
  if (guard.find(at, (last + 1 - end) * layout.clusterBytes) !== null) return;
  await file.truncate(at);
}

/**
 * Takes refcount blocks out of use that count nothing, or nothing but themselves: from the last one down
 * to one that counts more, or all there are.
 */
async function dropEmptyBlocks(image: Image, all: boolean): Promise<void> {
  const { refcounts } = image;
  let found = await refcounts.lastBlock(refcounts.table.bytes / 8);
  // The first one counts the header.
  while (found && found.block > 0) {
    const isEmpty = await countsNothing(image, found.block, found.offset);
    if (isEmpty) await dropBlock(image, found.block, found.offset);
    else if (!all) return;
    found = await refcounts.lastBlock(found.block);
  }
}

async function countsNothing(image: Image, block: number, offset: number): Promise<boolean> {
  const { refcounts, layout } = image;
  const first = block * layout.refcountBlockEntries;
  const top = await refcounts.lastUsed(first + layout.refcountBlockEntries - 1);
  if (top < first) return true;
  if (top !== offset / layout.clusterBytes || (await refcounts.get(top)) !== 1) return false;
  return (await refcounts.lastUsed(top - 1)) < first;
}

/**
 * If the entry cannot be taken out, all is as before: the file may still have it, and where it leads
 * nothing else, not even a new block, may be begun.
 */
async function dropBlock(image: Image, block: number, offset: number): Promise<void> {
  const { refcounts, layout, pages, guard, epoch } = image;
  const { table } = refcounts;
  const pageOffset = pages.pageOffset(table, block * 8);
  let page = pages.peek(pageOffset);
  for (; !page; page = pages.peek(pageOffset)) await pages.load(table, pageOffset);
  const entryAt = table.offset + block * 8 - pageOffset;
  writeU64(page.bytes, entryAt, 0);
  pages.markDirty(page);
  try {
    await epoch.run();
  } finally {
    // Clean: the flush behind it has succeeded, whatever has failed since.
    if (page.dirty) writeU64(page.bytes, entryAt, offset);
    else {
      pages.drop(offset, layout.clusterBytes);
      epoch.removeNewBlock(offset);
      guard.removeTable(offset, "refcount block");
    }
  }
  const isCountedElsewhere =
    Math.floor(offset / layout.clusterBytes / layout.refcountBlockEntries) !== block;
  if (isCountedElsewhere) await refcounts.release({ offset, count: 1 });
}
