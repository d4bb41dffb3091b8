/**
 * Which parts of a buffer are worth writing, and which are holes (QEMU: is_allocated_sectors_min() in
 * qemu-img.c; the same holes, so that maps are the same):
 *
 *     sectors   00000000 00xx0000 00000000 00000000 x0000000      0 zeroes   x data
 *     runs      ├ hole ─┤├ data ┤├───── hole ──────┤├ data ┤      ends at multiples of `alignment`
 *
 * Zeroes between data that are shorter than `sparse` are data, too.
 */

import { SECTOR_BYTES } from "../base/bytes.ts";
import type { Kernel } from "../kernel/kernel.ts";

export interface DataRun {
  readonly bytes: number;
  readonly zero: boolean;
}

export interface Sparseness {
  /** Bytes, whole sectors, > 0: shorter runs of zeroes between data are no holes. */
  readonly sparse: number;
  /** Bytes, a power of two: where runs begin and end. */
  readonly alignment: number;
}

/** The run at the buffer's start. @param offset where in the target it goes; whole sectors, as the buffer */
export function dataRun(
  kernel: Kernel,
  buf: Uint8Array,
  offset: number,
  { sparse, alignment }: Sparseness,
): DataRun {
  const first = alignedRun(kernel, buf, offset, alignment);
  if (first.zero) return first;
  const enough = Math.min(sparse, buf.length);
  let used = first.bytes;
  for (let at = used; at < buf.length; ) {
    const next = alignedRun(kernel, buf.subarray(at), offset + at, alignment);
    at += next.bytes;
    if (!next.zero) used = at;
    else if (next.bytes >= enough) break;
  }
  return { bytes: used, zero: false };
}

function alignedRun(kernel: Kernel, buf: Uint8Array, offset: number, alignment: number): DataRun {
  const { bytes, zero } = kernel.zeroRun(buf, SECTOR_BYTES);
  // All of one kind: nothing to align.
  if (bytes === buf.length) return { bytes, zero };
  const tail = (offset + bytes) % alignment;
  if (tail === 0) return { bytes, zero };
  const up = Math.min(bytes + alignment - tail, buf.length);
  // Zeroes that do not reach back to an aligned place belong to the data behind them.
  if (!zero || bytes <= tail) return { bytes: up, zero: false };
  return { bytes: bytes - tail, zero: true };
}
