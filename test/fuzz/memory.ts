/** How much memory is in use once all garbage is gone, and whether it climbs. */

import { collectGarbage } from "../garbage.ts";

/** What comes and goes: caches, code that gets compiled, the collector's own slack. */
const SLACK_BYTES = 4 * 2 ** 20;
/** Batches of which the first say nothing yet. */
const WARM_UP = 3;

export function heapInUse(): number {
  collectGarbage();
  // Buffers are given back in the background, which the next collection waits for.
  collectGarbage();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

/**
 * By how many bytes the last third of the batches lies above the first, each by its smallest one: what
 * is on its way out only makes some batches larger, what stays behind makes all of them larger. 0 if
 * that is within what comes and goes, or there are too few batches to tell.
 */
export function growth(heap: readonly number[]): number {
  const settled = heap.slice(WARM_UP);
  const third = Math.floor(settled.length / 3);
  if (third === 0) return 0;
  const more = Math.min(...settled.slice(-third)) - Math.min(...settled.slice(0, third));
  return more > SLACK_BYTES ? more : 0;
}
