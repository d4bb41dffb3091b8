/**
 * A store in memory: pages in a Map, so holes cost nothing and an 8 TiB disk is as long as it is
 * used. The place to start reading: it is the whole of what a store may do, and nothing else.
 *
 *     page number  = floor(offset / 64 KiB)
 *     missing page = 64 KiB of zeroes
 *
 * Bytes past the length are zero in the page that holds the end, so growing shows nothing old.
 */

import * as v from "valibot";
import { alignDown, alignUp, KiB } from "../../base/bytes.ts";
import { size } from "../../base/check.ts";
import { assert, BlockError, throwIfAborted } from "../../base/errors.ts";
import type { BlockState, OpenContext, RequestOptions, StoreStatus } from "../../block/driver.ts";
import type { TypedDriver } from "../../block/option-types.ts";

const PAGE = 64 * KiB;

/** The bytes of one store; outlives the states that are opened on it if it has a name. */
export class MemoryStore {
  readonly pages = new Map<number, Uint8Array>();
  length: number;
  /** How many states are open on it. */
  users = 0;

  constructor(length = 0) {
    this.length = length;
  }
}

const openOptions = {
  /** A store that was made before, by blockdev-create or by an earlier open of the same engine. */
  name: v.exactOptional(v.string()),
  /** Without a name: the length of a new store that goes away when it is closed. */
  size: v.exactOptional(size),
};
type OpenOptions = v.InferOutput<v.ObjectSchema<typeof openOptions, undefined>>;

const createOptions = { name: v.string(), size };
type CreateOptions = v.InferOutput<v.ObjectSchema<typeof createOptions, undefined>>;

/** What types are made of: see src/block/option-types.ts. */
interface Types {
  readonly name: "memory";
  readonly kind: "protocol";
  readonly roles: Record<never, never>;
  readonly openOptions: typeof openOptions;
  readonly createOptions: typeof createOptions;
}

/** @param stores the named stores, which blockdev-create fills: one map per engine */
export function memoryDriver(
  stores: Map<string, MemoryStore> = new Map(),
): TypedDriver<Types, OpenOptions, CreateOptions> {
  return {
    name: "memory",
    kind: "protocol",
    isVolatile: true,
    roles: {},
    openOptions,
    createOptions,
    reopenOptions: [],

    async open({ options, readOnly }: OpenContext<OpenOptions>) {
      if (options.name === undefined) {
        return new MemoryState(new MemoryStore(options.size), readOnly);
      }
      if (options.size !== undefined) {
        throw new BlockError("EINVAL", "Parameters 'name' and 'size' cannot be used together");
      }
      const store = stores.get(options.name);
      if (store === undefined) {
        throw new BlockError(
          "ENOENT",
          `There is no memory store '${options.name}'; create it first`,
        );
      }
      return new MemoryState(store, readOnly);
    },

    async create({ options }) {
      if ((stores.get(options.name)?.users ?? 0) > 0) {
        throw new BlockError("EBUSY", `The memory store '${options.name}' is in use`);
      }
      stores.set(options.name, new MemoryStore(options.size));
    },
  };
}

export class MemoryState implements BlockState {
  readonly limits = { requestAlignment: 1, clusterSize: 0, growable: true };
  readonly #store: MemoryStore;
  #readOnly: boolean;

  constructor(store: MemoryStore, readOnly = false) {
    this.#store = store;
    this.#readOnly = readOnly;
    store.users += 1;
  }

  get identity(): MemoryStore {
    return this.#store;
  }

  getLength(): number {
    return this.#store.length;
  }

  async pread(buf: Uint8Array, offset: number, { signal }: RequestOptions = {}): Promise<void> {
    throwIfAborted(signal);
    for (const { page, from, to, at } of pieces(offset, buf.length)) {
      const bytes = this.#store.pages.get(page);
      if (bytes === undefined) buf.fill(0, at, at + to - from);
      else buf.set(bytes.subarray(from, to), at);
    }
  }

