/**
 * Blocks of one remote resource: the last used ones are kept, neighbours that are missing come in
 * one request, and readers that want the same block wait for the same request.
 *
 *     blocks     . . # # . . . . # .        # kept, least recently used first
 *     a read         |-----------|
 *     requests           |---|              at most 8 blocks each, 6 at a time
 *
 * Memory: the kept blocks, at most `capacity` bytes, and 6 requests of 2 MiB.
 */

import { KiB } from "../../base/bytes.ts";
import { BlockError, throwIfAborted } from "../../base/errors.ts";
import { settleAll } from "../../base/settle.ts";

export const BLOCK = 256 * KiB;
/** Blocks per request at most. */
const RUN_COUNT = 8;
/** As many as browsers open to one HTTP/1.1 server. */
const PARALLEL_REQUESTS = 6;
/** Blocks that one read has under way at most. */
const WINDOW_COUNT = RUN_COUNT * PARALLEL_REQUESTS;

/** Fills the buffers, one behind the other from `offset` on. */
export type FetchBlocks = (
  buffers: readonly Uint8Array[],
  offset: number,
  signal: AbortSignal,
) => Promise<void>;

/** One request, under way or waiting for its turn. */
interface Run {
  readonly first: number;
  readonly count: number;
  readonly controller: AbortController;
  blocks: Promise<readonly Uint8Array[]>;
  /** Readers that still want it; without any it is called off. */
  wanted: number;
}

export class BlockCache {
  readonly #fetchBlocks: FetchBlocks;
  readonly #length: number;
  readonly #capacityCount: number;
  /** In order of use, the least recent first. */
  readonly #kept = new Map<number, Uint8Array>();
  readonly #coming = new Map<number, Run>();
  #running = 0;
  readonly #queue: (() => void)[] = [];

  /**
   * @param length of the resource, in bytes
   * @param capacity bytes of blocks to keep
   */
  constructor(fetchBlocks: FetchBlocks, length: number, capacity: number) {
    this.#fetchBlocks = fetchBlocks;
    this.#length = length;
    this.#capacityCount = Math.floor(capacity / BLOCK);
  }

  async read(buf: Uint8Array, offset: number, signal?: AbortSignal): Promise<void> {
    const last = Math.floor((offset + buf.length - 1) / BLOCK);
    for (let first = Math.floor(offset / BLOCK); first <= last; first += WINDOW_COUNT) {
      throwIfAborted(signal);
      await this.#readSome(buf, offset, first, Math.min(last, first + WINDOW_COUNT - 1), signal);
    }
  }

  /** Starts to fetch what is missing of [offset, offset + bytes), if the line is free. */
  prefetch(offset: number, bytes: number): void {
    const end = Math.min(offset + bytes, this.#length);
    if (offset >= end || this.#running > 0) return;
    let first = Math.floor(offset / BLOCK);
    const last = Math.floor((end - 1) / BLOCK);
    while (first <= last && this.#has(first)) first += 1;
    if (first > last) return;
    const run = this.#start(first, last);
    run.wanted += 1;
    // Nobody has asked for it yet. Who does will ask the server again, and be told.
    run.blocks.catch((error: unknown) => {
      if (!(error instanceof BlockError)) throw error;
    });
  }

  /** Calls off what is under way. */
  close(): void {
    for (const run of this.#coming.values()) run.controller.abort();
    this.#kept.clear();
  }

  #has(index: number): boolean {
    return this.#kept.has(index) || this.#coming.has(index);
  }

  async #readSome(
    buf: Uint8Array,
    offset: number,
    first: number,
    last: number,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const runs = new Set<Run>();
    for (let index = first; index <= last; index++) {
      const block = this.#use(index);
      if (block) copyOut(block, index, buf, offset);
      else runs.add(this.#coming.get(index) ?? this.#start(index, last));
    }
    await settleAll([...runs].map((run) => this.#receive(run, buf, offset, signal)));
  }

  /** Waits for a run, as one of those who want it, and copies out of it while it is at hand. */
  async #receive(
    run: Run,
    buf: Uint8Array,
    offset: number,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    run.wanted += 1;
    try {
      const blocks = await unlessAborted(run.blocks, signal);
      for (const [i, block] of blocks.entries()) copyOut(block, run.first + i, buf, offset);
    } finally {
      run.wanted -= 1;
      if (run.wanted === 0) {
        run.controller.abort();
        // At once: who comes next must not be told that somebody else has lost interest.
        this.#forget(run);
      }
    }
  }

  /** A request for `first` and those missing behind it, up to `last`. */
  #start(first: number, last: number): Run {
    let count = 1;
    while (count < RUN_COUNT && first + count <= last && !this.#has(first + count)) count += 1;
    const controller = new AbortController();
    const run: Run = { first, count, controller, blocks: Promise.resolve([]), wanted: 0 };
    for (let i = 0; i < count; i++) this.#coming.set(first + i, run);
    run.blocks = this.#fetch(run);
    return run;
  }

  async #fetch(run: Run): Promise<readonly Uint8Array[]> {
    const { first, count, controller } = run;
    await this.#turn();
    try {
      throwIfAborted(controller.signal);
      const blocks = Array.from({ length: count }, (_, i) => this.#emptyBlock(first + i));
      await this.#fetchBlocks(blocks, first * BLOCK, controller.signal);
      for (const [i, block] of blocks.entries()) this.#keep(first + i, block);
      return blocks;
    } finally {
      this.#forget(run);
      const next = this.#queue.shift();
      if (next) next();
      else this.#running -= 1;
    }
  }

  #forget(run: Run): void {
    for (let i = run.first; i < run.first + run.count; i++) {
      if (this.#coming.get(i) === run) this.#coming.delete(i);
    }
  }

  /** Waits until fewer than PARALLEL_REQUESTS are under way; whoever ends hands its place on. */
  async #turn(): Promise<void> {
    if (this.#running < PARALLEL_REQUESTS) this.#running += 1;
    else await new Promise<void>((resolve) => this.#queue.push(resolve));
  }

  #emptyBlock(index: number): Uint8Array {
    return new Uint8Array(Math.min(BLOCK, this.#length - index * BLOCK));
  }

  #use(index: number): Uint8Array | undefined {
    const block = this.#kept.get(index);
    if (block) {
      this.#kept.delete(index);
      this.#kept.set(index, block);
    }
    return block;
  }

  #keep(index: number, block: Uint8Array): void {
    this.#kept.set(index, block);
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= this.#capacityCount) break;
      this.#kept.delete(oldest);
    }
  }
}

/** @throws BlockError ECANCELED as soon as the signal is raised; the promise itself goes on */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = () => reject(new BlockError("ECANCELED", "Operation canceled"));
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
    promise.then(resolve, reject).finally(() => signal?.removeEventListener("abort", stop));
  });
}

/** Copies what the request wants of block `index`, which may be nothing. */
function copyOut(block: Uint8Array, index: number, buf: Uint8Array, offset: number): void {
  const start = Math.max(offset, index * BLOCK);
  const end = Math.min(offset + buf.length, index * BLOCK + block.length);
  if (start < end) {
    buf.set(block.subarray(start - index * BLOCK, end - index * BLOCK), start - offset);
  }
}
