/**
 * Buffers out of one fixed stretch of memory: first fit, on granules of 4 KiB.
 *
 * Free stretches are kept in a list sorted by address, with no two of them touching:
 *
 *     address   0      4K     8K     12K    16K    20K    24K
 *               │ used │ free │ free │ used │ used │ free │
 *     #free          { 4K, 8K }                { 20K, 4K }
 *
 * so that a freed stretch joins its neighbours at once, and the arena is whole again as soon as all
 * is given back. A storage engine has tens of buffers, not thousands: a list is fast enough.
 */

import { alignDown, alignUp, KiB } from "../base/bytes.ts";
import { assert } from "../base/errors.ts";

export const GRANULE = 4 * KiB;

interface Stretch {
  readonly offset: number;
  readonly bytes: number;
}

export class Arena {
  readonly #memory: ArrayBuffer;
  readonly #free: Stretch[];
  /** What was handed out: offset to the bytes asked for. */
  readonly #used = new Map<number, number>();

  /** Rules over `memory` from `start`, rounded up to a granule, to its end. */
  constructor(memory: ArrayBuffer, start: number) {
    const offset = alignUp(start, GRANULE);
    const bytes = alignDown(memory.byteLength - offset, GRANULE);
    assert(bytes > 0, "an arena has room");
    this.#memory = memory;
    this.#free = [{ offset, bytes }];
  }

  /** What could still be handed out, in whole granules, though perhaps not in one piece. */
  get freeBytes(): number {
    return this.#free.reduce((sum, stretch) => sum + stretch.bytes, 0);
  }

  /**
   * A buffer of exactly `bytes` > 0, starting on a granule, or null if there is no such room.
   * It holds whatever was there before.
   */
  allocate(bytes: number): Uint8Array<ArrayBuffer> | null {
    assert(Number.isSafeInteger(bytes) && bytes > 0, "a buffer has a whole length above zero");
    const taken = alignUp(bytes, GRANULE);
    const at = this.#free.findIndex((stretch) => stretch.bytes >= taken);
    if (at < 0) return null;
    const { offset, bytes: had } = this.#free[at]!;
    const rest = had === taken ? [] : [{ offset: offset + taken, bytes: had - taken }];
    this.#free.splice(at, 1, ...rest);
    this.#used.set(offset, bytes);
    return new Uint8Array(this.#memory, offset, bytes);
  }

  /** Takes back a buffer from allocate(), whole; a part of it, or twice, is a bug. */
  free(buf: Uint8Array): void {
    const offset = buf.byteOffset;
    assert(buf.buffer === this.#memory, "a freed buffer came from this arena");
    assert(this.#used.get(offset) === buf.length, "a freed buffer is one that is handed out");
    this.#used.delete(offset);

    const end = offset + alignUp(buf.length, GRANULE);
    const after = this.#free.findIndex((stretch) => stretch.offset >= end);
    const at = after < 0 ? this.#free.length : after;
    const left = this.#free[at - 1];
    const right = this.#free[at];
    const joinsLeft = left !== undefined && left.offset + left.bytes === offset;
    const joinsRight = right !== undefined && right.offset === end;
    const from = joinsLeft ? left.offset : offset;
    const to = joinsRight ? end + right.bytes : end;
    this.#free.splice(joinsLeft ? at - 1 : at, Number(joinsLeft) + Number(joinsRight), {
      offset: from,
      bytes: to - from,
    });
  }
}
