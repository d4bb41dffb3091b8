/**
 * A store in memory that takes its time, on a clock that is moved by hand: requests that are under way
 * together come to be in any order, each half of one by itself. What a request reads from its buffer
 * or writes to it happens then, not when it is asked: a buffer that is used again too early shows.
 */

import type { Random } from "../../../src/base/random.ts";
import type { VirtualClock } from "../../../src/base/virtual-clock.ts";
import type { BlockDriver } from "../../../src/block/driver.ts";

const LONGEST_MS = 8;
const SECTOR_BYTES = 512;

export class SlowStore {
  bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes.slice();
  }

  resize(length: number): void {
    const bytes = new Uint8Array(length);
    bytes.set(this.bytes.subarray(0, length));
    this.bytes = bytes;
  }
}

export function slowStoreDriver(
  store: SlowStore,
  clock: VirtualClock,
  random: Random,
): BlockDriver {
  const pause = () =>
    new Promise<void>((resolve) => {
      clock.setTimer(random.below(LONGEST_MS), resolve);
    });
  /** Both halves, in any order. */
  const inHalves = (bytes: number, move: (from: number, to: number) => void) => {
    const middle = SECTOR_BYTES * random.below(Math.ceil(bytes / SECTOR_BYTES) + 1);
    const cut = Math.min(bytes, middle);
    return Promise.all([pause().then(() => move(0, cut)), pause().then(() => move(cut, bytes))]);
  };
  return {
    name: "slow-store",
    kind: "protocol",
    roles: {},
    openOptions: {},
    open: async () => ({
      limits: { requestAlignment: 1, clusterSize: 0, growable: true },
      getLength: () => store.bytes.length,
      async pread(buf, offset) {
        await inHalves(buf.length, (from, to) => {
          const there = store.bytes.subarray(offset + from, offset + to);
          buf.fill(0, from, to);
          buf.set(there, from);
        });
      },
      async pwrite(buf, offset) {
        // The length is told at once, as stores do: what is read there meanwhile are zeroes.
        const end = offset + buf.length;
        if (end > store.bytes.length) store.resize(end);
        await inHalves(buf.length, (from, to) => {
          store.bytes.set(buf.subarray(from, to), offset + from);
        });
        await pause();
      },
      async truncate(length) {
        await pause();
        store.resize(length);
      },
      flush: pause,
      reopen: async () => {},
    }),
  };
}
