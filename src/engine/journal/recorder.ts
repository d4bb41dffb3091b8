/**
 * Keeps the record up to date: whatever may have changed something says touch(), and what must not be
 * seen before it is on record waits for covered().
 *
 *   touch ─▶ touch ─▶ touch                touch
 *     │        (one save for all)             │
 *     └─▶ describe, save ────────────▶ covered └─▶ describe: no difference ─▶ covered
 *
 * One save at a time. One that fails is tried again for some seconds, and all the while nothing that it
 * would have covered is seen by anybody. Then the engine stops: what it would go on to do, nobody could
 * find again.
 */

import type { Clock } from "../../base/clock.ts";
import { tryOften } from "../../base/try-often.ts";
import { essenceOf, type JournalRecord } from "./record.ts";
import type { JournalStore } from "./store.ts";

export interface RecorderInit {
  readonly store: JournalStore;
  readonly clock: Clock;
  /** The record as it would have to be now, with any `seq`. */
  readonly describe: () => JournalRecord;
  /** No save will come any more, and nothing is covered any more. */
  readonly onFailed: (why: unknown) => void;
  /** What is kept beside the record, and must be there as well. @throws BlockError */
  readonly saveOthers?: (() => Promise<void>) | undefined;
}

interface Waiter {
  readonly touches: number;
  resolve(): void;
}

export class Recorder {
  readonly #init: RecorderInit;
  #touches = 0;
  /** So many of them are on record. */
  #recorded = 0;
  #seq: number;
  /** Of what was saved last. */
  #essence = "";
  #isSaving = false;
  #isSealed = false;
  /** The last #saveAll(). */
  #saves: Promise<void> = Promise.resolve();
  #waiters: Waiter[] = [];

  constructor(init: RecorderInit, seq: number) {
    this.#init = init;
    this.#seq = seq;
  }

  /** Something may have changed. */
  touch(): void {
    this.#touches++;
    if (this.#isSaving || this.#isSealed) return;
    this.#isSaving = true;
    this.#saves = this.#saveAll().catch(this.#init.onFailed);
  }

  /**
   * Nothing more is put on record: what waits for it stands still for ever. Resolves when no save is
   * under way any more.
   */
  async seal(): Promise<void> {
    this.#isSealed = true;
    await this.#saves;
  }

  get isCovered(): boolean {
    return this.#recorded === this.#touches;
  }

  /** Resolves when all that was touched until now is on record; never after a failure. */
  covered(): Promise<void> {
    if (this.isCovered) return Promise.resolve();
    const touches = this.#touches;
    return new Promise((resolve) => {
      this.#waiters.push({ touches, resolve });
    });
  }

  async #saveAll(): Promise<void> {
    while (!this.isCovered && !this.#isSealed) {
      // What else changes in this turn comes along.
      await Promise.resolve();
      const touches = this.#touches;
      const { clock, saveOthers } = this.#init;
      if (saveOthers) await tryOften(clock, saveOthers);
      // What there is now may be on its way out.
      if (this.#isSealed) return;
      const record = this.#init.describe();
      const essence = essenceOf(record);
      if (essence !== this.#essence) {
        this.#seq++;
        const saved = { ...record, seq: this.#seq };
        await tryOften(clock, () => this.#init.store.save(saved));
        this.#essence = essence;
      }
      this.#recorded = touches;
      const isDone = (waiter: Waiter) => waiter.touches <= touches;
      const done = this.#waiters.filter(isDone);
      this.#waiters = this.#waiters.filter((waiter) => !isDone(waiter));
      for (const { resolve } of done) resolve();
    }
    this.#isSaving = false;
  }
}