  async pwrite(buf: Uint8Array, offset: number, { signal }: RequestOptions = {}): Promise<void> {
    throwIfAborted(signal);
    assert(!this.#readOnly, "nothing writes to a read-only store");
    const { pages } = this.#store;
    for (const { page, from, to, at } of pieces(offset, buf.length)) {
      let bytes = pages.get(page);
      if (bytes === undefined) {
        bytes = new Uint8Array(PAGE);
        pages.set(page, bytes);
      }
      bytes.set(buf.subarray(at, at + to - from), from);
    }
    this.#store.length = Math.max(this.#store.length, offset + buf.length);
  }

  async pwriteZeroes(
    offset: number,
    bytes: number,
    { signal }: RequestOptions = {},
  ): Promise<void> {
    throwIfAborted(signal);
    assert(!this.#readOnly, "nothing writes to a read-only store");
    this.#clear(offset, offset + bytes);
    this.#store.length = Math.max(this.#store.length, offset + bytes);
  }

  /** Frees whole pages; what is left of others keeps its bytes. */
  async pdiscard(offset: number, bytes: number, { signal }: RequestOptions = {}): Promise<void> {
    throwIfAborted(signal);
    assert(!this.#readOnly, "nothing writes to a read-only store");
    const start = alignUp(offset, PAGE);
    const end = alignDown(offset + bytes, PAGE);
    if (start < end) this.#clear(start, end);
  }

  async storeStatus(offset: number, bytes: number): Promise<StoreStatus> {
    const first = Math.floor(offset / PAGE);
    const zero = !this.#store.pages.has(first);
    const end = (zero ? this.#nextPage(first) : this.#nextHole(first, offset + bytes)) * PAGE;
    return { zero, bytes: Math.min(bytes, end - offset) };
  }

  async truncate(length: number): Promise<void> {
    assert(!this.#readOnly, "nothing writes to a read-only store");
    if (length < this.#store.length) this.#clear(length, alignUp(this.#store.length, PAGE));
    this.#store.length = length;
  }

  async flush(): Promise<void> {}

  async reopen(readOnly: boolean): Promise<void> {
    this.#readOnly = readOnly;
  }

  async close(): Promise<void> {
    this.#store.users -= 1;
  }

  /** Makes [start, end) zero: by dropping pages where it covers them, by filling at its edges. */
  #clear(start: number, end: number): void {
    const { pages } = this.#store;
    const firstWhole = alignUp(start, PAGE) / PAGE;
    const endWhole = alignDown(end, PAGE) / PAGE;
    if (firstWhole > endWhole) {
      pages.get(endWhole)?.fill(0, start % PAGE, end % PAGE);
      return;
    }
    if (start % PAGE !== 0) pages.get(firstWhole - 1)?.fill(0, start % PAGE);
    if (end % PAGE !== 0) pages.get(endWhole)?.fill(0, 0, end % PAGE);
    if (endWhole - firstWhole <= pages.size) {
      for (let page = firstWhole; page < endWhole; page++) pages.delete(page);
    } else {
      for (const page of pages.keys()) {
        if (page >= firstWhole && page < endWhole) pages.delete(page);
      }
    }
  }

  /** The first page from `page` on that exists, or Infinity. Cost: two walks over the pages. */
  #nextPage(page: number): number {
    const { pages } = this.#store;
    for (let step = 0; step < pages.size; step++) if (pages.has(page + step)) return page + step;
    let next = Number.POSITIVE_INFINITY;
    for (const other of pages.keys()) if (other > page && other < next) next = other;
    return next;
  }

  #nextHole(page: number, end: number): number {
    let next = page;
    while (next * PAGE < end && this.#store.pages.has(next)) next++;
    return next;
  }
}

/** The part [from, to) of page `page` that stands at `at` in the request's buffer. */
interface Piece {
  readonly page: number;
  readonly from: number;
  readonly to: number;
  readonly at: number;
}

function* pieces(offset: number, bytes: number): Generator<Piece> {
  for (let at = 0; at < bytes; ) {
    const from = (offset + at) % PAGE;
    const to = Math.min(PAGE, from + bytes - at);
    yield { page: Math.floor((offset + at) / PAGE), from, to, at };
    at += to - from;
  }
}
