/**
 * Arrays of unsigned fields, all 1 << order bits wide, order 0 .. 6: which is the next that is zero,
 * or is not?
 *
 * Bitmaps (order 0) and refcount blocks (any order) are such arrays. Fields below a byte lie in it
 * from the lowest bit up; wider ones are big-endian, but zero is zero from both ends, so every array
 * can be read here as little-endian u64 words with the fields from the lowest bit up.
 */

/**
 * The first field in start .. end-1 that is zero, or (`used`) is not, or -1.
 *
 * @param base address of field 0, which lies at the low end of a word; no alignment needed
 * @param end fields, exclusive; the word that holds the last one may be read whole
 */
export function nextField(base: usize, order: u32, start: u32, end: u32, used: bool): i32 {
  if (start >= end) return -1;
  const wordBits = 6 - order;
  const lowBits = lowBitsOf(order);
  const words = ((end - 1) >> wordBits) + 1;
  let word = start >> wordBits;
  // Fields of the first word that lie before the start are no answer.
  let before = u64(~0) << ((start << order) & 63);
  while (word < words) {
    const zeroes = zeroFields(load<u64>(base + (word << 3)), order) & lowBits;
    const hits = (used ? zeroes ^ lowBits : zeroes) & before;
    if (hits) {
      const hit = (word << wordBits) + (u32(ctz(hits)) >> order);
      return hit < end ? i32(hit) : -1;
    }
    before = ~0;
    word = skip(base, order, word + 1, words, used);
  }
  return -1;
}

/** The first word from `word` on, two at a time, that is worth a closer look. */
function skip(base: usize, order: u32, word: u32, words: u32, used: bool): u32 {
  for (; word + 2 <= words; word += 2) {
    const pair = v128.load(base + (word << 3));
    if (used ? v128.any_true(pair) : mayHaveZero(pair, order)) break;
  }
  return word;
}

/** Never wrong to say yes. */
function mayHaveZero(pair: v128, order: u32): bool {
  switch (order) {
    case 0:
      return v128.any_true(v128.not(pair));
    case 3:
      return !i8x16.all_true(pair);
    case 4:
      return !i16x8.all_true(pair);
    case 5:
      return !i32x4.all_true(pair);
    case 6:
      return !i64x2.all_true(pair);
    default:
      return true;
  }
}

/** Sets the lowest bit of every field that is zero; other bits mean nothing. */
function zeroFields(word: u64, order: u32): u64 {
  // Folding half onto half, the lowest bit of a field ends as the OR of all its bits.
  for (let shift: u64 = 1; shift < u64(1) << order; shift <<= 1) word |= word >> shift;
  return ~word;
}

/** A word of fields that are all 1. */
function lowBitsOf(order: u32): u64 {
  return order == 6 ? 1 : u64(~0) / ((u64(1) << (1 << order)) - 1);
}
