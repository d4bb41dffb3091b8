/**
 * A node's persistent bitmaps on record, so that a crash does not cost them. While they are in memory the
 * image's copies are in use, and alone good for nothing; together with all regions that have been written
 * since, they hold at least what they would hold.
 *
 *     after a crash    the image's copy  +  the regions on record  =  the bitmap, a little larger
 *     a new bitmap          (none)       +  the regions on record
 *
 * More marked than changed makes the next incremental backup longer; less would make it wrong. So marks
 * that are forgotten (a clear, a backup that went well) come back with a crash, and marks that no write
 * has brought are put on record by whoever makes them: see markForeign().
 */

import * as v from "valibot";
import type { BitmapList } from "./bitmap-list.ts";
import type { DirtyBitmap } from "./dirty-bitmap.ts";
import { type Regions, regionBytesFor } from "./intent-regions.ts";
import type { BlockNode } from "./node.ts";
import { getLength } from "./request.ts";
import type { WriteIntent } from "./write-intent.ts";
import { imagesOf } from "./write-intents.ts";

const bitmapRecord = v.strictObject({
  name: v.string(),
  granularity: v.pipe(v.number(), v.safeInteger(), v.minValue(512)),
  enabled: v.boolean(),
  /** The image has a copy of it from before the regions. */
  isStored: v.boolean(),
});
export type BitmapRecord = v.InferOutput<typeof bitmapRecord>;

/** What an engine that was lost has left of a node's bitmaps. */
export interface RecordedBitmaps {
  readonly bitmaps: readonly BitmapRecord[];
  readonly regions: Regions;
}

/** null: nothing that can be relied on. */
export function recordedBitmaps(node: BlockNode): RecordedBitmaps | null {
  const found = node.world.intents?.find(idOf(node), [node], node.world.kernel);
  if (!found) return null;
  const bitmaps = v.safeParse(v.array(bitmapRecord), found.more["bitmaps"]);
  return bitmaps.success ? { bitmaps: bitmaps.output, regions: found.regions } : null;
}

/** Adds what is on record to the bits of a bitmap, which is to stay there. */
export function addRegions(node: BlockNode, bitmap: DirtyBitmap, regions: Regions): void {
  node.bitmaps.left = regions;
  for (const { offset, bytes } of regions.ranges()) bitmap.set(offset, bytes);
}

/**
 * To be called whenever a node has got or lost a persistent bitmap, or one has been switched on or off,
 * or the node has become writable: what is on record is what is, before anybody is told.
 */
export function bitmapsChanged(node: BlockNode): void {
  const { intents } = node.world;
  if (!intents || node.readOnly) return;
  const { bitmaps } = node;
  const kept = keptBitmaps(node);
  if (bitmaps.intent) {
    if (kept.length === 0) endBitmapIntent(node);
    else intents.touch();
    return;
  }
  if (kept.length === 0) return;
  const intent = intents.begin({
    id: idOf(node),
    nodes: [node],
    regionBytes: regionBytesFor(getLength(node), 512),
    describe: () => ({ bitmaps: keptBitmaps(node).map((bitmap) => describe(bitmap, node)) }),
  });
  bitmaps.intent = intent;
  intent.publish();
  for (const { offset, bytes } of bitmaps.left?.ranges() ?? []) intent.mark(offset, bytes);
}

/** The disk has another size: what is to be marked is, and regions are as large as they have to be then. */
export function bitmapsResized(
  node: BlockNode,
  marked: { readonly offset: number; readonly bytes: number },
): void {
  const { intent } = node.bitmaps;
  if (!intent) return;
  const isTooFine = intent.regionBytes < regionBytesFor(getLength(node), 512);
  const next = isTooFine ? beginAnew(node, intent) : intent;
  next?.mark(marked.offset, marked.bytes);
}

function beginAnew(node: BlockNode, before: WriteIntent): WriteIntent | null {
  endIntent(node.bitmaps);
  bitmapsChanged(node);
  const { intent } = node.bitmaps;
  for (const { offset, bytes } of before.regions.ranges()) intent?.mark(offset, bytes);
  return intent;
}

/** Marks in this bitmap that no write to its node has brought, or is bringing. */
export function markForeign({ bitmaps }: BlockNode, marks: DirtyBitmap): void {
  if (bitmaps.intent) markAll(bitmaps.intent, marks);
}

/** The image's copies are right again, or there are none. */
export function endBitmapIntent({ bitmaps }: BlockNode): void {
  bitmaps.left = null;
  endIntent(bitmaps);
}

function endIntent(bitmaps: BitmapList): void {
  bitmaps.intent?.end();
  bitmaps.intent = null;
}

/** The node is closed, and its image does not have its bitmaps: whoever opens it finds the record. */
export function leaveBitmapIntent({ bitmaps }: BlockNode): void {
  bitmaps.intent?.leaveRecord();
  bitmaps.intent = null;
}

/** Everything that is dirty in a bitmap is to be on record. */
export function markAll(intent: WriteIntent, marks: DirtyBitmap): void {
  for (let at = 0; ; ) {
    const area = marks.nextDirtyArea(at, marks.size, Number.MAX_SAFE_INTEGER);
    if (!area) return;
    intent.mark(area.offset, area.bytes);
    at = area.offset + area.bytes;
  }
}

function describe(bitmap: DirtyBitmap, { bitmaps }: BlockNode): BitmapRecord {
  const { name, granularity, recording: enabled } = bitmap;
  return { name: name ?? "", granularity, enabled, isStored: bitmaps.stored.has(bitmap) };
}

/** Those whose bits mean something. */
function keptBitmaps({ bitmaps }: BlockNode): DirtyBitmap[] {
  return bitmaps.all().filter(({ persistent, inconsistent }) => persistent && !inconsistent);
}

function idOf(node: BlockNode): string {
  return `bitmaps of ${imagesOf(node).join(", ")}`;
}
