/**
 * QEMU's words for how writes reach the store, and what is left of them here: nothing caches below, so
 * they differ in when a write is flushed.
 *
 *     none, writeback              at the end, and where an image's own order needs it
 *     writethrough, directsync     each write before the next
 *     unsafe                       never: a crash may take anything back
 */

import { BlockError } from "../base/errors.ts";

export interface CacheMode {
  readonly direct: boolean;
  readonly noFlush: boolean;
  readonly writethrough: boolean;
}

const MODES: ReadonlyMap<string, CacheMode> = new Map([
  ["none", { direct: true, noFlush: false, writethrough: false }],
  ["off", { direct: true, noFlush: false, writethrough: false }],
  ["writeback", { direct: false, noFlush: false, writethrough: false }],
  ["writethrough", { direct: false, noFlush: false, writethrough: true }],
  ["directsync", { direct: true, noFlush: false, writethrough: true }],
  ["unsafe", { direct: false, noFlush: true, writethrough: false }],
]);

/** @throws BlockError EINVAL */
export function cacheMode(name: string): CacheMode {
  const mode = MODES.get(name);
  if (mode) return mode;
  const known = [...MODES.keys()].join(", ");
  throw new BlockError("EINVAL", `There is no cache mode '${name}'; there are: ${known}`);
}
