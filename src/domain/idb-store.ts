/**
 * The record of domains in IndexedDB, by idb-keyval: database "blocktab:domains", one key.
 *
 * As the engine's journal (src/engine/idb-journal.ts): the epoch of the owner is looked at in the transaction
 * that writes, so one that was frozen and wakes cannot write over the record of the next.
 */

import { createStore, get, type UseStore, update } from "idb-keyval";
import { BlockError } from "../base/errors.ts";
import { storeError } from "../drivers/protocol/errors.ts";
import type { DomainStore } from "./store.ts";

const STORE = "record";
const KEY = "record";

interface Stored {
  readonly epoch: number;
  readonly record: unknown;
}

export class IndexeddbDomainStore implements DomainStore {
  readonly #epoch: number;
  readonly #useStore: UseStore;
  #isSealed = false;

  /** @param epoch of the owner; every later one has a higher one */
  constructor(epoch: number, name = "blocktab:domains") {
    this.#epoch = epoch;
    this.#useStore = createStore(name, STORE);
  }

  async load(): Promise<unknown> {
    try {
      return (await get<Stored>(KEY, this.#useStore))?.record;
    } catch (error) {
      throw storeError(error, "Reading the record of domains in IndexedDB");
    }
  }

  async save(record: unknown): Promise<void> {
    if (this.#isSealed) throw new BlockError("ESTALE", "The disks change hands");
    try {
      await update<Stored>(
        KEY,
        (stored) => {
          this.#check(stored);
          return { epoch: this.#epoch, record };
        },
        this.#useStore,
      );
    } catch (error) {
      throw storeError(error, "Writing the record of domains in IndexedDB");
    }
  }

  /** Nothing is saved any more: what is kept is for the next owner to go on from. */
  seal(): void {
    this.#isSealed = true;
  }

  #check(stored: Stored | undefined): void {
    if (!stored || stored.epoch <= this.#epoch) return;
    throw new BlockError(
      "ESTALE",
      `Another tab has the domains: its epoch is ${stored.epoch}, this one's is ${this.#epoch}`,
    );
  }
}
