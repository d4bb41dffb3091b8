/**
 * What the first part of a disk must read as: bytes, and which of them are certain. On an image that
 * was clean, whatever is done to it, reads must agree.
 */

const WINDOW_BYTES = 128 * 1024;

export class Model {
  bytes: Uint8Array;
  /** 1 where a byte is certain. */
  #known: Uint8Array;

  constructor(length: number) {
    this.bytes = new Uint8Array(Math.min(length, WINDOW_BYTES));
    this.#known = new Uint8Array(this.bytes.length);
  }

  get length(): number {
    return this.bytes.length;
  }

  copy(): Model {
    const copy = new Model(0);
    copy.bytes = this.bytes.slice();
    copy.#known = this.#known.slice();
    return copy;
  }

  /** Is another one from now on. */
  restore(other: Model): void {
    this.bytes = other.bytes.slice();
    this.#known = other.#known.slice();
  }

  set(offset: number, data: Uint8Array): void {
    const inside = data.subarray(0, Math.max(0, this.length - offset));
    if (inside.length === 0) return;
    this.bytes.set(inside, offset);
    this.#known.fill(1, offset, offset + inside.length);
  }

  zero(offset: number, bytes: number): void {
    this.bytes.fill(0, offset, offset + bytes);
    this.#known.fill(1, offset, offset + bytes);
  }

  forget(offset: number, bytes: number): void {
    this.#known.fill(0, offset, offset + bytes);
  }

  /** Another length; what is new reads as zeroes. */
  resize(length: number): void {
    const next = new Model(length);
    const kept = Math.min(next.length, this.length);
    next.bytes.set(this.bytes.subarray(0, kept));
    next.#known.set(this.#known.subarray(0, kept));
    next.#known.fill(1, kept);
    this.bytes = next.bytes;
    this.#known = next.#known;
  }

  /** Where what was read is not what must be there; -1 if nowhere. */
  difference(offset: number, seen: Uint8Array): number {
    const end = Math.min(seen.length, this.length - offset);
    // Nearly always so, and quick to see.
    if (Buffer.compare(seen.subarray(0, end), this.bytes.subarray(offset, offset + end)) === 0)
      return -1;
    for (let i = 0; i < end; i++) {
      if (this.#known[offset + i] === 1 && this.bytes[offset + i] !== seen[i]) return offset + i;
    }
    return -1;
  }
}
