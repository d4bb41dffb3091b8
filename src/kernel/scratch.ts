/**
 * How a buffer comes before a kernel, wherever it lies.
 *
 * One that lies in wasm memory is used where it is. Any other is "foreign": the part in question is
 * copied to scratch, and back if it was changed. Long foreign buffers go through in pieces that
 * start small and grow, so that a question which the first bytes answer does not copy all of it.
 */

import { KiB } from "../base/bytes.ts";
import { assert } from "../base/errors.ts";
import { SCRATCH_BYTES, SCRATCH_START } from "./module.ts";

/** The first piece of a foreign buffer that is looked at; each next one is twice as long. */
export const FIRST_PIECE = 4 * KiB;

export class Scratch {
  readonly #buffer: ArrayBuffer;
  readonly #memory: Uint8Array<ArrayBuffer>;

  constructor(buffer: ArrayBuffer) {
    this.#buffer = buffer;
    this.#memory = new Uint8Array(buffer);
  }

  owns(buf: ArrayBufferView): boolean {
    return buf.buffer === this.#buffer;
  }

  /**
   * The address at which a kernel finds a part of the buffer.
   *
   * @param bytes at most SCRATCH_BYTES of a foreign buffer
   * @param slot which scratch to use, 0 or 1; what was lent there before is gone
   */
  lend(buf: Uint8Array, offset: number, bytes: number, slot = 0): number {
    if (this.owns(buf)) return buf.byteOffset + offset;
    assert(bytes <= SCRATCH_BYTES, "what goes to scratch fits it");
    const address = SCRATCH_START + slot * SCRATCH_BYTES;
    this.#memory.set(buf.subarray(offset, offset + bytes), address);
    return address;
  }

  /** Brings what a kernel changed at `address` home to the part that was lent. */
  giveBack(buf: Uint8Array, offset: number, bytes: number, address: number): void {
    if (!this.owns(buf)) buf.set(this.#memory.subarray(address, address + bytes), offset);
  }

  /** Visits the bytes from .. to-1, all at once or in pieces, for as long as `visit` says true. */
  pieces(
    buf: Uint8Array,
    from: number,
    to: number,
    visit: (address: number, at: number, bytes: number) => boolean,
  ): void {
    let piece = this.owns(buf) ? to - from : FIRST_PIECE;
    for (let at = from; at < to; ) {
      const bytes = Math.min(piece, to - at);
      if (!visit(this.lend(buf, at, bytes), at, bytes)) return;
      at += bytes;
      piece = Math.min(2 * piece, SCRATCH_BYTES);
    }
  }

  /**
   * Visits an array of fields, 1 << order bits each, in whole words that hold start .. end-1.
   *
   * @param visit gets the address of a word, the fields in question counted from there, and what to
   *   add to make them fields of the array
   */
  fields(
    buf: Uint8Array,
    order: number,
    start: number,
    end: number,
    visit: (address: number, from: number, to: number, base: number) => boolean,
  ): void {
    const perWord = 64 / 2 ** order;
    const first = Math.floor(start / perWord) * 8;
    const last = Math.ceil(end / perWord) * 8;
    this.pieces(buf, first, last, (address, at, bytes) => {
      const base = (at / 8) * perWord;
      const to = Math.min(end - base, (bytes / 8) * perWord);
      return visit(address, Math.max(start - base, 0), to, base);
    });
  }

  /** Visits a list of u32, all at once or in pieces; `first` is the position of the piece's first. */
  list(list: Uint32Array, visit: (address: number, first: number, count: number) => void): void {
    if (this.owns(list)) {
      visit(list.byteOffset, 0, list.length);
      return;
    }
    const most = SCRATCH_BYTES / 4;
    const room = new Uint32Array(this.#buffer, SCRATCH_START, most);
    for (let first = 0; first < list.length; first += most) {
      const piece = list.subarray(first, first + most);
      room.set(piece);
      visit(SCRATCH_START, first, piece.length);
    }
  }
}
