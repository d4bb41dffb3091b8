/**
 * A bitmap of any size whose memory grows with what is mixed in it, not with its size: a tree in
 * which stretches that are all set or all clear are marks (see bit-tree.ts). A disk that claims
 * 2^53 bytes costs no more than a floppy (QEMU: util/hbitmap.c, which has a flat lowest level).
 *
 * Positions and counts are bits; a range is `start`, `count`, or `start` .. `end` - 1. What lies past
 * the size is clear, always.
 */

import { assert } from "../base/errors.ts";
import { Branch, LEAF_BITS } from "./bit-tree.ts";
import { checkRange } from "./checks.ts";
import type { Kernel } from "./kernel.ts";

/** What the bits of a range are. */
export type BitKind = "clear" | "set" | "mixed";

export class HBitmap {
  readonly #kernel: Kernel;
  #root: Branch;
  #size: number;

  /** All clear. @param size in bits, 0 .. 2^53-1 */
  constructor(kernel: Kernel, size: number) {
    assert(Number.isSafeInteger(size) && size >= 0, "a bitmap has a whole number of bits");
    this.#kernel = kernel;
    this.#size = size;
    this.#root = new Branch(kernel, LEAF_BITS);
    while (this.#root.capacity < size) this.#root = this.#root.raised();
  }

  get size(): number {
    return this.#size;
  }

  /** Set bits. */
  get count(): number {
    return this.#root.count;
  }

  get(bit: number): boolean {
    this.#check(bit, 1);
    return this.#root.search(bit, bit + 1, true) >= 0;
  }

  set(start: number, count: number): void {
    this.#fill(start, count, true);
  }

  clear(start: number, count: number): void {
    this.#fill(start, count, false);
  }

  /** The first set bit of start .. end-1, or null. */
  nextSet(start: number, end = this.#size): number | null {
    return this.#next(start, end, true);
  }

  /** The first clear bit of start .. end-1, or null. */
  nextClear(start: number, end = this.#size): number | null {
    return this.#next(start, end, false);
  }

  /** The first run of set bits in start .. end-1, of `most` bits if it is longer than that. */
  nextArea(start: number, end: number, most: number): { start: number; count: number } | null {
    assert(most > 0, "an area has bits");
    const first = this.nextSet(start, end);
    if (first === null) return null;
    const last = Math.min(end, first + most);
    return { start: first, count: (this.nextClear(first, last) ?? last) - first };
  }

  /** @param count > 0 */
  kindOf(start: number, count: number): BitKind {
    const end = start + count;
    if (this.nextSet(start, end) === null) return "clear";
    return this.nextClear(start, end) === null ? "set" : "mixed";
  }

  /** Sets what is set in the source, which is of the same size. */
  merge(source: HBitmap): void {
    assert(source.#size === this.#size, "bitmaps that are merged are of one size");
    this.#root.merge(source.#root);
  }

  copy(): HBitmap {
    const copy = new HBitmap(this.#kernel, 0);
    copy.#root = this.#root.copy();
    copy.#size = this.#size;
    return copy;
  }

  /** Another size: new bits are clear, and bits that are cut off are forgotten. */
  truncate(size: number): void {
    assert(Number.isSafeInteger(size) && size >= 0, "a bitmap has a whole number of bits");
    if (size < this.#size) this.#root.fill(size, this.#size, false);
    this.#size = size;
    while (this.#root.capacity < size) this.#root = this.#root.raised();
    // One size, one height: merge() goes through two trees at once.
    while (this.#root.childCapacity > LEAF_BITS && this.#root.childCapacity >= size) {
      this.#root = this.#root.lowered();
    }
  }

  /**
   * The bits from `start` on as little-endian u64 words, bit 0 in the lowest bit of the first byte:
   * the layout of qcow2's bitmaps and of QEMU's migration. What lies past the size is zeroes.
   *
   * @param start a multiple of 64
   * @param into whole words
   */
  serialize(start: number, into: Uint8Array): void {
    const inside = this.#wordsInside(start, into);
    if (inside > 0) this.#root.take(start, into.subarray(0, inside));
    into.fill(0, inside);
  }

  /** Replaces the bits from `start` on with what serialize() told; what is past the size is not read. */
  deserialize(start: number, from: Uint8Array): void {
    const inside = this.#wordsInside(start, from);
    if (inside === 0) return;
    this.#root.put(start, from.subarray(0, inside));
    const end = start + inside * 8;
    if (end > this.#size) this.#root.fill(this.#size, end, false);
  }

  /** Bytes of a buffer, whole words, that hold bits of the bitmap. */
  #wordsInside(start: number, buf: Uint8Array): number {
    assert(start % 64 === 0 && buf.length % 8 === 0, "bitmaps are serialised in whole words");
    assert(start >= 0, "a bitmap begins at bit 0");
    return Math.min(buf.length, Math.ceil(Math.max(0, this.#size - start) / 64) * 8);
  }

  #fill(start: number, count: number, value: boolean): void {
    this.#check(start, count);
    if (count > 0) this.#root.fill(start, start + count, value);
  }

  #next(start: number, end: number, value: boolean): number | null {
    this.#check(start, end - start);
    if (start === end) return null;
    const found = this.#root.search(start, end, value);
    return found < 0 ? null : found;
  }

  #check(start: number, count: number): void {
    checkRange(start, count, this.#size, "bits lie in their bitmap");
  }
}
