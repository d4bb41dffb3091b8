/**
 * One bit for each of the first 2^28 clusters of a file: 16 TiB of 64 KiB each, 32 MiB of memory at most.
 */

const BITS_MAX = 2 ** 28;

export class ClusterBits {
  readonly #bits: Uint8Array;
  readonly #covered: number;

  /** @param clusters of the file */
  constructor(clusters: number) {
    this.#covered = Math.min(clusters, BITS_MAX);
    this.#bits = new Uint8Array(Math.ceil(this.#covered / 8));
  }

  set(cluster: number): void {
    if (cluster < this.#covered) this.#bits[cluster >>> 3]! |= 1 << (cluster & 7);
  }

  /** null: past those that have one. */
  get(cluster: number): boolean | null {
    if (cluster >= this.#covered) return null;
    return (this.#bits[cluster >>> 3]! & (1 << (cluster & 7))) !== 0;
  }

  clear(): void {
    this.#bits.fill(0);
  }
}
