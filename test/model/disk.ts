/**
 * What a guest knows of its disk: every byte, and where it cannot know. A write that failed may have
 * happened or not; a discarded range may read as anything. Once read, a byte is what it was read as,
 * and must stay so.
 */

const KNOWN = 0;
/** `values` or `others`. */
const EITHER = 1;
const ANYTHING = 2;

export class ModelDisk {
  #values: Uint8Array;
  #others: Uint8Array;
  #doubts: Uint8Array;

  constructor(size: number) {
    this.#values = new Uint8Array(size);
    this.#others = new Uint8Array(size);
    this.#doubts = new Uint8Array(size);
  }

  get size(): number {
    return this.#values.length;
  }

  /** What the byte was last time somebody knew. */
  at(offset: number): number | undefined {
    return this.#values[offset];
  }

  /** The same knowledge, to be kept while the disk moves on. */
  copy(): ModelDisk {
    const same = new ModelDisk(0);
    same.become(this);
    return same;
  }

  /** The disk is what it was when `other` was kept. */
  become(other: ModelDisk): void {
    this.#values = other.#values.slice();
    this.#others = other.#others.slice();
    this.#doubts = other.#doubts.slice();
  }

  /** New bytes are zero. */
  resize(size: number): void {
    this.#values = resized(this.#values, size);
    this.#others = resized(this.#others, size);
    this.#doubts = resized(this.#doubts, size);
  }

  written(data: Uint8Array, offset: number): void {
    this.#values.set(data, offset);
    this.#doubts.fill(KNOWN, offset, offset + data.length);
  }

  /** Each byte is what it was, or the new one. */
  maybeWritten(data: Uint8Array, offset: number): void {
    const end = Math.min(data.length, this.size - offset);
    for (let i = 0; i < end; i++) {
      const at = offset + i;
      const byte = data[i]!;
      if (this.#doubts[at] === ANYTHING || this.#values[at] === byte) continue;
      if (this.#doubts[at] === EITHER && this.#others[at] !== byte) this.#doubts[at] = ANYTHING;
      else {
        this.#others[at] = byte;
        this.#doubts[at] = EITHER;
      }
    }
  }

  discarded(offset: number, bytes: number): void {
    this.#doubts.fill(ANYTHING, offset, offset + bytes);
  }

  /** @returns the first offset at which `data` cannot be what the disk holds, or -1 */
  differs(data: Uint8Array, offset: number): number {
    for (let i = 0; i < data.length; i++) {
      const at = offset + i;
      if (data[i] === this.#values[at]) continue;
      const doubt = this.#doubts[at];
      if (doubt === ANYTHING) continue;
      if (doubt !== EITHER || data[i] !== this.#others[at]) return at;
    }
    return -1;
  }

  /** What was read is known from now on. */
  learn(data: Uint8Array, offset: number): void {
    this.#values.set(data, offset);
    this.#doubts.fill(KNOWN, offset, offset + data.length);
  }
}

function resized(bytes: Uint8Array, size: number): Uint8Array {
  const other = new Uint8Array(size);
  other.set(bytes.subarray(0, size));
  return other;
}
