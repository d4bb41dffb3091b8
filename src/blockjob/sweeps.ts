/**
 * What a job does beside its copies now and then, one at a time: make last what it has copied, and put
 * on record that the next engine need not copy it again.
 */

import { BlockError } from "../base/errors.ts";

export class Sweeps {
  readonly #intervalMs: number;
  #running: Promise<void> | null = null;
  #nextMs = 0;

  constructor(intervalMs: number) {
    this.#intervalMs = intervalMs;
  }

  /**
   * Begins one if it is time for one.
   *
   * @param sweep what it throws as a BlockError does no harm: the record has more to copy than it must. Who has to
   *   hear of it is told by sweep() itself
   */
  begin(nowMs: number, sweep: () => Promise<void>): void {
    if (this.#running || nowMs < this.#nextMs) return;
    this.#nextMs = nowMs + this.#intervalMs;
    this.#running = sweep()
      .catch((error) => {
        if (!(error instanceof BlockError)) throw error;
      })
      .finally(() => {
        this.#running = null;
      });
  }

  /** Until none is under way. */
  async rest(): Promise<void> {
    await this.#running;
  }
}
