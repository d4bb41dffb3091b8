/** A memory store with weather: requests take their time, and now and then some of them fail. */

import type { Clock } from "../../src/base/clock.ts";
import { BlockError, type Errno, throwIfAborted } from "../../src/base/errors.ts";
import type { Random } from "../../src/base/random.ts";
import type { BlockDriver, BlockState, RequestOptions } from "../../src/block/driver.ts";
import { memoryDriver } from "../../src/drivers/protocol/memory.ts";

export interface Storm {
  readonly op: "read" | "write" | "flush";
  readonly errno: Errno;
  /** One request in so many fails. */
  readonly oneIn: number;
}

export class Weather {
  storm: Storm | null = null;
  /** Longest time of one request; 0 for none. */
  latencyMs = 0;
  readonly #clock: Clock;
  readonly #random: Random;

  constructor(clock: Clock, random: Random) {
    this.#clock = clock;
    this.#random = random;
  }

  async pass(op: Storm["op"], signal: AbortSignal | undefined): Promise<void> {
    const ms = this.latencyMs === 0 ? 0 : this.#random.below(this.latencyMs + 1);
    if (ms > 0) await new Promise<void>((done) => this.#clock.setTimer(ms, done));
    throwIfAborted(signal);
    const { storm } = this;
    if (storm?.op === op && this.#random.below(storm.oneIn) === 0) {
      throw new BlockError(storm.errno, `A storm: ${op} failed`);
    }
  }
}

/** Driver "weather": a memory store of `size` bytes in it. */
export function weatherDriver(weather: Weather): BlockDriver {
  const memory = memoryDriver() as BlockDriver;
  return {
    ...memory,
    name: "weather",
    async open(context) {
      const state = await memory.open(context);
      return {
        limits: state.limits,
        getLength: () => state.getLength!(),
        async pread(buf: Uint8Array, offset: number, options: RequestOptions) {
          await weather.pass("read", options.signal);
          return state.pread!(buf, offset, options);
        },
        async pwrite(buf: Uint8Array, offset: number, options: RequestOptions) {
          await weather.pass("write", options.signal);
          // What fails half way has been done half way.
          return state.pwrite!(buf, offset, options);
        },
        async pwriteZeroes(offset: number, bytes: number, options: RequestOptions) {
          await weather.pass("write", options.signal);
          return state.pwriteZeroes!(offset, bytes, options);
        },
        async pdiscard(offset: number, bytes: number, options: RequestOptions) {
          await weather.pass("write", options.signal);
          return state.pdiscard!(offset, bytes, options);
        },
        storeStatus: (offset: number, bytes: number) => state.storeStatus!(offset, bytes),
        truncate: (length: number) => state.truncate!(length),
        async flush() {
          await weather.pass("flush", undefined);
          return state.flush?.();
        },
        close: () => state.close!(),
        ...(state.reopen && { reopen: (readOnly: boolean) => state.reopen!(readOnly) }),
      } satisfies BlockState;
    },
  };
}
