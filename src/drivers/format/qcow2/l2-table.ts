/**
 * An L2 table that may be changed: the one that is there if it is this disk's alone, else a new one.
 */

import { readU32, writeU32 } from "../../../base/bytes.ts";
import { assert } from "../../../base/errors.ts";
import { overlapError } from "./guard.ts";
import type { Image } from "./image.ts";
import { isL2Copied, type L1Spot, l2OffsetOf, withL2 } from "./l2.ts";
import { COPIED_HI } from "./layout.ts";

/**
 * Makes sure that the guest offset has an L2 table that may be changed in place. Caller holds the
 * mutex and has called beginChange() and makeRoom().
 *
 * @throws BlockError EIO, and the image is marked corrupt, if the table lies on other structures;
 *   ENOSPC and what the file throws: then nothing has changed
 */
export async function ensureL2(image: Image, offset: number): Promise<void> {
  const { layout, guard } = image;
  const now = await withL2(image, offset, (_spot, l1) => ({
    offset: l2OffsetOf(image, l1),
    copied: isL2Copied(l1),
  }));
  if (now.offset > 0) {
    const area = guard.find(now.offset, layout.clusterBytes, "L2 table");
    if (area) throw await image.markCorrupt(overlapError("an L2 table", now.offset, area));
    guard.addTable(now.offset, "L2 table");
    if (now.copied) return;
  }
  const run = await image.refcounts.allocate(1);
  try {
    await image.file.debugEvent("l2_alloc_write");
    if (now.offset > 0) await copyTable(image, now.offset, run.offset);
    else await image.file.writeZeroes(run.offset, layout.clusterBytes);
  } catch (error) {
    await image.refcounts.release(run);
    throw error;
  }
  // What was in memory of this place belonged to a table that is gone.
  image.pages.drop(run.offset, layout.clusterBytes);
  image.epoch.addNewTable(run.offset);
  guard.addTable(run.offset, "L2 table");
  await withL2(image, offset, (_spot, l1) => linkL2(image, l1, run.offset));
  if (now.offset === 0) return;
  image.epoch.free(now.offset, 1);
  guard.removeTable(now.offset, "L2 table");
}

/** A table of a snapshot's, too: it is never dirty, since all changes go to copies. */
async function copyTable(image: Image, source: number, target: number): Promise<void> {
  const { pages, file, layout } = image;
  const dirty = pages.dirtyPages((page) => page.table.offset === source);
  assert(dirty.length === 0, "a shared L2 table has no changes in memory");
  const table = new Uint8Array(layout.clusterBytes);
  await file.read(table, source);
  await file.write(table, target);
}

function linkL2(image: Image, { page, at }: L1Spot, l2Offset: number): void {
  writeU32(page.bytes, at, (Math.floor(l2Offset / 2 ** 32) | COPIED_HI) >>> 0);
  writeU32(page.bytes, at + 4, (l2Offset % 2 ** 32) >>> 0);
  assert((readU32(page.bytes, at + 4) & 0x1ff) === 0, "an L2 table lies on a cluster");
  image.pages.markDirty(page);
}
