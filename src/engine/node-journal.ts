/**
 * The journal's record as a file on Node: written beside it, made durable, and put in its place, so that
 * there is always a whole one. No other program should write it; another engine that has is noticed.
 */

import { open, readFile, rename, stat } from "node:fs/promises";
import { dirname } from "node:path";
import type { IntentStore, IntentsRecord } from "../block/write-intents.ts";
import { storeError } from "../drivers/protocol/errors.ts";
import type { JournalRecord } from "./journal/record.ts";
import { checkEpoch, type JournalStore, type OpenedJournal, openJournal } from "./journal/store.ts";

export class FileJournal implements JournalStore, IntentStore {
  readonly #path: string;
  /** What tells the file that was written last here from any other. */
  #last: string | null = null;

  constructor(path: string) {
    this.#path = path;
  }

  async load(): Promise<unknown> {
    const text = await this.#attempt("Reading", () => readFile(this.#path, "utf8"));
    if (text === null) return undefined;
    try {
      return JSON.parse(text);
    } catch {
      // Kept as it is, and told: see parseRecord().
      return text;
    }
  }

  async save(record: JournalRecord | IntentsRecord): Promise<void> {
    const now = await this.#identity();
    if (now !== null && now !== this.#last) checkEpoch(await this.load(), record);
    const fresh = `${this.#path}.new`;
    await this.#attempt("Writing", async () => {
      const file = await open(fresh, "w", 0o600);
      try {
        await file.writeFile(JSON.stringify(record));
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(fresh, this.#path);
      const folder = await open(dirname(this.#path));
      try {
        await folder.sync();
      } finally {
        await folder.close();
      }
    });
    this.#last = await this.#identity();
  }

  async #identity(): Promise<string | null> {
    const found = await this.#attempt("Looking at", () => stat(this.#path, { bigint: true }));
    return found && `${found.dev} ${found.ino} ${found.size} ${found.mtimeNs}`;
  }

  /** @returns null if there is no such file */
  async #attempt<T>(what: string, step: () => Promise<T>): Promise<T | null> {
    try {
      return await step();
    } catch (error) {
      const told = storeError(error, `${what} the journal '${this.#path}'`);
      if (told.errno === "ENOENT" && what !== "Writing") return null;
      throw told;
    }
  }
}

/** Both records: the engine's in this file, and beside it where images are written. @throws BlockError */
export function openFileJournal(path: string): Promise<OpenedJournal> {
  return openJournal(new FileJournal(path), new FileJournal(`${path}.intents`));
}
