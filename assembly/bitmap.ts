/**
 * Bitmaps: little-endian u64 words, bit 0 of a map in bit 0 of its first word, which on disk and in
 * memory is the same as bit n & 7 of byte n >> 3. Maps are whole words; addresses need no alignment.
 */

import { nextField } from "./fields";

/** The first set bit in start .. end-1, or -1. */
export function bitmapNextSet(map: usize, start: u32, end: u32): i32 {
  return nextField(map, 0, start, end, true);
}

/** The first clear bit in start .. end-1, or -1. */
export function bitmapNextClear(map: usize, start: u32, end: u32): i32 {
  return nextField(map, 0, start, end, false);
}

/** Sets `count` bits. */
export function bitmapSet(map: usize, start: u32, count: u32): void {
  fill(map, start, count, ~0);
}

/** Clears `count` bits. */
export function bitmapClear(map: usize, start: u32, count: u32): void {
  fill(map, start, count, 0);
}

/** How many of `count` bits are set. */
export function bitmapCount(map: usize, start: u32, count: u32): u32 {
  if (count == 0) return 0;
  const end = start + count;
  let at = map + ((start >> 6) << 3);
  const last = map + (((end - 1) >> 6) << 3);
  if (at == last) return u32(popcnt(load<u64>(at) & headMask(start) & tailMask(end)));

  let set = popcnt(load<u64>(at) & headMask(start)) + popcnt(load<u64>(last) & tailMask(end));
  for (at += 8; at < last; at += 8) set += popcnt(load<u64>(at));
  return u32(set);
}

/** Sets in the target what is set in the source. @param bytes a multiple of 8 */
export function bitmapMerge(target: usize, source: usize, bytes: u32): void {
  let at: u32 = 0;
  for (; at + 16 <= bytes; at += 16) {
    v128.store(target + at, v128.or(v128.load(target + at), v128.load(source + at)));
  }
  if (at < bytes) store<u64>(target + at, load<u64>(target + at) | load<u64>(source + at));
}

/** Makes `count` bits those of `value`, which is all zeroes or all ones. */
function fill(map: usize, start: u32, count: u32, value: u64): void {
  if (count == 0) return;
  const end = start + count;
  const first = map + ((start >> 6) << 3);
  const last = map + (((end - 1) >> 6) << 3);
  if (first == last) {
    blend(first, value, headMask(start) & tailMask(end));
    return;
  }
  blend(first, value, headMask(start));
  memory.fill(first + 8, u8(value), last - first - 8);
  blend(last, value, tailMask(end));
}

/** Takes the bits under the mask from `value`, and leaves the others. */
function blend(at: usize, value: u64, mask: u64): void {
  store<u64>(at, (load<u64>(at) & ~mask) | (value & mask));
}

/** The bits of the first word that are not before the start. */
function headMask(start: u32): u64 {
  return u64(~0) << (start & 63);
}

/** The bits of the last word that are before the end, which is > 0. */
function tailMask(end: u32): u64 {
  return u64(~0) >> ((64 - (end & 63)) & 63);
}
