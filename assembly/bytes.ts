/**
 * Bytes without a format: are they all zero, and for how long, and where do two areas part?
 *
 * Real data nearly always shows itself at the first, middle or last byte of a cluster, so those are
 * looked at before the long walk; only zeroes, and sparse data, cost the whole length.
 */

const VECTOR: u32 = 16;
const STRIDE: u32 = 64;

/**
 * Tells whether all bytes are zero. No bytes at all are zero, too.
 *
 * @param address any alignment
 * @param bytes any length
 */
export function isZero(address: usize, bytes: u32): bool {
  if (bytes < VECTOR) return isZeroShort(address, bytes);

  const last = address + bytes - VECTOR;
  const middle = address + ((bytes - VECTOR) >> 1);
  const ends = v128.or(v128.load(address), v128.load(last));
  if (v128.any_true(v128.or(ends, v128.load(middle)))) return false;

  // The last vector is known to be zero, so the walk may stop anywhere inside it.
  for (; address + STRIDE <= last; address += STRIDE) {
    const low = v128.or(v128.load(address), v128.load(address, 16));
    const high = v128.or(v128.load(address, 32), v128.load(address, 48));
    if (v128.any_true(v128.or(low, high))) return false;
  }
  for (; address < last; address += VECTOR) {
    if (v128.any_true(v128.load(address))) return false;
  }
  return true;
}

/**
 * Counts the bytes from the start on that have one answer to isZero(), asked granule by granule.
 *
 * @param bytes > 0, below 2^31; a short last granule is asked for what there is of it
 * @param granule bytes per question, > 0
 * @returns bytes << 1 | zero: where the run ends, and whether it is all zero (1) or in every
 *   granule holds data (0)
 */
export function zeroRun(address: usize, bytes: u32, granule: u32): u32 {
  let reach = min(granule, bytes);
  const zero = isZero(address, reach);
  while (reach < bytes) {
    const next = min(granule, bytes - reach);
    if (isZero(address + reach, next) != zero) break;
    reach += next;
  }
  return (reach << 1) | u32(zero);
}

/** The offset of the first byte in which two areas differ, or -1. Any alignment, below 2^31. */
export function firstDifference(a: usize, b: usize, bytes: u32): i32 {
  let at: u32 = 0;
  for (; at + VECTOR <= bytes; at += VECTOR) {
    const same = i8x16.eq(v128.load(a + at), v128.load(b + at));
    if (!i8x16.all_true(same)) return at + ctz(~i8x16.bitmask(same));
  }
  for (; at < bytes; ++at) {
    if (load<u8>(a + at) != load<u8>(b + at)) return at;
  }
  return -1;
}

/** isZero() for fewer bytes than a vector. */
function isZeroShort(address: usize, bytes: u32): bool {
  let all: u32 = 0;
  for (let at: u32 = 0; at < bytes; ++at) all |= load<u8>(address + at);
  return all == 0;
}
