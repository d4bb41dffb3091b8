/**
 * A disk in IndexedDB: where there is no OPFS, or no dedicated worker. One database per image, so
 * that deleting an image is deleting a database and a broken one takes no other along:
 *
 *     database "blocktab:<name>", object store "chunks"
 *       "header"      { format: 1, length, "chunk-size": 65536 }
 *       0, 1, 2, …    Uint8Array of 64 KiB: the bytes from key * 64 KiB on; no key: zeroes
 *
 * Writes land in ChunkCache, which puts up to 4 MiB of chunks into one transaction. The name is
 * locked (Web Locks) while the image is open: IndexedDB itself would let two tabs mix their caches.
 */

import * as v from "valibot";
import { size } from "../../base/check.ts";
import type { Clock } from "../../base/clock.ts";
import { assert, BlockError, throwIfAborted } from "../../base/errors.ts";
import type { BlockState, RequestOptions, StateInfo, StoreStatus } from "../../block/driver.ts";
import type { TypedDriver } from "../../block/option-types.ts";
import { ChunkCache } from "./indexeddb-cache.ts";
import { NameLock } from "./indexeddb-lock.ts";
import { CHUNK, ChunkTable, databaseNames, deleteDatabase } from "./indexeddb-table.ts";
import { retryWhileBusy } from "./retry-busy.ts";

const name = v.pipe(
  v.string(),
  v.check((text) => text.length >= 1 && text.length <= 200, "1 to 200 characters"),
);

const openOptions = { name };
type OpenOptions = v.InferOutput<v.ObjectSchema<typeof openOptions, undefined>>;

const createOptions = { name, size };
type CreateOptions = v.InferOutput<v.ObjectSchema<typeof createOptions, undefined>>;

/** What types are made of: see src/block/option-types.ts. */
interface Types {
  readonly name: "indexeddb";
  readonly kind: "protocol";
  readonly roles: Record<never, never>;
  readonly openOptions: typeof openOptions;
  readonly createOptions: typeof createOptions;
}

export function indexeddbDriver(): TypedDriver<Types, OpenOptions, CreateOptions> {
  return {
    name: "indexeddb",
    kind: "protocol",
    roles: {},
    openOptions,
    reopenOptions: [],
    createOptions,

    async open({ options: { name }, readOnly, world, signal }) {
      const mode = modeFor(readOnly);
      const held = await retryWhileBusy(world.clock, signal, () => NameLock.take(name, mode));
      let table: ChunkTable | undefined;
      try {
        // Asked first, because opening a database makes it.
        if (!(await databaseNames()).includes(name)) throw noSuchImage(name);
        table = await ChunkTable.open(name);
        const length = await table.readLength();
        if (length === undefined) throw noSuchImage(name);
        throwIfAborted(signal);
        return new IndexeddbState(table, length, name, readOnly, held, world.clock);
      } catch (error) {
        table?.close();
        await held.release();
        throw error;
      }
    },

    /** Makes the image, or empties the one that is there. */
    async create({ options: { name, size }, world, signal }) {
      const held = await retryWhileBusy(world.clock, signal, () =>
        NameLock.take(name, "exclusive"),
      );
      let table: ChunkTable | undefined;
      try {
        table = await ChunkTable.open(name);
        await table.reset(size);
      } finally {
        table?.close();
        await held.release();
      }
    },
  };
}

class IndexeddbState implements BlockState {
  readonly limits = { requestAlignment: 1, clusterSize: 0, growable: true };
  readonly #table: ChunkTable;
  readonly #cache: ChunkCache;
  readonly #name: string;
  readonly #clock: Clock;
  #readOnly: boolean;
  readonly #lock: NameLock;

  constructor(
    table: ChunkTable,
    length: number,
    name: string,
    readOnly: boolean,
    lock: NameLock,
    clock: Clock,
  ) {
    this.#table = table;
    this.#cache = new ChunkCache(table, length);
    this.#name = name;
    this.#readOnly = readOnly;
    this.#lock = lock;
    this.#clock = clock;
  }

  getLength(): number {
    return this.#cache.length;
  }

  async pread(buf: Uint8Array, offset: number, { signal }: RequestOptions = {}): Promise<void> {
    this.#lock.checkHeld();
    await this.#cache.read(buf, offset, signal);
  }

  async pwrite(buf: Uint8Array, offset: number, { signal }: RequestOptions = {}): Promise<void> {
    this.#assertWritable();
    await this.#cache.write(buf, offset, signal);
  }

  async pwriteZeroes(
    offset: number,
    bytes: number,
    { signal }: RequestOptions = {},
  ): Promise<void> {
    this.#assertWritable();
    await this.#cache.writeZeroes(offset, bytes, signal);
  }

  /** Frees whole chunks; what is left of others keeps its bytes. */
  async pdiscard(offset: number, bytes: number, { signal }: RequestOptions = {}): Promise<void> {
    this.#assertWritable();
    throwIfAborted(signal);
    const first = Math.ceil(offset / CHUNK);
    const end = Math.floor((offset + bytes) / CHUNK);
    if (first < end) await this.#cache.removeChunks(first, end - 1);
  }

  async storeStatus(offset: number, bytes: number): Promise<StoreStatus> {
    this.#lock.checkHeld();
    return this.#cache.status(offset, bytes);
  }

  async truncate(length: number): Promise<void> {
    this.#assertWritable();
    await this.#cache.truncate(length);
  }

  async flush(): Promise<void> {
    await this.#cache.flush();
  }

  async reopen(readOnly: boolean): Promise<void> {
    if (readOnly === this.#readOnly) return;
    await this.#cache.flush();
    await this.#lock.change(this.#clock, modeFor(readOnly));
    this.#readOnly = readOnly;
  }

  async close(): Promise<void> {
    try {
      await this.#cache.flush();
    } finally {
      this.#table.close();
      await this.#lock.release();
    }
  }

  info(): StateInfo {
    return { filename: this.#name };
  }

  #assertWritable(): void {
    this.#lock.checkHeld();
    assert(!this.#readOnly, "nothing writes to a read-only image");
  }
}

/** Names of the images in IndexedDB. Works in a window, too. */
export async function listIndexeddb(): Promise<string[]> {
  return (await databaseNames()).sort();
}

/** @throws BlockError EBUSY while it is open anywhere, ENOENT if there is none */
export async function removeIndexeddb(name: string): Promise<void> {
  const held = await NameLock.take(name, "exclusive");
  try {
    if (!(await databaseNames()).includes(name)) throw noSuchImage(name);
    await deleteDatabase(name);
  } finally {
    await held.release();
  }
}

function noSuchImage(name: string): BlockError {
  return new BlockError("ENOENT", `There is no image '${name}' in IndexedDB`);
}

function modeFor(readOnly: boolean): LockMode {
  return readOnly ? "shared" : "exclusive";
}
