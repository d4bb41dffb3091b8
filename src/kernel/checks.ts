/**
 * What must hold of a kernel's arguments. Kernels check nothing, and what they are told wrong they do
 * to somebody else's buffer, so each of these is a wall and not a courtesy.
 */

import { assert } from "../base/errors.ts";

/** start .. start+count-1 are whole numbers in 0 .. total-1; nothing of nothing is allowed. */
export function checkRange(start: number, count: number, total: number, invariant: string): void {
  const whole = Number.isSafeInteger(start) && Number.isSafeInteger(count);
  assert(whole && start >= 0 && count >= 0 && start + count <= total, invariant);
}

/** A range of fields, 1 << order bits each, lies in an array of whole u64 words. */
export function checkFields(array: Uint8Array, order: number, start: number, count: number): void {
  assert(array.length % 8 === 0, "bitmaps and refcount blocks are whole words");
  checkRange(order, 0, 6, "fields have 1 << 0 to 1 << 6 bits");
  checkRange(start, count, (array.length * 8) / 2 ** order, "fields lie in their array");
}

/**
 * A list of clusters fits both ends of a gather or scatter.
 *
 * @param many where the listed clusters are
 * @param few where as many lie side by side
 */
export function checkList(
  many: Uint8Array,
  few: Uint8Array,
  indexes: Uint32Array,
  clusterBytes: number,
): void {
  assert(Number.isSafeInteger(clusterBytes) && clusterBytes > 0, "a cluster has bytes");
  assert(indexes.length * clusterBytes <= few.length, "the listed clusters have room");
  const clusters = Math.floor(many.length / clusterBytes);
  assert(
    indexes.every((index) => index < clusters),
    "every listed cluster is there",
  );
  assert(
    many.buffer !== few.buffer ||
      many.byteOffset + many.length <= few.byteOffset ||
      few.byteOffset + few.length <= many.byteOffset,
    "clusters are not moved within one area",
  );
}
