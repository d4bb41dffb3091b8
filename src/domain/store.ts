/**
 * Where the record of domains is kept: as the engine's journal, one JSON value that is put whole.
 */

export interface DomainStore {
  /** What was saved last; undefined: nothing yet. */
  load(): Promise<unknown>;
  /**
   * Resolves when it would survive the end of this program.
   *
   * @throws BlockError ESTALE if somebody else has taken over, EIO and the like
   */
  save(record: unknown): Promise<void>;
}

/** Lives as long as the object: for tests, and where nothing else is to be had. */
export class MemoryDomainStore implements DomainStore {
  #text: string | undefined;

  async load(): Promise<unknown> {
    return this.#text === undefined ? undefined : JSON.parse(this.#text);
  }

  async save(record: unknown): Promise<void> {
    this.#text = JSON.stringify(record);
  }
}
