/**
 * Saves one at a time, and as few as will do: whoever waits is told when a save that began after the
 * call is through.
 *
 *     save() ──┐                  ┌── save() ─┬─ save()
 *              ▼                  │           │
 *              ├───── put ────────┤           │
 *                                 ├───── put ─┼─────┤     one put for both
 */

import type { DomainStore } from "./store.ts";

export class Saver {
  readonly #store: DomainStore;
  readonly #describe: () => object;
  #running: Promise<void> | null = null;
  #next: Promise<void> | null = null;

  /** @param describe the value as it is now */
  constructor(store: DomainStore, describe: () => object) {
    this.#store = store;
    this.#describe = describe;
  }

  /** Resolves when what is true now is kept. @throws what the store throws */
  save(): Promise<void> {
    this.#next ??= this.#after(this.#running);
    return this.#next;
  }

  async #after(before: Promise<void> | null): Promise<void> {
    // Its failure is told to those who waited for it.
    await before?.catch(() => {});
    this.#running = this.#next;
    this.#next = null;
    await this.#store.save(this.#describe());
  }
}
