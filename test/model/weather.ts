/**
 * Memory stores with weather: requests take their time, and now and then some of them fail, before
 * they did anything or half way.
 */

import type { Clock } from "../../src/base/clock.ts";
import { BlockError, type Errno, throwIfAborted } from "../../src/base/errors.ts";
import type { BlockDriver, BlockState, RequestOptions } from "../../src/block/driver.ts";
import { type MemoryStore, memoryDriver } from "../../src/drivers/protocol/memory.ts";
import type { Dice } from "./dice.ts";

const SECTOR = 512;

export interface Storm {
  readonly op: "read" | "write" | "flush" | "status";
  readonly errno: Errno;
  /** One request in so many fails. */
  readonly oneIn: number;
}

export class Weather {
  storm: Storm | null = null;
  /** Longest time of one request; 0 for none. */
  latencyMs = 0;
  /** By name: they outlive the nodes on them, and the engine. */
  readonly stores = new Map<string, MemoryStore>();
  readonly #clock: Clock;
  readonly #dice: Dice;

  constructor(clock: Clock, dice: Dice) {
    this.#clock = clock;
    this.#dice = dice;
  }

  clear(): void {
    this.storm = null;
    this.latencyMs = 0;
  }

  /** Not a thing has happened by then. */
  async pass(op: Storm["op"], signal?: AbortSignal): Promise<void> {
    await this.#wait(signal);
    this.#strike(op);
  }

  /** @param write does the first so many bytes */
  async write(bytes: number, signal: AbortSignal | undefined, write: (part: number) => unknown) {
    await this.#wait(signal);
    try {
      this.#strike("write");
    } catch (error) {
      // A sector is written or not.
      const part = Math.floor(this.#dice.below(bytes) / SECTOR) * SECTOR;
      if (part > 0 && this.#dice.oneIn(2)) await write(part);
      throw error;
    }
    await write(bytes);
  }

  async #wait(signal: AbortSignal | undefined): Promise<void> {
    const ms = this.latencyMs === 0 ? 0 : this.#dice.below(this.latencyMs + 1);
    if (ms > 0) await new Promise<void>((done) => this.#clock.setTimer(ms, done));
    throwIfAborted(signal);
  }

  #strike(op: Storm["op"]): void {
    const { storm } = this;
    if (storm?.op !== op || !this.#dice.oneIn(storm.oneIn)) return;
    throw new BlockError(storm.errno, `A storm: ${op} failed`);
  }
}

/** Driver "weather": as memory, with a name for every store. */
export function weatherDriver(weather: Weather): BlockDriver {
  const memory = memoryDriver(weather.stores) as BlockDriver;
  return {
    ...memory,
    name: "weather",
    async open(context) {
      const state = await memory.open(context);
      const { name } = context.options as unknown as { name: string };
      return {
        limits: state.limits,
        getLength: () => state.getLength!(),
        info: () => ({ filename: `weather:${name}` }),
        async pread(buf: Uint8Array, offset: number, options: RequestOptions) {
          await weather.pass("read", options.signal);
          return state.pread!(buf, offset, {});
        },
        pwrite: (buf: Uint8Array, offset: number, { signal }: RequestOptions) =>
          weather.write(buf.length, signal, (part) =>
            state.pwrite!(buf.subarray(0, part), offset, {}),
          ),
        pwriteZeroes: (offset: number, bytes: number, { signal }: RequestOptions) =>
          weather.write(bytes, signal, (part) => state.pwriteZeroes!(offset, part, {})),
        async pdiscard(offset: number, bytes: number, { signal }: RequestOptions) {
          await weather.pass("write", signal);
          return state.pdiscard!(offset, bytes, {});
        },
        async storeStatus(offset: number, bytes: number) {
          if (weather.storm?.op === "status") await weather.pass("status");
          return state.storeStatus!(offset, bytes);
        },
        async truncate(length: number) {
          await weather.pass("write");
          return state.truncate!(length);
        },
        flush: () => weather.pass("flush"),
        close: () => state.close!(),
        reopen: (readOnly: boolean) => state.reopen!(readOnly),
      } satisfies BlockState;
    },
  };
}
