/**
 * The pieces that a hierarchical bitmap is made of: what is all alike is a mark, and only what is
 * mixed takes memory. The searching, filling and counting is done by the kernels.
 *
 *   branch   some  1 1 0 1 …     child has a set bit       1024 children
 *            full  0 1 0 0 …     child has no clear bit
 *                  │     │
 *                mixed  mixed    only these are there: branches again, or leaves
 *   leaf     4 KiB of bits, little-endian u64 words
 *
 * Positions are bits, counted within the piece, up to 2^53: no bit operators on them.
 */

import { assert } from "../base/errors.ts";
import type { Kernel } from "./kernel.ts";

/** Bits of a leaf. */
export const LEAF_BITS = 2 ** 15;
/** Children of a branch. */
export const FAN_OUT = 2 ** 10;

/** What a leaf and a branch can both do. Ranges are `from` .. `to` - 1, never empty. */
interface Piece {
  /** Set bits. */
  readonly count: number;
  fill(from: number, to: number, value: boolean): void;
  /** The first bit of that value, or -1. */
  search(from: number, to: number, value: boolean): number;
  /** Bits from `from` on, a multiple of 64, as bytes: whole words that end within the piece. */
  put(from: number, bytes: Uint8Array): void;
  take(from: number, into: Uint8Array): void;
}

class Leaf implements Piece {
  readonly #kernel: Kernel;
  readonly #bits: Uint8Array<ArrayBuffer>;
  count: number;

  private constructor(kernel: Kernel, bits: Uint8Array<ArrayBuffer>, count: number) {
    this.#kernel = kernel;
    this.#bits = bits;
    this.count = count;
  }

  static of(kernel: Kernel, value: boolean): Leaf {
    const bits = new Uint8Array(LEAF_BITS / 8);
    return value ? new Leaf(kernel, bits.fill(0xff), LEAF_BITS) : new Leaf(kernel, bits, 0);
  }

