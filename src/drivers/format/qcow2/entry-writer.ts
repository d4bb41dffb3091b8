/**
 * Writes an L1 or refcount table that nothing reaches yet, entry by entry from the first to the last, in
 * pieces of 64 KiB. The place has been zeroed: what is left out is.
 */

import { writeU32 } from "../../../base/bytes.ts";
import type { Image } from "./image.ts";
import { COPIED_HI } from "./layout.ts";

const PIECE_BYTES = 64 * 1024;

export class EntryWriter {
  readonly #image: Image;
  readonly #offset: number;
  readonly #bytes: number;
  #piece: Uint8Array | null = null;
  #pieceAt = 0;

  /** @param bytes of the whole table, at `offset` of the file */
  constructor(image: Image, offset: number, bytes: number) {
    this.#image = image;
    this.#offset = offset;
    this.#bytes = bytes;
  }

  /** @param index greater than that of the call before */
  async set(index: number, offset: number, copied: boolean): Promise<void> {
    const at = index * 8;
    if (this.#piece && at >= this.#pieceAt + this.#piece.length) await this.finish();
    if (!this.#piece) {
      this.#pieceAt = at;
      this.#piece = new Uint8Array(Math.min(PIECE_BYTES, this.#bytes - at));
    }
    const inPiece = at - this.#pieceAt;
    writeU32(this.#piece, inPiece, (Math.floor(offset / 2 ** 32) | (copied ? COPIED_HI : 0)) >>> 0);
    writeU32(this.#piece, inPiece + 4, (offset % 2 ** 32) >>> 0);
  }

  /** Writes the last piece. */
  async finish(): Promise<void> {
    const piece = this.#piece;
    this.#piece = null;
    if (piece) await this.#image.file.write(piece, this.#offset + this.#pieceAt);
  }
}
