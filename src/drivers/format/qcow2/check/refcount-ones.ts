/**
 * Which clusters have refcount 1 exactly. Of those that have no bit the blocks are looked up again.
 */

import { ClusterBits } from "./cluster-bits.ts";
import { type Checked, readSoFar } from "./context.ts";
import { readCount, UNREADABLE } from "./refcount-blocks.ts";

/** Pieces of refcount blocks that are remembered. */
const PIECES_MAX = 64;
const PIECE_BYTES = 4096;

export class RefcountOnes extends ClusterBits {
  readonly #pieces = new Map<number, Uint8Array>();

  override clear(): void {
    super.clear();
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
