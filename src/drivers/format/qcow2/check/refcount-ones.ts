/**
 * Which clusters have refcount 1 exactly, one bit each, for the first 2^28 clusters of the file (16 TiB
 * of 64 KiB each; 32 MiB of memory at most). Of what lies beyond the blocks are looked up again.
 */

import { type Checked, readSoFar } from "./context.ts";
import { readCount, UNREADABLE } from "./refcount-blocks.ts";

const BITS_MAX = 2 ** 28;
/** Pieces of refcount blocks that are remembered. */
const PIECES_MAX = 64;
const PIECE_BYTES = 4096;

export class RefcountOnes {
  readonly #bits: Uint8Array;
  readonly #covered: number;
  readonly #pieces = new Map<number, Uint8Array>();

  /** @param clusters of the file */
  constructor(clusters: number) {
    this.#covered = Math.min(clusters, BITS_MAX);
    this.#bits = new Uint8Array(Math.ceil(this.#covered / 8));
  }

  set(cluster: number): void {
    if (cluster < this.#covered) this.#bits[cluster >>> 3]! |= 1 << (cluster & 7);
  }

  /** null: look it up. */
  get(cluster: number): boolean | null {
    if (cluster >= this.#covered) return null;
    return (this.#bits[cluster >>> 3]! & (1 << (cluster & 7))) !== 0;
  }

  clear(): void {
    this.#bits.fill(0);
    this.#pieces.clear();
  }

  /** For a cluster that get() does not know; null if its block cannot be read. */
  async lookUp(checked: Checked, blocks: Float64Array, cluster: number): Promise<boolean | null> {
    const { layout } = checked.image;
    const block = Math.floor(cluster / layout.refcountBlockEntries);
    const offset = blocks[block] ?? 0;
    if (offset === UNREADABLE) return null;
    if (offset === 0) return false;
    const bit = (cluster % layout.refcountBlockEntries) * 2 ** layout.refcountOrder;
    const pieceBytes = Math.min(PIECE_BYTES, layout.clusterBytes);
    const piece = Math.floor(bit / 8 / pieceBytes) * pieceBytes;
    let bytes = this.#pieces.get(offset + piece);
    if (!bytes) {
      bytes = new Uint8Array(pieceBytes);
      await readSoFar(checked, bytes, offset + piece);
      if (this.#pieces.size >= PIECES_MAX) this.#pieces.clear();
      this.#pieces.set(offset + piece, bytes);
    }
    const index = (bit - piece * 8) / 2 ** layout.refcountOrder;
    return readCount(bytes, layout.refcountOrder, index) === 1;
  }
}
