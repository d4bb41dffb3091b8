/**
 * Keys of AES as assembly/xts.ts takes them: tables and round keys side by side (FIPS 197).
 *
 *     0 ─── 2048 ─── 2304 ──────────── 2544
 *     │ table │ s-box  │ round keys, u32  │     all words little-endian
 *
 * The table joins substitution and mixing. For decryption both are inverse, and the round keys go
 * backwards, mixed likewise, so that the steps are those of encryption.
 */

import { assert } from "../base/errors.ts";

const BOX = 2048;
const KEYS = 2304;
const KEY_BYTES = 2544;

/** What Kernel.xts() works with. Made from secret bytes: as secret as those. */
export interface XtsKey {
  readonly rounds: number;
  readonly encryption: Uint8Array;
  readonly decryption: Uint8Array;
  /** For the tweaks, which are encrypted both ways. */
  readonly tweak: Uint8Array;
}

/** @param key two AES keys of 16, 24 or 32 bytes: for data, then for tweaks */
export function xtsKey(key: Uint8Array): XtsKey {
  assert([32, 48, 64].includes(key.length), "an XTS key is two AES keys");
  const half = key.length / 2;
  const data = expand(key.subarray(0, half));
  return {
    rounds: half / 4 + 6,
    encryption: bundle(BOXES.forward, [2, 1, 1, 3], data),
    decryption: bundle(BOXES.inverse, [14, 9, 13, 11], inverted(data)),
    tweak: bundle(BOXES.forward, [2, 1, 1, 3], expand(key.subarray(half))),
  };
}

const BOXES = makeBoxes();

function bundle(box: Uint8Array, mix: readonly number[], words: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(KEY_BYTES);
  const view = new DataView(bytes.buffer);
  for (const [byte, value] of box.entries()) {
    const word = mixed(value, mix);
    view.setUint32(byte * 8, word, true);
    view.setUint32(byte * 8 + 4, word, true);
  }
  bytes.set(box, BOX);
  for (const [i, word] of words.entries()) view.setUint32(KEYS + i * 4, word, true);
  return bytes;
}

/** The round keys of encryption. */
function expand(key: Uint8Array): number[] {
  const view = new DataView(key.buffer, key.byteOffset, key.length);
  const own = key.length / 4;
  const words: number[] = [];
  for (let i = 0; i < own; i++) words.push(view.getUint32(i * 4, true));
  let constant = 1;
  for (let i = own; i < 4 * (own + 7); i++) {
    let word = words[i - 1]!;
    if (i % own === 0) {
      word = substituted((word >>> 8) | (word << 24)) ^ constant;
      constant = double(constant);
    } else if (own > 6 && i % own === 4) word = substituted(word);
    words.push((words[i - own]! ^ word) >>> 0);
  }
  return words;
}

/** Round keys for decryption: from the last to the first, and all but those two mixed backwards. */
function inverted(words: readonly number[]): number[] {
  const result: number[] = [];
  for (let at = words.length - 4; at >= 0; at -= 4) {
    for (const word of words.slice(at, at + 4)) {
      result.push(at === 0 || at === words.length - 4 ? word : unmixed(word));
    }
  }
  return result;
}

function unmixed(word: number): number {
  let result = 0;
  for (let row = 0; row < 4; row++) {
    const column = mixed((word >>> (8 * row)) & 255, [14, 9, 13, 11]);
    result ^= row === 0 ? column : (column << (8 * row)) | (column >>> (32 - 8 * row));
  }
  return result >>> 0;
}

/** What a byte of row 0 gives to each of the four rows. */
function mixed(byte: number, mix: readonly number[]): number {
  return mix.reduce((word, factor, row) => word | (times(byte, factor) << (8 * row)), 0) >>> 0;
}

function substituted(word: number): number {
  let result = 0;
  for (let at = 0; at < 32; at += 8) result |= BOXES.forward[(word >>> at) & 255]! << at;
  return result >>> 0;
}

/** Both ways of the substitution: the inverse in GF(2^8), and an affine map. */
function makeBoxes(): { readonly forward: Uint8Array; readonly inverse: Uint8Array } {
  const forward = new Uint8Array(256);
  const inverse = new Uint8Array(256);
  // 3 makes every byte but 0, and 0xf6 is its inverse.
  for (let i = 0, byte = 1, inverted = 1; i < 255; i++) {
    const spread = inverted * 0x101;
    const turned = spread ^ (spread >> 4) ^ (spread >> 5) ^ (spread >> 6) ^ (spread >> 7);
    forward[byte] = (turned ^ 0x63) & 255;
    byte = times(byte, 3);
    inverted = times(inverted, 0xf6);
  }
  forward[0] = 0x63;
  for (const [byte, value] of forward.entries()) inverse[value] = byte;
  return { forward, inverse };
}

function times(byte: number, factor: number): number {
  let product = 0;
  for (let bit = byte; factor > 0; bit = double(bit), factor >>= 1) if (factor & 1) product ^= bit;
  return product;
}

function double(byte: number): number {
  return ((byte << 1) ^ (byte & 128 ? 0x11b : 0)) & 255;
}
