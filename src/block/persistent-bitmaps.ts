/**
 * Bitmaps that outlive their node: read from the image when it has been opened, put back when it is
 * closed or will not be written any more. In between the image's copy is not to be relied on, and
 * says so (QEMU: block/qcow2-bitmap.c).
 *
 *     open ── loadBitmaps() ──▶ recording in memory ── storeBitmaps() ──▶ close, or read-only
 *                                     ▲                      └──▶ exchangeBitmaps(), in another file
 *                                     └───────────────────────────────────┘
 */

import { BlockError } from "../base/errors.ts";
import {
  addRegions,
  type BitmapRecord,
  bitmapsChanged,
  endBitmapIntent,
  type RecordedBitmaps,
  recordedBitmaps,
} from "./bitmap-intent.ts";
import type { DirtyBitmap } from "./dirty-bitmap.ts";
import type { StoredBitmap } from "./driver.ts";
import type { BlockNode } from "./node.ts";

/**
 * Gives a node the bitmaps that its image keeps; those that were not put back the last time are
 * there, but good for nothing, unless there is a record of what was written since: bitmap-intent.ts. To be called when the image has been opened, before it is used.
 *
 * @throws BlockError what the driver throws: which bitmaps there are is then not known
 */
export async function loadBitmaps(node: BlockNode): Promise<void> {
  const stored = await node.state.bitmapStore?.list();
  if (!stored) return;
  const record = recordedBitmaps(node);
  for (const image of stored) {
    const known = record?.bitmaps.find(({ name }) => name === image.name);
    if (record && known && image.inconsistent) await loadRecorded(node, image, known, record);
    else await loadStored(node, image);
  }
  for (const known of record?.bitmaps ?? []) {
    // The regions are what came after the image's copy: without that they are not the bitmap.
    if (known.isStored || node.bitmaps.find(known.name)) continue;
    addRegions(node, addRecorded(node, known), record!.regions);
  }
  bitmapsChanged(node);
}

async function loadStored(node: BlockNode, image: StoredBitmap): Promise<void> {
  const { name, granularity, inconsistent } = image;
  const enabled = image.enabled && !inconsistent;
  const bitmap = node.bitmaps.add({ name, granularity, enabled, persistent: true, inconsistent });
  if (inconsistent) return;
  await image.load(bitmap);
  node.bitmaps.stored.add(bitmap);
}

/** One that was in memory when its engine was lost: what the image has of it, and what was written since. */
async function loadRecorded(
  node: BlockNode,
  image: StoredBitmap,
  known: BitmapRecord,
  record: RecordedBitmaps,
): Promise<void> {
  const bitmap = addRecorded(node, known);
  if (known.isStored) {
    try {
      await image.load(bitmap);
    } catch (error) {
      // The copy is no good: that is what an image's mark says of it anyway.
      if (!(error instanceof BlockError) || error.errno !== "EINVAL") throw error;
      node.bitmaps.remove(bitmap);
      return loadStored(node, image);
    }
    node.bitmaps.stored.add(bitmap);
  }
  addRegions(node, bitmap, record.regions);
}

function addRecorded(node: BlockNode, { name, granularity, enabled }: BitmapRecord): DirtyBitmap {
  return node.bitmaps.add({ name, granularity, enabled, persistent: true });
}

/**
 * To be called before a bitmap gets marks that no write to its node has brought, is switched on, or goes: a
 * crash must not leave the image with a copy that does not know of it and looks right. Writes see to it by
 * themselves, and a copy with more marks than the bitmap does no harm.
 *
 * @throws BlockError what the driver throws
 */
export async function distrustStored(node: BlockNode, bitmap: DirtyBitmap): Promise<void> {
  const isThere = node.bitmaps.stored.has(bitmap);
  if (isThere && !node.readOnly) await node.state.bitmapStore?.markInUse();
}

/**
 * Puts the persistent bitmaps into the image, and takes out of it those that have been removed; an
 * inconsistent one stays that. To be called while the image can be written still, with nothing under
 * way on the node.
 *
 * @throws BlockError EBUSY while something uses one of them; what the driver throws
 */
export async function storeBitmaps(node: BlockNode): Promise<void> {
  const { bitmapStore } = node.state;
  if (!bitmapStore) return;
  const kept = idleBitmaps(node);
  // No command changes them while they are on their way.
  for (const bitmap of kept) bitmap.setBusy(true);
  try {
    await bitmapStore.store(kept);
    for (const bitmap of kept) node.bitmaps.stored.add(bitmap);
    endBitmapIntent(node);
  } finally {
    for (const bitmap of kept) bitmap.setBusy(false);
  }
}

/**
 * To be called when the node's image is another one, in another file: what that keeps counts, and
 * would be lost if it were replaced by what the node had, which is stored where it belongs.
 *
 * @returns takes it back
 * @throws BlockError EBUSY while something uses one of the node's; as loadBitmaps(). Nothing has
 *   changed then
 */
export async function exchangeBitmaps(node: BlockNode): Promise<() => void> {
  const before = idleBitmaps(node);
  for (const bitmap of before) node.bitmaps.remove(bitmap);
  const takeBack = () => {
    for (const bitmap of persistentBitmaps(node)) node.bitmaps.remove(bitmap);
    node.bitmaps.putBack(before);
  };
  try {
    await loadBitmaps(node);
  } catch (error) {
    takeBack();
    throw error;
  }
  return takeBack;
}

function persistentBitmaps(node: BlockNode): DirtyBitmap[] {
  return node.bitmaps.all().filter(({ persistent }) => persistent);
}

/** @throws BlockError EBUSY */
function idleBitmaps(node: BlockNode): DirtyBitmap[] {
  const bitmaps = persistentBitmaps(node);
  const busy = bitmaps.find((bitmap) => bitmap.busy);
  if (!busy) return bitmaps;
  throw new BlockError("EBUSY", `${busy.description} is busy and cannot be stored`);
}
