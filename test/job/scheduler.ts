/**
 * A clock that leaves to chance what a real one leaves to luck: which of those who could go on goes
 * on next. Whoever waits in yield() or for a timer stands in one crowd, and each step picks one.
 * Time stands still between timers, so that a run is bounded in its own time, too.
 */

import type { Clock, Timer } from "../../src/base/clock.ts";
import type { Random } from "../../src/base/random.ts";

/** Chance, or a list of all choices in turn. */
export type Chooser = Pick<Random, "below">;

interface Alarm {
  readonly dueMs: number;
  readonly callback: () => void;
}

export class Scheduler implements Clock {
  readonly #chooser: Chooser;
  readonly #ready: (() => void)[] = [];
  readonly #alarms: Alarm[] = [];
  #nowMs = 0;

  constructor(chooser: Chooser) {
    this.#chooser = chooser;
  }

  now(): number {
    return this.#nowMs;
  }

  timestamp(): { seconds: number; microseconds: number } {
    return { seconds: 0, microseconds: 0 };
  }

  get timerCount(): number {
    return this.#alarms.length;
  }

  /** In how many ways the world can go on by itself. */
  get choices(): number {
    return this.#ready.length + this.#next().length;
  }

  setTimer(ms: number, callback: () => void): Timer {
    const alarm = { dueMs: this.#nowMs + ms, callback };
    this.#alarms.push(alarm);
    return {
      cancel: () => {
        const at = this.#alarms.indexOf(alarm);
        if (at !== -1) this.#alarms.splice(at, 1);
      },
    };
  }

  yield(): Promise<void> {
    return new Promise((resolve) => this.#ready.push(resolve));
  }

  /** Lets one go on. @returns false if there is nobody */
  step(): boolean {
    const next = this.#next();
    const count = this.#ready.length + next.length;
    if (count === 0) return false;
    const at = this.#chooser.below(count);
    if (at < this.#ready.length) {
      this.#ready.splice(at, 1)[0]!();
    } else {
      const alarm = next[at - this.#ready.length]!;
      this.#alarms.splice(this.#alarms.indexOf(alarm), 1);
      this.#nowMs = alarm.dueMs;
      alarm.callback();
    }
    return true;
  }

  /** The timers that may be next: all that are due at the same time. */
  #next(): Alarm[] {
    const dueMs = Math.min(...this.#alarms.map((alarm) => alarm.dueMs));
    return this.#alarms.filter((alarm) => alarm.dueMs === dueMs);
  }
}

/** Goes through all sequences of choices, each once: run the same thing until next() is false. */
export class AllChoices implements Chooser {
  readonly #path: { choice: number; count: number }[] = [];
  #depth = 0;

  below(count: number): number {
    if (this.#depth === this.#path.length) this.#path.push({ choice: 0, count });
    return this.#path[this.#depth++]!.choice;
  }

  next(): boolean {
    this.#depth = 0;
    for (;;) {
      const last = this.#path.at(-1);
      if (!last) return false;
      if (++last.choice < last.count) return true;
      this.#path.pop();
    }
  }

  toString(): string {
    return this.#path.map(({ choice }) => choice).join(" ");
  }
}

/** All promises that can settle have. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Some promises have settled, and some that wait for those have not. */
export async function hops(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await null;
}
