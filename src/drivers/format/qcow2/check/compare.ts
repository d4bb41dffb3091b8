/**
 * What the refcounts say against what refers to the clusters, in pieces of a refcount block.
 *
 *     refcount > references    a leak: space that nobody uses
 *     refcount < references    corruption: the cluster may be handed out while it is in use
 *
 * On the way it notes which clusters have refcount 1: that is what COPIED flags are about.
 */

import type { CheckFix } from "../../../../block/check.ts";
import { readSoFar, writeTable } from "./context.ts";
import { readCount, UNREADABLE, writeCount } from "./refcount-blocks.ts";
import type { RefcountOnes } from "./refcount-ones.ts";
import { PAGE_CLUSTERS } from "./reference-counts.ts";
import type { Walk } from "./walk.ts";

const PIECE_CLUSTERS = 64 * 1024;

/**
 * The clusters of one walk's stretch.
 *
 * @param fix what is mended in place. A cluster with refcount 0 that is in use cannot: then all refcounts
 *   are to be made anew
 */
export async function compare(
  walk: Walk,
  blocks: Float64Array,
  fix: CheckFix,
  ones: RefcountOnes,
): Promise<void> {
  const { checked, counts } = walk;
  const { layout } = checked.image;
  const { refcountBlockEntries: perBlock, clusterBytes } = layout;
  const bits = 2 ** layout.refcountOrder;
  const end = Math.min(walk.clusters, counts.end);
  tellOverflows(walk);
  for (let start = counts.start; start < end; ) {
    const block = Math.floor(start / perBlock);
    const stop = Math.min(end, (block + 1) * perBlock, start + PIECE_CLUSTERS);
    const offset = blocks[block] ?? 0;
    const hasReferences = !counts.isEmpty(start, stop);
    if (offset === UNREADABLE) {
      const text = `Clusters ${start} to ${stop - 1} have no refcounts: their block cannot be read`;
      checked.tally.refcountError(text, stop - start);
    } else if (offset !== 0 || hasReferences) {
      const bytes = new Uint8Array(Math.ceil(((stop - start) * bits) / 8));
      const place = offset + ((start % perBlock) * bits) / 8;
      if (offset > 0) await readSoFar(checked, bytes, place);
      const changed = compareStretch(walk, { start, stop, bytes, fix, ones });
      if (changed) await writeTable(checked, bytes, place);
    }
    const rest = checked.tally.step(Math.min(clusterBytes, stop - start));
    if (rest) await rest;
    start = stop;
  }
}

function tellOverflows({ checked, counts }: Walk): void {
  const { clusterBytes } = checked.image.layout;
  for (const { first, references } of counts.overflows()) {
    checked.tally.corruption(
      `Clusters from ${first} (of ${clusterBytes} bytes) on have more references than refcounts of ` +
        `${2 ** checked.image.layout.refcountOrder} bits can tell`,
      references,
    );
  }
}

interface Stretch {
  readonly start: number;
  readonly stop: number;
  /** Refcounts of these clusters. */
  readonly bytes: Uint8Array;
  readonly fix: CheckFix;
  readonly ones: RefcountOnes;
}

/** @returns true if refcounts were changed */
function compareStretch(walk: Walk, { start, stop, bytes, fix, ones }: Stretch): boolean {
  const { checked, counts } = walk;
  const { tally, image } = checked;
  const { refcountOrder: order } = image.layout;
  let changed = false;
  let highest = -1;
  let page = counts.page(start);
  for (let i = 0; i < stop - start; i++) {
    const cluster = start + i;
    const inPage = cluster % PAGE_CLUSTERS;
    if (inPage === 0) page = counts.page(cluster);
    const actual = readCount(bytes, order, i);
    const wanted = page ? page[inPage]! : 0;
    if (actual === wanted) {
      if (actual === 0) continue;
      highest = cluster;
      if (actual === 1) ones.set(cluster);
      continue;
    }
    highest = cluster;
    const text = `Cluster ${cluster} has refcount ${actual} and ${wanted} references`;
    let fixed = false;
    if (actual === 0) tally.needsRebuild = true;
    else fixed = actual > wanted ? fix !== "none" && !tally.isIncomplete : fix === "all";
    if (actual > wanted) tally.leak(text, fixed);
    else if (fixed) tally.fixedCorruption(text);
    else tally.refcountCorruption(text);
    if (fixed) {
      writeCount(bytes, order, i, wanted);
      changed = true;
    }
    if ((fixed ? wanted : actual) === 1) ones.set(cluster);
  }
  if (highest >= 0) noteHighest(walk, highest);
  return changed;
}

function noteHighest({ checked }: Walk, cluster: number): void {
  const { counts } = checked.tally;
  const end = (cluster + 1) * checked.image.layout.clusterBytes;
  if (end > counts["image-end-offset"]) counts["image-end-offset"] = end;
}
