/**
 * The database of one image, see indexeddb.ts for its layout: whole chunks in and out, each call one
 * transaction. No call awaits anything but its own requests, or the transaction would be gone.
 *
 * The connection that idb-keyval opened is kept: asked again after the browser has dropped it (site
 * data cleared), idb-keyval would open a new, empty database, and the whole disk would read as zero.
 */

import { createStore, promisifyRequest } from "idb-keyval";
import { KiB } from "../../base/bytes.ts";
import { BlockError } from "../../base/errors.ts";
import { storeError } from "./errors.ts";

/** Bytes of one value. Values beyond 256 KiB are slow in Firefox, small ones everywhere. */
export const CHUNK = 64 * KiB;

const STORE = "chunks";
const HEADER = "header";
const FORMAT = 1;
const PREFIX = "blocktab:";
/** Above every chunk's key, below every string. */
const LAST = Number.MAX_SAFE_INTEGER;

/** Chunks to put, or to delete where the value is null. */
export type ChunkChanges = Iterable<readonly [index: number, bytes: Uint8Array | null]>;

export class ChunkTable {
  readonly #database: IDBDatabase;
  readonly #name: string;

  private constructor(database: IDBDatabase, name: string) {
    this.#database = database;
    this.#name = name;
  }

  /** Connects; makes an empty database if there is none. The caller holds the name's lock. */
  static async open(name: string): Promise<ChunkTable> {
    try {
      const useStore = createStore(PREFIX + name, STORE);
      const database = await useStore("readonly", (store) => store.transaction.db);
      return new ChunkTable(database, name);
    } catch (error) {
      throw storeError(error, `Opening '${name}' in IndexedDB`);
    }
  }

  /**
   * Length of the disk in bytes, undefined if the database has just been made.
   *
   * @throws BlockError EINVAL if another version of this program made it
   */
  async readLength(): Promise<number | undefined> {
    const header = await this.#run("Reading the header", "readonly", (store) =>
      promisifyRequest(store.get(HEADER) as IDBRequest<unknown>),
    );
    if (header === undefined) return undefined;
    const { format, length, "chunk-size": chunkSize } = header as Record<string, unknown>;
    if (format !== FORMAT || chunkSize !== CHUNK || !Number.isSafeInteger(length)) {
      throw new BlockError("EINVAL", `'${this.#name}' in IndexedDB has a format unknown here`);
    }
    return length as number;
  }

  /**
   * Chunks first … last, as far as they exist, for one transaction and two requests.
   *
   * Cost: up to (last - first + 1) chunks of fresh memory; the caller bounds it.
   */
  async read(first: number, last: number): Promise<Map<number, Uint8Array>> {
    const range = IDBKeyRange.bound(first, last);
    const [keys, values] = await this.#run("Reading chunks", "readonly", (store) =>
      Promise.all([
        promisifyRequest(store.getAllKeys(range) as IDBRequest<number[]>),
        promisifyRequest(store.getAll(range) as IDBRequest<unknown[]>),
      ]),
    );
    const chunks = new Map<number, Uint8Array>();
    for (const [i, key] of keys.entries()) {
      const bytes = values[i];
      if (!(bytes instanceof Uint8Array && bytes.length === CHUNK)) {
        throw new BlockError("EIO", `Chunk ${key} of '${this.#name}' in IndexedDB is damaged`);
      }
      chunks.set(key, bytes);
    }
    return chunks;
  }

  /** Keys of the chunks that exist among first … last, ascending, at most `count`. */
  keys(first: number, last: number, count: number): Promise<number[]> {
    return this.#run("Listing chunks", "readonly", (store) =>
      promisifyRequest(
        store.getAllKeys(IDBKeyRange.bound(first, last), count) as IDBRequest<number[]>,
      ),
    );
  }

  /**
   * All of it or nothing, on disk when it resolves. The buffers are copied before this returns.
   *
   * @param remove first and last (inclusive) of a range of chunks to delete before the changes
   * @throws BlockError ENOSPC if the quota or the disk is full
   */
  change(what: {
    readonly length?: number;
    readonly remove?: readonly [first: number, last: number];
    readonly chunks?: ChunkChanges;
  }): Promise<void> {
    return this.#run("Writing", "readwrite", (store) => {
      if (what.length !== undefined) {
        store.put({ format: FORMAT, length: what.length, "chunk-size": CHUNK }, HEADER);
      }
      if (what.remove) store.delete(IDBKeyRange.bound(what.remove[0], what.remove[1]));
      for (const [index, bytes] of what.chunks ?? []) {
        if (bytes) store.put(bytes, index);
        else store.delete(index);
      }
      return promisifyRequest(store.transaction);
    });
  }

  /** Deletes all chunks and sets the length. */
  reset(length: number): Promise<void> {
    return this.change({ length, remove: [0, LAST] });
  }

  close(): void {
    this.#database.close();
  }

  async #run<T>(
    attempted: string,
    mode: IDBTransactionMode,
    requests: (store: IDBObjectStore) => Promise<T>,
  ): Promise<T> {
    try {
      // Strict for all, not for the last before a flush: no browser promises that a strict
      // transaction makes relaxed ones before it last. At 4 MiB apiece it costs nothing (measured).
      const transaction = this.#database.transaction(STORE, mode, { durability: "strict" });
      return await requests(transaction.objectStore(STORE));
    } catch (error) {
      throw storeError(error, `${attempted} of '${this.#name}' in IndexedDB`);
    }
  }
}

/** Deletes the whole database. The caller holds the name's lock. */
export function deleteDatabase(name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const attempted = `Deleting '${name}' in IndexedDB`;
    const request = indexedDB.deleteDatabase(PREFIX + name);
    request.onsuccess = () => resolve();
    request.onerror = () => {
      reject(storeError(request.error, attempted));
    };
    request.onblocked = () => {
      reject(new BlockError("EBUSY", `${attempted} waits for somebody who has it open`));
    };
  });
}

/** Names of all databases that may be ours. */
export async function databaseNames(): Promise<string[]> {
  try {
    const names = (await indexedDB.databases()).map(({ name }) => name ?? "");
    return names.filter((name) => name.startsWith(PREFIX)).map((name) => name.slice(PREFIX.length));
  } catch (error) {
    throw storeError(error, "Listing databases");
  }
}
