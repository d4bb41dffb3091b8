/**
 * The kernels: pure functions over linear memory, and nothing else.
 *
 * No imports, no heap, no state between calls: every argument is an address or a number, every
 * answer is a number or bytes at an address that the caller named. Nothing is checked here, so an
 * address or index out of range is the caller's bug; src/kernel/kernel.ts is the door that checks.
 * Each kernel has a plain twin in test/kernel/twins.ts that it must agree with.
 */

export {
  bitmapClear,
  bitmapCount,
  bitmapMerge,
  bitmapNextClear,
  bitmapNextSet,
  bitmapSet,
} from "./bitmap";
export { firstDifference, isZero, zeroRun } from "./bytes";
export { copy, gather, scatter } from "./cluster";
export { l2Run, l2RunExtended } from "./l2";
export { refcountAdd, refcountGet, refcountNextFree, refcountNextUsed } from "./refcount";
export { xtsSectors } from "./xts";
