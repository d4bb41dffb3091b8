/**
 * Write-back cache of one image's chunks: a write changes chunks here, transactions of many chunks
 * follow in the background, flush() waits for the last of them.
 *
 *                write               put                 transaction done
 *     (absent) ────────▶ dirty ─────────────▶ saving ──────────────────────▶ (absent)
 *                          ▲                    │
 *                          └────────────────────┘
 *                     written again, or transaction failed
 *
 * A chunk stays here until its transaction is done, so what is absent here is in the database as it
 * should be read, and a failed transaction loses nothing: the next one carries its chunks again and
 * whoever waits for that one is told.
 */

import { MiB } from "../../base/bytes.ts";
import { assert, BlockError, throwIfAborted } from "../../base/errors.ts";
import { CHUNK, type ChunkTable } from "./indexeddb-table.ts";

/** Dirty chunks from which on a transaction is started without anyone asking. */
const START_COUNT = (1 * MiB) / CHUNK;
/** Chunks that may be here before a writer has to wait, so also about the most per transaction. */
const MAX_COUNT = (4 * MiB) / CHUNK;
/** Chunks fetched by one read. */
const READ_COUNT = (4 * MiB) / CHUNK;
/** Keys looked at by one status request. */
const KEYS_COUNT = 1024;

interface Entry {
  readonly bytes: Uint8Array;
  /** Differs from what the running transaction, or the database, has. */
  dirty: boolean;
  /** Pending while the chunk's old bytes come in; nobody looks at `bytes` before. */
  loading: Promise<void> | undefined;
}

export class ChunkCache {
  readonly #table: ChunkTable;
  readonly #entries = new Map<number, Entry>();
  #length: number;
  #savedLength: number;
  /** The transaction under way. One at a time, so chunks reach the disk in order of writing. */
  #saving: Promise<void> | undefined;

  constructor(table: ChunkTable, length: number) {
    this.#table = table;
    this.#length = length;
    this.#savedLength = length;
  }

  get length(): number {
    return this.#length;
  }

  async read(buf: Uint8Array, offset: number, signal?: AbortSignal): Promise<void> {
    const last = lastChunk(offset, buf.length);
    for (let first = Math.floor(offset / CHUNK); first <= last; first += READ_COUNT) {
      throwIfAborted(signal);
      await this.#readSome(buf, offset, first, Math.min(last, first + READ_COUNT - 1));
    }
  }

