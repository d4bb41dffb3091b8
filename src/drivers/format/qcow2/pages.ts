/**
 * The image's tables in memory: pages of at most 4 KiB, of which one that was not used lately leaves.
 *
 * At most 32 MiB per image unless 'cache-size' says otherwise, and never more than it has tables: all L2
 * tables of 256 GiB in clusters of 64 KiB. The first 2 MiB lie in wasm memory while there is room, so
 * that kernels read them where they are; they are all that most images need, and jobs need the rest of
 * it. Dirty pages never leave: epoch.ts writes them, in its order, before they fill more than half
 * (makeRoom()).
 *
 * Who leaves is found as by the hand of a clock: it goes round all pages and takes the first that was
 * not used since it came by. A page that is used is only marked, which costs the same in a large cache
 * as in a small one; keeping them in order of use did not.
 *
 * A page is good until the next await: nobody keeps one. The pattern is a loop around peek():
 *
 *     for (;;) {
 *       const page = pages.peek(offset);
 *       if (page) return look(page);          ◀── in the same turn
 *       await pages.load(…);                  ◀── anything may have happened since
 *     }
 */

import { alignDown, KiB, MiB } from "../../../base/bytes.ts";
import { assert, BlockError } from "../../../base/errors.ts";
import type { BlockChild } from "../../../block/child.ts";
import type { DebugEvent } from "../../../block/debug.ts";
import type { Kernel } from "../../../kernel/kernel.ts";

export const CACHE_BYTES = 32 * MiB;
const WASM_BYTES = 2 * MiB;
/** A change may dirty half a dozen pages, and a read needs two that it can keep. */
const PAGES_MIN = 32;
const PAGE_BYTES_MAX = 4 * KiB;
/** Wasm memory is taken in pieces of this many bytes, as they are needed. */
const CHUNK_BYTES = 64 * KiB;

export type TableKind = "l1" | "l2" | "refcount-table" | "refcount-block";

const TABLE_NAMES: Readonly<Record<TableKind, string>> = {
  l1: "L1 table",
  l2: "L2 table",
  "refcount-table": "refcount table",
  "refcount-block": "refcount block",
};

/** The L1 table is loaded without one, in QEMU as part of opening. */
const LOAD_EVENTS: Readonly<Partial<Record<TableKind, DebugEvent>>> = {
  l2: "l2_load",
  "refcount-table": "reftable_load",
  "refcount-block": "refblock_load",
};

/** A table in the file: where it is and how many bytes of it mean something. */
export interface Table {
  readonly kind: TableKind;
  readonly offset: number;
  readonly bytes: number;
}

export interface Page {
  readonly table: Table;
  /** In the file. */
  readonly offset: number;
  readonly bytes: Uint8Array;
  dirty: boolean;
  /** Since the hand came by. */
  used: boolean;
  /** Where the hand finds it. */
  readonly slot: number;
}

export class Pages {
  readonly pageBytes: number;
  readonly #file: BlockChild;
  readonly #kernel: Kernel;
  readonly #capacity: number;
  /** By file offset. */
  readonly #pages = new Map<number, Page>();
  /** What the hand goes round; null where a page has left. */
  readonly #slots: (Page | null)[] = [];
  readonly #freeSlots: number[] = [];
  #hand = 0;
  readonly #dirty = new Set<Page>();
  readonly #loading = new Map<number, Promise<void>>();
  readonly #spare: Uint8Array[] = [];
  readonly #chunks: Uint8Array[] = [];
  #buffers = 0;

  /** @param cacheBytes most memory for pages, raised to PAGES_MIN pages */
  constructor(file: BlockChild, kernel: Kernel, clusterBytes: number, cacheBytes: number) {
    this.pageBytes = Math.min(clusterBytes, PAGE_BYTES_MAX);
    this.#file = file;
    this.#kernel = kernel;
    this.#capacity = Math.max(PAGES_MIN, Math.floor(cacheBytes / this.pageBytes));
  }

  /** True when dirty pages must be written before more are made. */
  get isFull(): boolean {
    return this.#dirty.size * 2 >= this.#capacity;
  }

  get hasDirty(): boolean {
    return this.#dirty.size > 0;
  }

  /** Offset of the page that holds byte `at` of a table. */
  pageOffset(table: Table, at: number): number {
    return table.offset + alignDown(at, this.pageBytes);
  }

  peek(offset: number): Page | undefined {
    const page = this.#pages.get(offset);
    if (page) page.used = true;
    return page;
  }

  /**
   * Reads the page at `offset` of the file, a part of `table`. Look with peek() afterwards.
   *
   * @throws BlockError EIO if the file ends before the table does: zeroes there would be lies
   */
  load(table: Table, offset: number): Promise<void> {
    const running = this.#loading.get(offset);
    if (running) return running;
    const work: Promise<void> = this.#load(
      table,
      offset,
      () => this.#loading.get(offset) === work,
    ).finally(() => {
      if (this.#loading.get(offset) === work) this.#loading.delete(offset);
    });
    this.#loading.set(offset, work);
    return work;
  }

