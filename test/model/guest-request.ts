/** One request of a guest: how it is sent, and what is known of its disk when it has ended. */

import type { BlockBackend } from "../../src/block/backend.ts";
import type { RequestOptions } from "../../src/block/driver.ts";
import type { Dice } from "./dice.ts";
import { CLUSTER } from "./images.ts";

const REQUEST_MAX = 3 * CLUSTER;

export interface Range {
  readonly offset: number;
  readonly bytes: number;
}

/** Whoever keeps what is known. */
export interface Knowledge {
  /** @param isSure it has been done; else it may have been */
  written(data: Uint8Array, offset: number, isSure: boolean): void;
  discarded(offset: number, bytes: number): void;
  /** @throws if the disk cannot hold what was read */
  compare(data: Uint8Array, offset: number): void;
}

export interface GuestRequest {
  /** "write 17" */
  readonly what: string;
  send(door: BlockBackend, options: RequestOptions): Promise<void>;
  ended(disk: Knowledge, isDone: boolean): void;
}

/** Some part of a disk, aligned more or less. */
export function pickRange(dice: Dice, size: number): Range {
  const granule = dice.pick([1, 512, CLUSTER]);
  const offset = Math.floor(dice.below(size) / granule) * granule;
  const most = Math.min(REQUEST_MAX, size - offset);
  const bytes = Math.max(granule, Math.floor(dice.below(most + 1) / granule) * granule);
  return { offset, bytes: Math.min(bytes, size - offset) };
}

/** Bytes that tell which write they came from, most of the time. */
export function pickData(dice: Dice, bytes: number): Uint8Array {
  return new Uint8Array(bytes).fill(1 + dice.below(255));
}

export function pickRequest(dice: Dice, range: Range): GuestRequest {
  const kind = dice.below(20);
  if (kind < 9) return write(dice, range);
  if (kind < 12) return zero(dice, range);
  if (kind < 14) return discard(range);
  return kind < 15 ? FLUSH : read(range);
}

function write(dice: Dice, { offset, bytes }: Range): GuestRequest {
  const data = pickData(dice, bytes);
  return {
    what: `write ${data[0]}`,
    send: (door, options) => door.write(data, offset, options),
    ended: (disk, isDone) => disk.written(data, offset, isDone),
  };
}

function zero(dice: Dice, { offset, bytes }: Range): GuestRequest {
  const mayUnmap = dice.oneIn(2);
  return {
    what: "zero",
    send: (door, options) => door.writeZeroes(offset, bytes, { ...options, mayUnmap }),
    ended: (disk, isDone) => disk.written(new Uint8Array(bytes), offset, isDone),
  };
}

function discard({ offset, bytes }: Range): GuestRequest {
  return {
    what: "discard",
    send: (door, options) => door.discard(offset, bytes, options),
    ended: (disk) => disk.discarded(offset, bytes),
  };
}

const FLUSH: GuestRequest = {
  what: "flush",
  send: (door) => door.flush(),
  ended() {},
};

function read({ offset, bytes }: Range): GuestRequest {
  const data = new Uint8Array(bytes);
  return {
    what: "read",
    send: (door, options) => door.read(data, offset, options),
    ended(disk, isDone) {
      if (isDone) disk.compare(data, offset);
    },
  };
}
