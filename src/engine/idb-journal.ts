/**
 * The journal's record in IndexedDB, by idb-keyval: database "blocktab:journal", one key.
 *
 * The epoch is looked at in the transaction that writes, so a tab that was frozen and wakes cannot write
 * over the record of the one that has taken over. Each write is on the disk before it is done (durability
 * "strict"): what waits for it is a guest's write to another file, which would be.
 */

import { createStore, del, get, type UseStore, update } from "idb-keyval";
import type { IntentStore, IntentsRecord } from "../block/write-intents.ts";
import { storeError } from "../drivers/protocol/errors.ts";
import type { JournalRecord } from "./journal/record.ts";
import { checkEpoch, type JournalStore, type RecordWords } from "./journal/store.ts";

const STORE = "record";
const KEY = "record";

export class IndexeddbJournal implements JournalStore, IntentStore {
  readonly words: RecordWords = {
    what: "what this site keeps of disks and jobs",
    ifNewer: "Close all tabs of this page and open it again: that brings the newer one",
  };
  readonly #useStore: UseStore;

  /** @param name of the database; another one for tests */
  constructor(name = "blocktab:journal") {
    this.#useStore = strict(createStore(name, STORE));
  }

  async load(): Promise<unknown> {
    try {
      return await get(KEY, this.#useStore);
    } catch (error) {
      throw storeError(error, "Reading the journal in IndexedDB");
    }
  }

  /** There is another place for it now. */
  async clear(): Promise<void> {
    try {
      await del(KEY, this.#useStore);
    } catch (error) {
      throw storeError(error, "Clearing the journal in IndexedDB");
    }
  }

  async save(record: JournalRecord | IntentsRecord): Promise<void> {
    try {
      await update(
        KEY,
        (stored: unknown) => {
          checkEpoch(stored, record);
          return record;
        },
        this.#useStore,
      );
    } catch (error) {
      throw storeError(error, "Writing the journal in IndexedDB");
    }
  }
}

/** The connection is the one that idb-keyval opens, and opens again when the browser has dropped it. */
function strict(useStore: UseStore): UseStore {
  return async (mode, callback) => {
    const database = await useStore("readonly", (store) => store.transaction.db);
    return callback(database.transaction(STORE, mode, { durability: "strict" }).objectStore(STORE));
  };
}