  async write(buf: Uint8Array, offset: number, signal?: AbortSignal): Promise<void> {
    await this.#each(offset, buf.length, signal, (bytes, from, to, at) => {
      bytes.set(buf.subarray(at, at + to - from), from);
      this.#length = Math.max(this.#length, offset + at + to - from);
    });
  }

  /** Whole chunks go without being read; those at the edges are written like any other. */
  async writeZeroes(offset: number, bytes: number, signal?: AbortSignal): Promise<void> {
    const end = offset + bytes;
    const first = Math.ceil(offset / CHUNK);
    const count = Math.floor(end / CHUNK) - first;
    const fill = (chunk: Uint8Array, from: number, to: number) => {
      chunk.fill(0, from, to);
    };
    if (count <= 0) {
      await this.#each(offset, bytes, signal, fill);
    } else {
      await this.#each(offset, first * CHUNK - offset, signal, fill);
      await this.removeChunks(first, first + count - 1);
      await this.#each((first + count) * CHUNK, end - (first + count) * CHUNK, signal, fill);
    }
    this.#length = Math.max(this.#length, end);
  }

  /** Deletes chunks first … last, here and in the database, in one transaction. */
  async removeChunks(first: number, last: number, length?: number): Promise<void> {
    // A chunk on its way to the database would come back after the deletion.
    while (this.#saving) await this.#settled();
    const dropped = [...this.#entries].filter(([index]) => index >= first && index <= last);
    for (const [index] of dropped) this.#entries.delete(index);
    try {
      await this.#table.change({ remove: [first, last], ...(length !== undefined && { length }) });
    } catch (error) {
      for (const [index, entry] of dropped) {
        if (!this.#entries.has(index)) this.#entries.set(index, entry);
      }
      throw error;
    }
  }

  /** No request is under way. New bytes are zero, because the last chunk's tail is. */
  async truncate(length: number): Promise<void> {
    const before = this.#length;
    if (length < before) {
      const tail = length % CHUNK;
      if (tail !== 0) {
        const bytes = Math.min(CHUNK - tail, before - length);
        await this.#each(length, bytes, undefined, (chunk, from) => {
          chunk.fill(0, from);
        });
      }
      // The tail's zeroes first: a crash in between must not leave a shorter disk with a dirty tail.
      await this.flush();
      await this.removeChunks(Math.ceil(length / CHUNK), Number.MAX_SAFE_INTEGER, length);
      this.#length = length;
      this.#savedLength = length;
      return;
    }
    this.#length = length;
    try {
      await this.flush();
    } catch (error) {
      this.#length = before;
      throw error;
    }
  }

  async flush(): Promise<void> {
    // It may lack what was written since it began; if it fails, its chunks are dirty again.
    if (this.#saving) await this.#settled();
    // One that began after this call carries all that this call is about.
    if (this.#saving) await this.#saving;
    else if (this.#needsSaving()) await this.#save();
  }

  /** One run from `offset` on that is all in chunks that exist, or all in none. */
  async status(offset: number, bytes: number): Promise<{ bytes: number; zero: boolean }> {
    const first = Math.floor(offset / CHUNK);
    const last = lastChunk(offset, bytes);
    // Only ever too careful: a chunk about to be deleted counts as data. Looked at before the
    // database is asked, or a chunk could move there in between and be in neither.
    const data = new Set([...this.#entries.keys()].filter((key) => key >= first && key <= last));
    const keys = await this.#table.keys(first, last, KEYS_COUNT);
    const known = keys.length < KEYS_COUNT ? last : keys.at(-1)!;
    for (const key of keys) data.add(key);
    let next = first;
    if (data.has(first)) {
      while (next <= known && data.has(next)) next++;
      return { zero: false, bytes: Math.min(bytes, next * CHUNK - offset) };
    }
    next = known + 1;
    for (const key of data) next = Math.min(next, key);
    return { zero: true, bytes: Math.min(bytes, next * CHUNK - offset) };
  }

  async #readSome(buf: Uint8Array, offset: number, first: number, last: number): Promise<void> {
    let missingFirst = -1;
    let missingLast = -1;
    const missing = new Set<number>();
    for (let index = first; index <= last; index++) {
      const entry = this.#entries.get(index);
      if (entry && !entry.loading) copyOut(entry.bytes, index, buf, offset);
      else {
        if (missingFirst < 0) missingFirst = index;
        missingLast = index;
        missing.add(index);
      }
    }
    if (missing.size === 0) return;
    const chunks = await this.#table.read(missingFirst, missingLast);
    for (const index of missing) copyOut(chunks.get(index), index, buf, offset);
  }

  /** Calls back with each chunk of the range, ready to be changed in [from, to). */
  async #each(
    offset: number,
    bytes: number,
    signal: AbortSignal | undefined,
    change: (chunk: Uint8Array, from: number, to: number, at: number) => void,
  ): Promise<void> {
    for (let at = 0; at < bytes; ) {
      const index = Math.floor((offset + at) / CHUNK);
      const from = (offset + at) % CHUNK;
      const to = Math.min(CHUNK, from + bytes - at);
      const entry = this.#entries.get(index);
      if (entry === undefined) {
        await this.#makeRoom(signal);
        if (!this.#entries.has(index)) this.#add(index, to - from < CHUNK);
      } else if (entry.loading) {
        await entry.loading;
      } else {
        change(entry.bytes, from, to, at);
        entry.dirty = true;
        at += to - from;
      }
    }
    this.#saveInBackground();
  }

  /** @param load whether the chunk's old bytes matter */
  #add(index: number, load: boolean): void {
    const entry: Entry = { bytes: new Uint8Array(CHUNK), dirty: false, loading: undefined };
    this.#entries.set(index, entry);
    if (load) entry.loading = this.#load(index, entry);
  }

  async #load(index: number, entry: Entry): Promise<void> {
    try {
      const old = (await this.#table.read(index, index)).get(index);
      if (old) entry.bytes.set(old);
    } catch (error) {
      if (this.#entries.get(index) === entry) this.#entries.delete(index);
      throw error;
    } finally {
      entry.loading = undefined;
    }
  }

  async #makeRoom(signal: AbortSignal | undefined): Promise<void> {
    for (;;) {
      throwIfAborted(signal);
      if (this.#entries.size < MAX_COUNT) return;
      if (this.#saving) await this.#settled();
      else await this.#save();
    }
  }

  #saveInBackground(): void {
    let dirty = 0;
    for (const entry of this.#entries.values()) if (entry.dirty) dirty++;
    if (dirty < START_COUNT || this.#saving) return;
    // Its chunks stay dirty and the error comes back to whoever waits for the next transaction.
    this.#save().catch((error: unknown) => {
      if (!(error instanceof BlockError)) throw error;
    });
  }

  #needsSaving(): boolean {
    if (this.#length !== this.#savedLength) return true;
    for (const entry of this.#entries.values()) if (entry.dirty) return true;
    return false;
  }

  /** Waits for the transaction under way, however it ends. */
  async #settled(): Promise<void> {
    await this.#saving?.then(
      () => {},
      (error: unknown) => {
        if (!(error instanceof BlockError)) throw error;
      },
    );
  }

  /** One transaction with all dirty chunks and the length. None may be under way. */
  #save(): Promise<void> {
    assert(!this.#saving, "one transaction of an image is under way at a time");
    this.#saving = this.#saveBatch().finally(() => {
      this.#saving = undefined;
    });
    return this.#saving;
  }

  async #saveBatch(): Promise<void> {
    const batch = [...this.#entries].filter(([, entry]) => entry.dirty);
    const length = this.#length;
    // Handed over by copy before the first await: from here on a write makes it dirty again.
    for (const [, entry] of batch) entry.dirty = false;
    try {
      await this.#table.change({
        length,
        chunks: batch.map(([index, { bytes }]) => [index, isZero(bytes) ? null : bytes]),
      });
    } catch (error) {
      for (const [, entry] of batch) entry.dirty = true;
      throw error;
    }
    this.#savedLength = length;
    for (const [index, entry] of batch) {
      if (!entry.dirty && this.#entries.get(index) === entry) this.#entries.delete(index);
    }
  }
}

function lastChunk(offset: number, bytes: number): number {
  return Math.floor((offset + bytes - 1) / CHUNK);
}

/** Copies the part of chunk `index` that the request wants. */
function copyOut(
  chunk: Uint8Array | undefined,
  index: number,
  buf: Uint8Array,
  offset: number,
): void {
  const start = Math.max(offset, index * CHUNK);
  const end = Math.min(offset + buf.length, (index + 1) * CHUNK);
  if (chunk === undefined) buf.fill(0, start - offset, end - offset);
  else buf.set(chunk.subarray(start - index * CHUNK, end - index * CHUNK), start - offset);
}

/** @param bytes a whole chunk of its own */
function isZero(bytes: Uint8Array): boolean {
  const words = new Uint32Array(bytes.buffer);
  for (let i = 0; i < words.length; i++) if (words[i] !== 0) return false;
  return true;
}
