/**
 * A store for one image that somebody made to hurt: it is sparse, counts what is asked of it, and ends a
 * run that asks for too much. What it throws then is no BlockError, so nobody takes it for the world's.
 */

import { MiB } from "../../../src/base/bytes.ts";
import { BlockError } from "../../../src/base/errors.ts";
import type { BlockDriver, BlockState } from "../../../src/block/driver.ts";
import { MemoryState, MemoryStore } from "../../../src/drivers/protocol/memory.ts";
import type { Source } from "./judge.ts";

/** As of a disk that is full: what an attacker may fill. */
const PAGES_MAX = 1024;
/** No buffer needs to be longer, whatever an image says: a cluster is 2 MiB at most. */
const REQUEST_BYTES_MAX = 4 * MiB;

/** Times that who was told to stop may look at the clock after that. */
const LOOKS_TO_END = 20_000;

/** What one operation may ask of its files; see FuzzStores.expect(). */
export interface Bounds {
  readonly requests: number;
  readonly bytes: number;
}

/** The stores of one run, by name; "image" and "data". */
export class FuzzStores {
  readonly #stores = new Map<string, MemoryStore>();
  #opened = new Set<string>();
  #requests = 0;
  #bytes = 0;
  #bounds: Bounds = { requests: 0, bytes: 0 };
  #operation = "";
  changes = 0;
  /** Names of what was changed since the first put() of a run. */
  readonly changed = new Set<string>();
  #ending: { readonly controller: AbortController; requests: number; looks: number } | null = null;
  /** Of all operations: what the most demanding one took. */
  readonly most = { requests: 0, bytes: 0, request: 0, operation: "" };

  put(name: string, content: Uint8Array): void {
    const store = new MemoryStore(content.length);
    for (let at = 0; at < content.length; at += 65536) {
      const page = new Uint8Array(65536);
      page.set(content.subarray(at, at + 65536));
      store.pages.set(at / 65536, page);
    }
    this.#stores.set(name, store);
    this.changes = 0;
    this.changed.clear();
  }

  /** The operation was told to come to its end. */
  get wasEnded(): boolean {
    return this.#ending?.controller.signal.aborted === true;
  }

  /**
   * Raised after so many requests of the operation, or looks at the clock: it must come to its end then.
   * Who finds nothing but errors in memory asks no store, but every request of the block layer is timed.
   */
  endAfter(requests: number, looks: number): AbortSignal {
    const controller = new AbortController();
    this.#ending = { controller, requests, looks };
    return controller.signal;
  }

  /** Somebody looks at the clock. */
  looked(): void {
    const ending = this.#ending;
    if (ending && ending.looks-- === 0) ending.controller.abort();
    if (ending && ending.looks < -LOOKS_TO_END) {
      throw new Error(`${this.#operation} was told to stop, and goes on`);
    }
  }

  clear(): void {
    this.#stores.clear();
    this.#opened = new Set();
  }

  /** Names that were asked for. */
  get opened(): ReadonlySet<string> {
    return this.#opened;
  }

  /** What lies in a store now, for the judge. */
  source(name: string): Source {
    const store = this.#stores.get(name)!;
    return {
      length: store.length,
      read(offset, bytes) {
        const all = new Uint8Array(bytes);
        for (let at = 0; at < bytes; ) {
          const inPage = (offset + at) % 65536;
          const piece = Math.min(bytes - at, 65536 - inPage);
          const page = store.pages.get(Math.floor((offset + at) / 65536));
          if (page) all.set(page.subarray(inPage, inPage + piece), at);
          at += piece;
        }
        return all;
      },
    };
  }

  length(name: string): number {
    return this.#stores.get(name)!.length;
  }

  /** An operation begins, and may ask for so much. */
  expect(operation: string, bounds: Bounds): void {
    this.#operation = operation;
    this.#bounds = bounds;
    this.#requests = 0;
    this.#bytes = 0;
    this.#ending = null;
  }

  #count(bytes: number): void {
    this.#requests++;
    this.#bytes += bytes;
    const ending = this.#ending;
    if (ending && ending.requests-- === 0) ending.controller.abort();
    const { most } = this;
    if (this.#requests > most.requests) {
      most.requests = this.#requests;
      most.operation = this.#operation;
    }
    most.bytes = Math.max(most.bytes, this.#bytes);
    most.request = Math.max(most.request, bytes);
    const { requests, bytes: most_ } = this.#bounds;
    if (this.#requests <= requests && this.#bytes <= most_ && bytes <= REQUEST_BYTES_MAX) return;
    throw new Error(
      `${this.#operation} asks too much of a file: ${this.#requests} requests, ${this.#bytes} bytes, ` +
        `${bytes} in the last one`,
    );
  }

  #checkRoom(store: MemoryStore): void {
    if (store.pages.size < PAGES_MAX) return;
    throw new BlockError("ENOSPC", "The store is full");
  }

  /** Takes `name`; the traps beside it take anything, and take it amiss. */
  driver(): BlockDriver {
    const stores = this;
    return {
      name: "fuzz-store",
      kind: "protocol",
      roles: {},
      openOptions: { name: anything },
      createOptions: { name: anything, size: anything },
      async open({ options, readOnly }) {
        const { name } = options as unknown as { name: string };
        const store = stores.#stores.get(name);
        stores.#opened.add(name);
        if (!store) throw new BlockError("ENOENT", `There is no '${name}'`);
        return stores.#state(name, store, readOnly);
      },
      async create({ options }: { options: unknown }) {
        const { name, size } = options as { name: string; size: number };
        stores.#stores.set(name, new MemoryStore(size));
        stores.changed.add(name);
      },
    } as BlockDriver;
  }

  #state(name: string, store: MemoryStore, readOnly: boolean): BlockState {
    const state = new MemoryState(store, readOnly);
    const changed = (bytes: number) => {
      this.#count(bytes);
      this.changes++;
      this.changed.add(name);
      this.#checkRoom(store);
    };
    return {
      limits: state.limits,
      identity: state.identity,
      getLength: () => state.getLength(),
      pread: async (buf, offset, options) => {
        this.#count(buf.length);
        return state.pread(buf, offset, options);
      },
      pwrite: async (buf, offset, options) => {
        changed(buf.length);
        return state.pwrite(buf, offset, options);
      },
      pwriteZeroes: async (offset, bytes, options) => {
        // Costs nothing here, as in a sparse file.
        changed(0);
        return state.pwriteZeroes(offset, bytes, options);
      },
      pdiscard: async (offset, bytes, options) => {
        changed(0);
        return state.pdiscard(offset, bytes, options);
      },
      storeStatus: async (offset, bytes) => {
        this.#count(0);
        return state.storeStatus(offset, bytes);
      },
      truncate: async (length) => {
        changed(0);
        return state.truncate(length);
      },
      flush: async () => this.#count(0),
      reopen: (isReadOnly) => state.reopen(isReadOnly),
      close: () => state.close(),
    };
  }
}

import * as v from "valibot";

const anything = v.any();

/** Drivers under the names that images ask for: whoever opens one has followed a name. */
export function traps(): BlockDriver[] {
  return ["file", "http", "https", "nbd", "opfs", "memory", "blob"].map((name) => ({
    name,
    kind: "protocol",
    roles: {},
    openOptions: { filename: anything, url: anything, name: anything },
    open: async () => {
      throw new Error(`A name inside an image was followed: driver '${name}' was opened`);
    },
    create: async () => {
      throw new Error(`A name inside an image was followed: driver '${name}' was to create`);
    },
  })) as unknown as BlockDriver[];
}