  copy(): Leaf {
    return new Leaf(this.#kernel, this.#bits.slice(), this.count);
  }

  fill(from: number, to: number, value: boolean): void {
    const bits = to - from;
    const wanted = value ? bits : 0;
    const before = this.#kernel.bitmapCount(this.#bits, from, bits);
    if (before === wanted) return;
    if (value) this.#kernel.bitmapSet(this.#bits, from, bits);
    else this.#kernel.bitmapClear(this.#bits, from, bits);
    this.count += wanted - before;
  }

  search(from: number, to: number, value: boolean): number {
    return value
      ? this.#kernel.bitmapNextSet(this.#bits, from, to)
      : this.#kernel.bitmapNextClear(this.#bits, from, to);
  }

  merge(source: Leaf): void {
    this.#kernel.bitmapMerge(this.#bits, source.#bits);
    this.count = this.#kernel.bitmapCount(this.#bits, 0, LEAF_BITS);
  }

  put(from: number, bytes: Uint8Array): void {
    const bits = bytes.length * 8;
    this.count -= this.#kernel.bitmapCount(this.#bits, from, bits);
    this.#bits.set(bytes, from / 8);
    this.count += this.#kernel.bitmapCount(this.#bits, from, bits);
  }

  take(from: number, into: Uint8Array): void {
    into.set(this.#bits.subarray(from / 8, from / 8 + into.length));
  }
}

export class Branch implements Piece {
  readonly #kernel: Kernel;
  readonly #span: number;
  readonly #some: Uint8Array<ArrayBuffer>;
  readonly #full: Uint8Array<ArrayBuffer>;
  readonly #mixed = new Map<number, Leaf | Branch>();
  #count: number;

  /** @param span bits of one child: LEAF_BITS times a power of FAN_OUT */
  constructor(kernel: Kernel, span: number, value = false) {
    this.#kernel = kernel;
    this.#span = span;
    this.#some = new Uint8Array(FAN_OUT / 8).fill(value ? 0xff : 0);
    this.#full = this.#some.slice();
    this.#count = value ? span * FAN_OUT : 0;
  }

  get count(): number {
    return this.#count;
  }

  /** Bits in all. */
  get capacity(): number {
    return this.#span * FAN_OUT;
  }

  /** Bits of one child. */
  get childCapacity(): number {
    return this.#span;
  }

  copy(): Branch {
    const copy = new Branch(this.#kernel, this.#span);
    copy.#some.set(this.#some);
    copy.#full.set(this.#full);
    copy.#count = this.#count;
    for (const [index, child] of this.#mixed) copy.#mixed.set(index, child.copy());
    return copy;
  }

  /** A branch with this one as its first child, and nothing else. */
  raised(): Branch {
    const above = new Branch(this.#kernel, this.capacity);
    above.#settle(0, this);
    above.#count = this.#count;
    return above;
  }

  /** The first child, of a branch that has branches. */
  lowered(): Branch {
    const child = this.#open(0);
    assert(child instanceof Branch, "a branch over leaves is the lowest there is");
    return child;
  }

  fill(from: number, to: number, value: boolean): void {
    const span = this.#span;
    const first = Math.ceil(from / span);
    const last = Math.floor(to / span);
    if (first > last) {
      this.#fillPart(last, from, to, value);
      return;
    }
    if (from < first * span) this.#fillPart(first - 1, from, first * span, value);
    if (first < last) this.#fillWhole(first, last, value);
    if (to > last * span) this.#fillPart(last, last * span, to, value);
  }

  search(from: number, to: number, value: boolean): number {
    const span = this.#span;
    const end = Math.ceil(to / span);
    for (let i = Math.floor(from / span); i < end; i++) {
      i = value
        ? this.#kernel.bitmapNextSet(this.#some, i, end)
        : this.#kernel.bitmapNextClear(this.#full, i, end);
      if (i < 0) return -1;
      const base = i * span;
      const start = Math.max(0, from - base);
      const child = this.#mixed.get(i);
      const found = child ? child.search(start, Math.min(span, to - base), value) : start;
      if (found >= 0) return base + found;
    }
    return -1;
  }

  /** Sets what is set in a branch of the same span. */
  merge(source: Branch): void {
    for (let i = 0; i < FAN_OUT; i++) {
      i = this.#kernel.bitmapNextSet(source.#some, i, FAN_OUT);
      if (i < 0) return;
      if (mark(this.#full, i)) continue;
      const other = source.#mixed.get(i);
      if (!other) this.#fillWhole(i, i + 1, true);
      else {
        this.#edit(i, (child) => {
          if (child instanceof Leaf && other instanceof Leaf) child.merge(other);
          if (child instanceof Branch && other instanceof Branch) child.merge(other);
        });
      }
    }
  }

  put(from: number, bytes: Uint8Array): void {
    this.#eachPart(from, bytes, (index, start, part) => {
      const base = index * this.#span + start;
      if (this.#kernel.isZero(part)) this.fill(base, base + part.length * 8, false);
      else this.#edit(index, (child) => child.put(start, part));
    });
  }

  take(from: number, into: Uint8Array): void {
    this.#eachPart(from, into, (index, start, part) => {
      const child = this.#mixed.get(index);
      if (child) child.take(start, part);
      else part.fill(mark(this.#full, index) ? 0xff : 0);
    });
  }

  /** Cuts bytes at the children's borders. `start` is in bits of the child. */
  #eachPart(
    from: number,
    bytes: Uint8Array,
    visit: (index: number, start: number, part: Uint8Array) => void,
  ): void {
    for (let done = 0; done < bytes.length; ) {
      const at = from + done * 8;
      const index = Math.floor(at / this.#span);
      const start = at - index * this.#span;
      const length = Math.min(bytes.length - done, (this.#span - start) / 8);
      visit(index, start, bytes.subarray(done, done + length));
      done += length;
    }
  }

  /** A part of one child; positions are this branch's. */
  #fillPart(index: number, from: number, to: number, value: boolean): void {
    const already = value ? mark(this.#full, index) : !mark(this.#some, index);
    if (already) return;
    const base = index * this.#span;
    this.#edit(index, (child) => child.fill(from - base, to - base, value));
  }

  #fillWhole(first: number, last: number, value: boolean): void {
    const children = last - first;
    let before = this.#kernel.bitmapCount(this.#full, first, children) * this.#span;
    for (const [index, child] of this.#mixed) {
      if (index < first || index >= last) continue;
      before += child.count;
      this.#mixed.delete(index);
    }
    for (const marks of [this.#some, this.#full]) {
      if (value) this.#kernel.bitmapSet(marks, first, children);
      else this.#kernel.bitmapClear(marks, first, children);
    }
    this.#count += (value ? children * this.#span : 0) - before;
  }

  #edit(index: number, change: (child: Leaf | Branch) => void): void {
    const child = this.#open(index);
    const before = child.count;
    change(child);
    this.#count += child.count - before;
    this.#settle(index, child);
  }

  /** A child as it is; one that was a mark is made for it. */
  #open(index: number): Leaf | Branch {
    const child = this.#mixed.get(index);
    if (child) return child;
    const value = mark(this.#full, index);
    if (this.#span === LEAF_BITS) return Leaf.of(this.#kernel, value);
    return new Branch(this.#kernel, this.#span / FAN_OUT, value);
  }

  /** Keeps the child if it is mixed, or else a mark of what it is. */
  #settle(index: number, child: Leaf | Branch): void {
    const { count } = child;
    setMark(this.#some, index, count > 0);
    setMark(this.#full, index, count === this.#span);
    if (count > 0 && count < this.#span) this.#mixed.set(index, child);
    else this.#mixed.delete(index);
  }
}

function mark(marks: Uint8Array, index: number): boolean {
  return (marks[index >> 3]! & (1 << (index & 7))) !== 0;
}

function setMark(marks: Uint8Array, index: number, value: boolean): void {
  const bit = 1 << (index & 7);
  marks[index >> 3] = value ? marks[index >> 3]! | bit : marks[index >> 3]! & ~bit;
}
