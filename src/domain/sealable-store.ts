/** A store of domains that stops taking records when the disks change hands. */

import { BlockError } from "../base/errors.ts";
import type { DomainStore } from "./store.ts";

export class SealableStore implements DomainStore {
  readonly words;
  readonly #store: DomainStore;
  #isSealed = false;

  constructor(store: DomainStore) {
    this.#store = store;
    this.words = store.words;
  }

  load(): Promise<unknown> {
    return this.#store.load();
  }

  async save(record: object): Promise<void> {
    if (this.#isSealed) throw new BlockError("ESTALE", "The disks change hands");
    await this.#store.save(record);
  }

  /** What is kept is for the next driver to go on from. */
  seal(): void {
    this.#isSealed = true;
  }
}
