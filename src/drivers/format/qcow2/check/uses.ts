/**
 * What a repair must not write over: which clusters hold a guest's data and which L2 tables, one bit each,
 * for the first 2^28 clusters of the file (16 TiB of 64 KiB each; two times 32 MiB of memory at most).
 *
 * A table can be said to lie where data is, or to be longer than it is. What looks like wrong entries there
 * is somebody's bytes, and is left to people. (QEMU's repair knows only where metadata is.)
 */

const BITS_MAX = 2 ** 28;

export class Uses {
  readonly #data: Uint8Array;
  readonly #l2Tables: Uint8Array;
  readonly #covered: number;

  /** @param clusters of the file */
  constructor(clusters: number) {
    this.#covered = Math.min(clusters, BITS_MAX);
    this.#data = new Uint8Array(Math.ceil(this.#covered / 8));
    this.#l2Tables = new Uint8Array(this.#data.length);
  }

  addData(first: number, last = first): void {
    for (let i = first; i <= last && i < this.#covered; i++) this.#data[i >>> 3]! |= 1 << (i & 7);
  }

  addL2Table(cluster: number): void {
    if (cluster < this.#covered) this.#l2Tables[cluster >>> 3]! |= 1 << (cluster & 7);
  }

  /** What is not known may be data. */
  mayBeData(cluster: number): boolean {
    return cluster >= this.#covered || (this.#data[cluster >>> 3]! & (1 << (cluster & 7))) !== 0;
  }

  mayBeDataOrL2(cluster: number): boolean {
    return this.mayBeData(cluster) || (this.#l2Tables[cluster >>> 3]! & (1 << (cluster & 7))) !== 0;
  }
}
