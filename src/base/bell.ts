/**
 * A bell: many may wait for the next ring, a ring wakes all who wait now. It keeps no state, so a
 * waiter checks its condition in a loop: the world may have changed again before it wakes.
 */

import { BlockError } from "./errors.ts";

export class Bell {
  #waiting = new Set<() => void>();

  ring(): void {
    const woken = this.#waiting;
    this.#waiting = new Set();
    for (const wake of woken) wake();
  }

  /** Resolves at the next ring. @throws BlockError ECANCELED as soon as the signal is raised */
  rung(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const wake = () => {
        signal?.removeEventListener("abort", stop);
        resolve();
      };
      const stop = () => {
        this.#waiting.delete(wake);
        reject(new BlockError("ECANCELED", "Operation canceled"));
      };
      if (signal?.aborted) return stop();
      signal?.addEventListener("abort", stop, { once: true });
      this.#waiting.add(wake);
    });
  }
}
