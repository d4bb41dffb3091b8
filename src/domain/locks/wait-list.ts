/**
 * Those who wait for one thing, in the order in which they came. A wait ends in one of three ways:
 * somebody wakes it, its deadline has passed, or its caller calls it off.
 *
 * A deadline is a moment, not a length, so that waking and waiting again does not put it off. Who is
 * over it gets one more turn: after an hour's sleep of the machine all timers are overdue at once, and
 * messages have come in; one of them may be what would have woken the waiter in time.
 */

import type { Clock, Timer } from "../../base/clock.ts";

/** What ends a wait, besides being woken. */
export interface Limit {
  /** By the clock's now(). Without one the wait has no end of its own. */
  readonly deadlineMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export type WaitEnd = "woken" | "timeout" | "aborted";

interface Entry<T> {
  readonly who: T;
  readonly end: (how: WaitEnd) => void;
}

export class WaitList<T> {
  readonly #clock: Clock;
  readonly #entries: Entry<T>[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get size(): number {
    return this.#entries.length;
  }

  /** The caller is in the list when this returns; there is no moment in which a wake-up gets lost. */
  wait(who: T, limit: Limit = {}): Promise<WaitEnd> {
    const { deadlineMs, signal } = limit;
    return new Promise((resolve) => {
      if (signal?.aborted) return resolve("aborted");
      let timer: Timer | null = null;
      const end = (how: WaitEnd) => {
        const at = this.#entries.indexOf(entry);
        if (at < 0) return;
        this.#entries.splice(at, 1);
        timer?.cancel();
        signal?.removeEventListener("abort", stop);
        resolve(how);
      };
      const stop = () => end("aborted");
      // A new timer comes after all that are overdue, a yield after the messages that are there.
      const overdue = () => {
        timer = this.#clock.setTimer(0, () => void this.#clock.yield().then(() => end("timeout")));
      };
      const entry = { who, end };
      this.#entries.push(entry);
      signal?.addEventListener("abort", stop, { once: true });
      if (deadlineMs === undefined) return;
      timer = this.#clock.setTimer(Math.max(0, deadlineMs - this.#clock.now()), overdue);
    });
  }

  /** Wakes who has waited longest. @returns who that is, null if nobody waits */
  wakeFirst(): T | null {
    const first = this.#entries[0];
    first?.end("woken");
    return first?.who ?? null;
  }

  wakeAll(): void {
    for (const { end } of [...this.#entries]) end("woken");
  }
}
