/**
 * Where the record of domains is kept: one JSON value that is put whole. The contract is that of the engine's
 * journal, so its fillings serve here as well, under a name of their own: FileJournal of
 * src/engine/node-journal.ts, those of src/engine/browser-records.ts.
 */

import { checkEpoch, type Worded } from "../engine/journal/store.ts";

/** Its name among the records that a browser keeps. */
export const DOMAINS = "domains";

export interface DomainStore extends Worded {
  /** What was saved last; undefined: nothing yet. */
  load(): Promise<unknown>;
  /**
   * Resolves when it would survive the end of this program.
   *
   * @throws BlockError ESTALE if the one that is there is of a later `epoch`; EIO and the like
   */
  save(record: object): Promise<void>;
}

/** Lives as long as the object: for tests, and where nothing else is to be had. */
export class MemoryDomainStore implements DomainStore {
  #text: string | undefined;

  async load(): Promise<unknown> {
    return this.#text === undefined ? undefined : JSON.parse(this.#text);
  }

  async save(record: object): Promise<void> {
    checkEpoch(await this.load(), record as never);
    this.#text = JSON.stringify(record);
  }
}