  async #load(table: Table, offset: number, stillWanted: () => boolean): Promise<void> {
    const end = table.offset + table.bytes;
    const used = Math.min(this.pageBytes, end - offset);
    assert(used > 0, "a page lies in its table");
    if (offset + used > this.#file.length) {
      throw new BlockError(
        "EIO",
        `The image is cut off: the ${TABLE_NAMES[table.kind]} at ${table.offset} needs ` +
          `${end} bytes of file; there are ${this.#file.length}`,
      );
    }
    const bytes = this.#takeBuffer();
    try {
      const event = LOAD_EVENTS[table.kind];
      if (event) await this.#file.debugEvent(event);
      await this.#file.read(bytes.subarray(0, used), offset);
    } catch (error) {
      this.#spare.push(bytes);
      throw error;
    }
    bytes.fill(0, used);
    // The table may have been given up while we read: what stands there now is somebody else's.
    if (stillWanted() && !this.#pages.has(offset)) {
      this.#add(table, offset, bytes);
    } else {
      this.#spare.push(bytes);
    }
  }

  /** A page of zeroes, dirty, for a new table that nothing in the file points to. */
  create(table: Table, offset: number): Page {
    assert(!this.#pages.has(offset), "a new table's pages are not in memory");
    const bytes = this.#takeBuffer();
    bytes.fill(0);
    const page = this.#add(table, offset, bytes);
    this.markDirty(page);
    return page;
  }

  #add(table: Table, offset: number, bytes: Uint8Array): Page {
    const slot = this.#freeSlots.pop() ?? this.#slots.length;
    const page: Page = { table, offset, bytes, dirty: false, used: true, slot };
    this.#slots[slot] = page;
    this.#pages.set(offset, page);
    return page;
  }

  #remove(page: Page): void {
    this.markClean(page);
    this.#pages.delete(page.offset);
    this.#slots[page.slot] = null;
    this.#freeSlots.push(page.slot);
  }

  markDirty(page: Page): void {
    page.dirty = true;
    this.#dirty.add(page);
  }

  markClean(page: Page): void {
    page.dirty = false;
    this.#dirty.delete(page);
  }

  /** Dirty pages in the order of the file. */
  dirtyPages(wanted: (page: Page) => boolean): Page[] {
    const list = [...this.#dirty].filter(wanted);
    return list.sort((a, b) => a.offset - b.offset);
  }

  /** Forgets what is known of a stretch of the file, changes included. */
  drop(offset: number, bytes: number): void {
    for (let at = offset; at < offset + bytes; at += this.pageBytes) {
      this.#loading.delete(at);
      const page = this.#pages.get(at);
      if (!page) continue;
      this.#remove(page);
      this.#spare.push(page.bytes);
    }
  }

  /** Gives the memory back. */
  close(): void {
    this.#pages.clear();
    this.#dirty.clear();
    this.#slots.length = 0;
    this.#freeSlots.length = 0;
    this.#loading.clear();
    this.#spare.length = 0;
    for (const chunk of this.#chunks) this.#kernel.free(chunk);
    this.#chunks.length = 0;
  }

  #takeBuffer(): Uint8Array {
    const spare = this.#spare.pop();
    if (spare) return spare;
    if (this.#buffers >= this.#capacity) {
      const page = this.#leastUsed();
      if (page) {
        this.#remove(page);
        return page.bytes;
      }
      // All dirty or on their way in: a few buffers more do less harm than a request that fails.
    }
    const missing = (this.#capacity - this.#buffers) * this.pageBytes;
    const chunkBytes = Math.max(this.pageBytes, Math.min(CHUNK_BYTES, missing));
    const isFirst = this.#buffers * this.pageBytes < WASM_BYTES;
    const chunk = isFirst ? this.#kernel.allocate(chunkBytes) : null;
    if (chunk) this.#chunks.push(chunk);
    const room = chunk ?? new Uint8Array(chunkBytes);
    for (let at = 0; at < chunkBytes; at += this.pageBytes) {
      this.#spare.push(room.subarray(at, at + this.pageBytes));
      this.#buffers++;
    }
    return this.#spare.pop()!;
  }

  /** Some page that is not dirty and was not used since the hand came by; null if all are dirty. */
  #leastUsed(): Page | null {
    // Twice round: the first time all may have been used.
    for (let steps = 2 * this.#slots.length; steps > 0; steps--) {
      this.#hand = (this.#hand + 1) % this.#slots.length;
      const page = this.#slots[this.#hand];
      if (!page || page.dirty) continue;
      if (!page.used) return page;
      page.used = false;
    }
    return null;
  }
}
