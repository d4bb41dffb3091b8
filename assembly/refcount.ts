/**
 * qcow2 refcount blocks: what is free, and counting up and down.
 *
 * A block is an array of unsigned refcounts, 1 << order bits each, order 0 .. 6 (the header's
 * refcount_order). Below a byte they lie from the lowest bit up, above it they are big-endian:
 *
 *   order 1     byte 0 │ 3 3 2 2 1 1 0 0 │     order 4     byte 0 │ high │ byte 1 │ low │
 *               bit      7 6 5 4 3 2 1 0
 *
 * Source: QEMU docs/interop/qcow2.txt, "Host cluster management".
 */

import { nextField } from "./fields";

/** The first index in start .. end-1 whose refcount is zero, or -1. */
export function refcountNextFree(block: usize, order: u32, start: u32, end: u32): i32 {
  return nextField(block, order, start, end, false);
}

/** The first index in start .. end-1 whose refcount is not zero, or -1. */
export function refcountNextUsed(block: usize, order: u32, start: u32, end: u32): i32 {
  return nextField(block, order, start, end, true);
}

/** A refcount, exact below 2^53; 2^53 stands for anything from there on. */
export function refcountGet(block: usize, order: u32, index: u32): f64 {
  return f64(min<u64>(get(block, order, index), 1 << 53));
}

/**
 * Adds `delta` to `count` refcounts, or to none of them.
 *
 * @returns -1, or the first index whose refcount would leave 0 .. 2^bits-1; nothing has changed then
 */
export function refcountAdd(block: usize, order: u32, index: u32, count: u32, delta: i32): i32 {
  const end = index + count;
  const highest = u64(~0) >> (64 - (1 << order));
  const change = i64(delta);
  const amount = u64(abs(change));
  for (let i = index; i < end; ++i) {
    const value = get(block, order, i);
    if (amount > (delta < 0 ? value : highest - value)) return i;
  }
  for (let i = index; i < end; ++i) put(block, order, i, get(block, order, i) + change);
  return -1;
}

function get(block: usize, order: u32, index: u32): u64 {
  switch (order) {
    case 3:
      return load<u8>(block + index);
    case 4:
      return bswap(load<u16>(block + (index << 1)));
    case 5:
      return bswap(load<u32>(block + (index << 2)));
    case 6:
      return bswap(load<u64>(block + (index << 3)));
    default: {
      const bit = index << order;
      return (load<u8>(block + (bit >> 3)) >> (bit & 7)) & ((1 << (1 << order)) - 1);
    }
  }
}

function put(block: usize, order: u32, index: u32, value: u64): void {
  switch (order) {
    case 3:
      store<u8>(block + index, u8(value));
      break;
    case 4:
      store<u16>(block + (index << 1), bswap(u16(value)));
      break;
    case 5:
      store<u32>(block + (index << 2), bswap(u32(value)));
      break;
    case 6:
      store<u64>(block + (index << 3), bswap(value));
      break;
    default: {
      const bit = index << order;
      const at = block + (bit >> 3);
      const mask: u32 = ((1 << (1 << order)) - 1) << (bit & 7);
      store<u8>(at, (load<u8>(at) & ~mask) | (u32(value) << (bit & 7)));
    }
  }
}
