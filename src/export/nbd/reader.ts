/**
 * Bytes of a channel in the portions that the protocol has. What comes in is gathered: no more
 * is set aside for a length that has only been claimed than a fixed amount.
 */

import { MiB } from "../../base/bytes.ts";
import type { ByteChannel } from "../../base/channel.ts";

/** Set aside at first; twice as much each time as has come in. */
const START_BYTES = 1 * MiB;

/** The client is gone, or has finished in the middle of something. No error of ours or the disk. */
export class HangUp extends Error {}

export class ByteReader {
  readonly #channel: ByteChannel;
  /** What has come in and not been asked for yet. */
  #piece: Uint8Array = new Uint8Array(0);

  constructor(channel: ByteChannel) {
    this.#channel = channel;
  }

  /** Exactly `bytes` bytes, not copied where they came in one piece. @throws HangUp */
  async read(bytes: number): Promise<Uint8Array> {
    if (this.#piece.length === 0 && bytes > 0) this.#piece = await this.#next();
    if (this.#piece.length >= bytes) return this.#take(bytes);
    let into = new Uint8Array(Math.min(bytes, START_BYTES));
    for (let done = 0; done < bytes; ) {
      if (this.#piece.length === 0) this.#piece = await this.#next();
      if (done === into.length) into = grown(into, Math.min(bytes, 2 * done));
      const piece = this.#take(Math.min(into.length - done, this.#piece.length));
      into.set(piece, done);
      done += piece.length;
    }
    return into;
  }

  /** Throws `bytes` bytes away. @throws HangUp */
  async skip(bytes: number): Promise<void> {
    for (let left = bytes; left > 0; ) {
      if (this.#piece.length === 0) this.#piece = await this.#next();
      left -= this.#take(Math.min(left, this.#piece.length)).length;
    }
  }

  async #next(): Promise<Uint8Array> {
    const piece = await this.#channel.read();
    if (piece === null) throw new HangUp("The other side has hung up");
    return piece;
  }

  #take(bytes: number): Uint8Array {
    const taken = this.#piece.subarray(0, bytes);
    this.#piece = this.#piece.subarray(bytes);
    return taken;
  }
}

function grown(bytes: Uint8Array, length: number): Uint8Array<ArrayBuffer> {
  const longer = new Uint8Array(length);
  longer.set(bytes);
  return longer;
}
