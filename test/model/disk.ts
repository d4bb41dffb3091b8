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
  readonly values: Uint8Array;
  readonly #others: Uint8Array;
  readonly #doubts: Uint8Array;

  constructor(size: number) {
    this.values = new Uint8Array(size);
    this.#others = new Uint8Array(size);
    this.#doubts = new Uint8Array(size);
  }

  /** The same knowledge, to be kept while the disk moves on. */
  copy(): ModelDisk {
    const same = new ModelDisk(this.values.length);
    same.values.set(this.values);
    same.#others.set(this.#others);
    same.#doubts.set(this.#doubts);
    return same;
  }

  written(data: Uint8Array, offset: number): void {
    this.values.set(data, offset);
    this.#doubts.fill(KNOWN, offset, offset + data.length);
  }

  writeFailed(data: Uint8Array, offset: number): void {
    for (const [i, byte] of data.entries()) {
      const at = offset + i;
      if (this.#doubts[at] === KNOWN && this.values[at] !== byte) {
        this.#others[at] = byte;
        this.#doubts[at] = EITHER;
      } else if (this.#doubts[at] === EITHER) {
        if (byte !== this.values[at] && byte !== this.#others[at]) this.#doubts[at] = ANYTHING;
      }
    }
  }

  discarded(offset: number, bytes: number): void {
    this.#doubts.fill(ANYTHING, offset, offset + bytes);
  }

  /** @returns the first offset at which `data` cannot be what the disk holds, or -1 */
  differs(data: Uint8Array, offset: number): number {
    for (const [i, byte] of data.entries()) {
      const at = offset + i;
      const doubt = this.#doubts[at];
      if (doubt === ANYTHING || byte === this.values[at]) continue;
      if (doubt === KNOWN || byte !== this.#others[at]) return at;
    }
    return -1;
  }

  /** What was read is known from now on. */
  learn(data: Uint8Array, offset: number): void {
    this.values.set(data, offset);
    this.#doubts.fill(KNOWN, offset, offset + data.length);
  }
}
