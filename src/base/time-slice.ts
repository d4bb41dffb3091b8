/**
 * For long loops whose awaits all settle at once, as when all they ask for is in memory: without it nobody
 * else has a turn until they end, not even whoever calls them off.
 *
 *     for (…) {
 *       if (slice.isOver) await slice.rest();
 */

import type { Clock } from "./clock.ts";
import { throwIfAborted } from "./errors.ts";

/** Milliseconds of work between two looks at what else there is to do. */
const SLICE_MS = 10;

export class TimeSlice {
  readonly #clock: Clock;
  readonly #signal: AbortSignal | undefined;
  #endMs: number;

  constructor(clock: Clock, signal?: AbortSignal) {
    this.#clock = clock;
    this.#signal = signal;
    this.#endMs = clock.now() + SLICE_MS;
  }

  get isOver(): boolean {
    return this.#clock.now() >= this.#endMs;
  }

  /** Lets others have their turn. @throws BlockError ECANCELED if the signal has been raised by then */
  async rest(): Promise<void> {
    await this.#clock.yield();
    throwIfAborted(this.#signal);
    this.#endMs = this.#clock.now() + SLICE_MS;
  }
}
