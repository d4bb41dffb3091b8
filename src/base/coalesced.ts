/**
 * Work that is done again and again for many who wait, once for all who ask while it is under way:
 *
 *     ask   ask   ask            ask
 *      │     └─────┴──────┐       │
 *      ▼                  ▼       ▼
 *      ├── 1st run ──┤├── 2nd run ──┤├── 3rd run ──┤
 *
 * Whoever asks wants what he has done until now to be part of it, so he waits for a run that has not
 * begun yet.
 */

import { unlessAborted } from "./cancelable.ts";

interface Run {
  readonly ended: Promise<void>;
}

export class Coalesced {
  readonly #work: () => Promise<void>;
  #running: Run | null = null;
  #next: Run | null = null;

  constructor(work: () => Promise<void>) {
    this.#work = work;
  }

  /**
   * Resolves when a run that began after this call has ended.
   *
   * @param signal ends the wait, not the work
   * @throws what that run threw; BlockError ECANCELED
   */
  async done(signal?: AbortSignal): Promise<void> {
    this.#next ??= this.#follow(this.#running);
    return unlessAborted(this.#next.ended, signal);
  }

  /** The end of the run that is under way; null if none is. @throws what it throws; BlockError ECANCELED */
  ended(signal?: AbortSignal): Promise<void> | null {
    return this.#running && unlessAborted(this.#running.ended, signal);
  }

  /** The run after `before`; it begins a turn later at least, for all of this turn to be in it. */
  #follow(before: Run | null): Run {
    const begin = async () => {
      await before?.ended.catch(() => {}); // Those who waited for it have been told.
      this.#running = run;
      this.#next = null;
      try {
        await this.#work();
      } finally {
        this.#running = null;
      }
    };
    const run: Run = { ended: Promise.resolve().then(begin) };
    run.ended.catch(() => {}); // Nobody may be there to hear of it any more.
    return run;
  }
}
