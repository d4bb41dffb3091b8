/**
 * The journal's record as a file on Node: written beside it, made durable, and put in its place, so that
 * there is always a whole one. An engine holds a lock on it (node-lock.ts), so that a second one is turned away
 * before it opens an image.
 *
 * Whoever goes without a lock, or is on another machine, cannot undo a record of a later epoch either. A file
 * cannot be replaced on a condition; but one that is gone cannot be put in another's place:
 *
 *   FILE.new.7 ── epoch 7 writes ── looks: a later one? ── renames ─▶ FILE     fails if it has been removed
 *   FILE.new.8 ── epoch 8 writes ── removes FILE.new.7 ─── renames ─▶ FILE
 *
 * If 8 appears before 7 looks, then 7 sees that, here or in FILE. Else 8 finds 7's, or 7 has renamed it first.
 */

import { readlinkSync } from "node:fs";
import { open, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { MiB } from "../base/bytes.ts";
import { type Clock, SystemClock } from "../base/clock.ts";
import { BlockError } from "../base/errors.ts";
import type { IntentStore, IntentsRecord } from "../block/write-intents.ts";
import { storeError } from "../drivers/protocol/errors.ts";
import type { JournalRecord } from "./journal/record.ts";
import {
  checkEpoch,
  type JournalStore,
  type OpenedJournal,
  openJournal,
  type RecordWords,
} from "./journal/store.ts";
import { FileLock } from "./node-lock.ts";

/** How often a record is written again that somebody has removed who is not of a later epoch. */
const WRITES = 3;

/** No record comes near it. */
const RECORD_BYTES_MAX = 64 * MiB;
/** How each of ours begins. */
const HEAD = /^\s*\{\s*"version"\s*:\s*\d+\s*,\s*"epoch"\s*:\s*\d/;
const HEAD_BYTES = 256;
/** As Linux follows. */
const LINKS_MAX = 40;

export class FileJournal implements JournalStore, IntentStore {
  readonly words: RecordWords;
  readonly #path: string;
  readonly #rename: typeof rename;
  /** What tells the file that was written last here from any other. */
  #last: string | null = null;

  /** @param replace puts a file in another's place */
  constructor(path: string, replace: typeof rename = rename) {
    this.#path = linkedTo(path);
    this.words = {
      what: `the journal '${path}'`,
      ifNewer: "Go on with that one, or with a journal in another file",
      ifForeign:
        `'${path}' is no journal, or a damaged one: it has been left as it is. Give the journal another name, or ` +
        "move this file away",
    };
    this.#rename = replace;
  }

  async load(): Promise<unknown> {
    const found = await this.#read();
    // What a killed engine was about to say has no say any more.
    await this.#attempt("Clearing", () => this.#removeNew(() => true));
    return found;
  }

  async save(record: JournalRecord | IntentsRecord): Promise<void> {
    for (let writes = 0; writes < WRITES; writes++) {
      if (await this.#attempt("Writing", () => this.#replace(record))) return;
    }
    throw new BlockError(
      "EBUSY",
      `Writing the journal '${this.#path}' failed: others write it, too`,
    );
  }

  /** @throws BlockError EINVAL for what cannot be a record, of which no more than a few bytes are read */
  async #read(): Promise<unknown> {
    const text = await this.#attempt("Reading", () => ifThere(this.#text()));
    if (text === null || text === "") return undefined;
    try {
      return JSON.parse(text);
    } catch {
      throw this.#foreign();
    }
  }

  async #text(): Promise<string> {
    const found = await stat(this.#path);
    if (!found.isFile() || found.size > RECORD_BYTES_MAX) throw this.#foreign();
    if (found.size === 0) return "";
    const file = await open(this.#path);
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0);
      const head = buffer.toString("latin1", 0, bytesRead);
      if (!HEAD.test(head)) throw this.#foreign();
      return await file.readFile("utf8");
    } finally {
      await file.close();
    }
  }

  #foreign(): BlockError {
    return new BlockError("EINVAL", this.words.ifForeign!);
  }

  /** @returns false if somebody has removed what was to take the file's place */
  async #replace(record: JournalRecord | IntentsRecord): Promise<boolean> {
    const fresh = `${this.#path}.new.${record.epoch}`;
    const file = await open(fresh, "w", 0o600);
    let written: string;
    try {
      await file.writeFile(JSON.stringify(record));
      await file.sync();
      written = identity(await file.stat({ bigint: true }));
    } finally {
      await file.close();
    }
    try {
      const latest = await this.#removeNew((epoch) => epoch < record.epoch);
      checkEpoch({ epoch: latest }, record);
      const now = await ifThere(stat(this.#path, { bigint: true }));
      if (now && identity(now) !== this.#last) checkEpoch(await this.#read(), record);
    } catch (error) {
      await rm(fresh, { force: true });
      throw error;
    }
    if ((await ifThere(this.#rename(fresh, this.#path).then(() => true))) === null) return false;
    this.#last = written;
    const folder = await open(dirname(this.#path));
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
    return true;
  }

  /**
   * Of records that are about to take the file's place.
   *
   * @returns the latest epoch of any
   */
  async #removeNew(isToGo: (epoch: number) => boolean): Promise<number> {
    const [folder, prefix] = [dirname(this.#path), `${basename(this.#path)}.new.`];
    const names = (await ifThere(readdir(folder))) ?? [];
    const epochs = names
      .filter((name) => name.startsWith(prefix))
      .map((name) => Number(name.slice(prefix.length)))
      .filter(Number.isSafeInteger);
    for (const epoch of epochs.filter(isToGo)) {
      await rm(join(folder, `${prefix}${epoch}`), { force: true });
    }
    return Math.max(0, ...epochs);
  }

  async #attempt<T>(what: string, step: () => Promise<T>): Promise<T> {
    try {
      return await step();
    } catch (error) {
      throw storeError(error, `${what} the journal '${this.#path}'`);
    }
  }
}

/** @returns null if there is nothing of that name */
async function ifThere<T>(step: Promise<T>): Promise<T | null> {
  try {
    return await step;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}

/**
 * Where a link leads, be there a file yet or not. The link itself would be replaced, and whoever has the file under its
 * own name not be seen. What cannot be followed is told when it is opened.
 */
function linkedTo(path: string, links = LINKS_MAX): string {
  let target: string;
  try {
    target = readlinkSync(path);
  } catch {
    return path;
  }
  return links === 0 ? path : linkedTo(resolve(dirname(path), target), links - 1);
}

/** Stays with it when it is renamed. */
function identity(found: { dev: bigint; ino: bigint; size: bigint; mtimeNs: bigint }): string {
  return `${found.dev} ${found.ino} ${found.size} ${found.mtimeNs}`;
}

/**
 * Both records: the engine's in this file, and beside it where images are written.
 *
 * @throws BlockError EBUSY if another engine has them: nothing is changed then; what the stores throw
 */
export async function openFileJournal(
  name: string,
  clock: Clock = new SystemClock(),
): Promise<OpenedJournal> {
  const path = linkedTo(name);
  const lock = await FileLock.take(path, `the journal '${path}'`, clock);
  try {
    const opened = await openJournal(new FileJournal(path), new FileJournal(`${path}.intents`));
    return { ...opened, release: () => lock.release() };
  } catch (error) {
    await lock.release();
    throw error;
  }
}
