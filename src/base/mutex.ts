/**
 * One at a time, first come first served.
 */

import { BlockError } from "./errors.ts";

export class Mutex {
  /** Those who wait, in order. The holder is not in here. */
  readonly #waiting: (() => void)[] = [];
  #held = false;

  /**
   * Runs `work` alone. It must not come back for the same mutex: that would wait for ever.
   *
   * @throws BlockError ECANCELED if the signal is raised before its turn; what `work` throws
   */
  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    if (signal?.aborted) throw canceled();
    if (this.#held) await this.#turn(signal);
    this.#held = true;
    try {
      return await work();
    } finally {
      // Handed over directly, still held: nobody who comes now can slip in before the next one.
      const next = this.#waiting.shift();
      if (next) next();
      else this.#held = false;
    }
  }

  #turn(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const granted = () => {
        signal?.removeEventListener("abort", stop);
        resolve();
      };
      const stop = () => {
        const at = this.#waiting.indexOf(granted);
        if (at < 0) return;
        this.#waiting.splice(at, 1);
        reject(canceled());
      };
      this.#waiting.push(granted);
      signal?.addEventListener("abort", stop, { once: true });
    });
  }
}

function canceled(): BlockError {
  return new BlockError("ECANCELED", "Operation canceled");
}
