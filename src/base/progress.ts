/**
 * How far something is: two numbers of which only the ratio counts.
 *
 * `current` only grows. `total` is an estimate that may go both ways, because what is left to do may
 * be found out late (a guest that keeps writing under a mirror). 0 of 0 is a legal answer, before a
 * job has begun and for a job with nothing to do. (QEMU: block/progress_meter.c.)
 */

import { assert } from "./errors.ts";

export class ProgressMeter {
  #current = 0;
  #total = 0;

  get current(): number {
    return this.#current;
  }

  get total(): number {
    return this.#total;
  }

  /** `amount` >= 0 more is done. Leaves the total alone. */
  workDone(amount: number): void {
    assert(amount >= 0, "progress never goes back");
    this.#current += amount;
  }

  /** `amount` >= 0 is left to do, counted from here: total = current + amount. */
  setRemaining(amount: number): void {
    assert(amount >= 0, "what is left to do is 0 or more");
    this.#total = this.#current + amount;
  }

  /** `amount` >= 0 has come on top of what was left to do. */
  increaseRemaining(amount: number): void {
    assert(amount >= 0, "increaseRemaining() only adds");
    this.#total += amount;
  }
}
