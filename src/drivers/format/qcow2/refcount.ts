/**
 * Which host clusters are in use, and how often: looking up, handing out, giving back.
 *
 *   1. A cluster is handed out only if its refcount is 0 and nothing known of the image lies there
 *      (guard.ts); cluster 0 never is, the header lies there.
 *   2. Handing out counts up at once, in memory; so nobody is given it a second time.
 *   3. Giving back what was never referred to counts down at once (release()); all other clusters
 *      go through epoch.free(), which counts down when it is safe.
 *   4. A refcount block that does not exist yet is made in the first cluster that it describes.
 *      Without a block all those clusters are free.
 *
 * All under the image's mutex.
 */

import { alignDown, writeU64 } from "../../../base/bytes.ts";
import { assert, BlockError } from "../../../base/errors.ts";
import { overlapError } from "./guard.ts";
import type { Image } from "./image.ts";
import { type Layout, REFCOUNT_TABLE_RESERVED, tableOffsetOf } from "./layout.ts";
import type { Page, Table } from "./pages.ts";
import { allocateRegion, appendRegion } from "./refcount-grow.ts";

/** Clusters side by side. */
export interface HostRun {
  /** Of the first one, in the file. */
  readonly offset: number;
  readonly count: number;
}

export class Refcounts {
  table: Table;
  readonly #image: Image;
  /** No cluster below it is free, counted in clusters. */
  #hint = 0;
  /** One past the highest cluster that lost a reference since takeFreedEnd() was asked. */
  #freedEnd = 0;
  #roomEnd = 0;

  constructor(image: Image) {
    const { header, layout } = image;
    this.#image = image;
    this.table = {
      kind: "refcount-table",
      offset: header.refcountTableOffset,
      bytes: header.refcountTableClusters * layout.clusterBytes,
    };
  }

  /** All are counted there from now on; what is free may be anywhere. */
  useTable(table: Table): void {
    this.table = table;
    this.#hint = 0;
  }

  /** One past the highest cluster that data was sent to, which may be on its way to behind the file's end. */
  get roomEnd(): number {
    return this.#roomEnd;
  }

  /** Data is going to be written there. */
  noteRoom(offset: number, count: number): void {
    const end = offset / this.#image.layout.clusterBytes + count;
    this.#roomEnd = Math.max(this.#roomEnd, end);
  }

  /** How many references a cluster has. */
  get(index: number): Promise<number> {
    const { kernel, layout } = this.#image;
    return this.#withCounts(index, (page, at) =>
      page ? kernel.refcountGet(page.bytes, layout.refcountOrder, at) : 0,
    );
  }

  /**
   * Hands out the first free run, cut at `want` clusters.
   *
   * @throws BlockError EFBIG where offsets end; EIO, and the image is marked corrupt, if what is
   *   counted as free is in use
   */
  async allocate(want: number): Promise<HostRun> {
    const { kernel, layout } = this.#image;
    for (let from = this.#hint; ; ) {
      const step = await this.#withCounts(from, (page, at, left) => {
        if (!page) return null;
        const run = kernel.findFreeRun(page.bytes, layout.refcountOrder, at, left, want);
        if (!run) return { next: from + left };
        const offset = (from + run.index - at) * layout.clusterBytes;
        const area = this.#image.guard.find(offset, run.count * layout.clusterBytes);
        if (area) return { error: overlapError("a cluster that is counted as free", offset, area) };
        kernel.refcountAdd(page.bytes, layout.refcountOrder, run.index, run.count, 1);
        this.#image.pages.markDirty(page);
        this.#hint = from + run.index - at + run.count;
        this.noteRoom(offset, run.count);
        return { run: { offset, count: run.count } };
      });
      if (step === null) await this.#addBlock(Math.floor(from / layout.refcountBlockEntries));
      else if (step.error) throw await this.#image.markCorrupt(step.error);
      else if (step.run) return step.run;
      else from = step.next;
    }
  }

  /** Hands out exactly `count` clusters side by side. @throws BlockError as allocate() */
  allocateRegion(count: number): Promise<number> {
    return allocateRegion(this.#image, count);
  }

  /** One reference more. @returns false if the refcount cannot go any higher */
  raise(index: number): Promise<boolean> {
    const { kernel, layout, pages } = this.#image;
    return this.#withCounts(index, (page, at) => {
      if (!page || kernel.refcountAdd(page.bytes, layout.refcountOrder, at, 1, 1) >= 0)
        return false;
      pages.markDirty(page);
      return true;
    });
  }

  /**
   * One reference more, for as many of `count` clusters as share a page with the first.
   *
   * @param really false only finds out whether it could be done
   * @returns how many
   * @throws BlockError EIO, and the image is marked corrupt, if one has no reference now; EFBIG if
   *   one has as many as its refcount can tell
   */
  async raiseRun(index: number, count: number, really = true): Promise<number> {
    const { kernel, layout, pages } = this.#image;
    const { refcountOrder: order } = layout;
    const done = await this.#withCounts(index, (page, at, left) => {
      const n = Math.min(count, left);
      // Down and up again, all in one turn: the kernel tells whether each had one to lose.
      if (!page || kernel.refcountAdd(page.bytes, order, at, n, -1) >= 0) return 0;
      const full = kernel.refcountAdd(page.bytes, order, at, n, 2) >= 0;
      if (full || !really) kernel.refcountAdd(page.bytes, order, at, n, full ? 1 : -1);
      if (!full && really) pages.markDirty(page);
      return full ? -1 : n;
    });
    if (done === 0) throw await this.#image.markCorrupt(uncounted(index, count, layout));
    if (done > 0) return done;
    throw new BlockError(
      "EFBIG",
      `Refcounts of ${2 ** order} bits count no more than ${2 ** (2 ** order) - 1} references to a ` +
        "cluster, and one has as many: delete a snapshot first",
    );
  }

  /** The refcount blocks of a table, by number, while no others are made. */
  async *blocks(
    table: Table = this.table,
  ): AsyncGenerator<{ readonly block: number; readonly offset: number }> {
    const { pages } = this.#image;
    for (let at = 0; at < table.bytes; at += pages.pageBytes) {
      const page = await this.#entriesAt(table, at);
      const found: { block: number; offset: number }[] = [];
      for (let i = 0; i < pages.pageBytes / 8; i++) {
        const offset = this.#blockOffset(page, at / 8 + i, table);
        if (offset !== 0) found.push({ block: at / 8 + i, offset });
      }
      yield* found;
    }
  }

  /**
   * One reference less, for as many of `count` clusters as share a page with the first.
   *
   * @param freed gets those of them that are free now
   * @returns how many
   * @throws BlockError EIO, and the image is marked corrupt, if one has no reference to lose
   */
  async lower(index: number, count: number, freed?: HostRun[]): Promise<number> {
    const { kernel, layout, pages } = this.#image;
    const done = await this.#withCounts(index, (page, at, left) => {
      const n = Math.min(count, left);
      if (!page || kernel.refcountAdd(page.bytes, layout.refcountOrder, at, n, -1) >= 0) return 0;
      pages.markDirty(page);
      this.#forgetTail(page, at, index, n);
      if (freed) this.#findFree(page, at, index, n, freed);
      return n;
    });
    if (done === 0) throw await this.#image.markCorrupt(uncounted(index, count, layout));
    this.#hint = Math.min(this.#hint, index);
    this.#freedEnd = Math.max(this.#freedEnd, index + done);
    return done;
  }

  /** One past the highest cluster that has lost a reference since this was asked, 0 if none has. */
  takeFreedEnd(): number {
    const end = this.#freedEnd;
    this.#freedEnd = 0;
    return end;
  }

  /** The last cluster in use at or below `index`; the first one, with the header, always is. */
  async lastUsed(index: number): Promise<number> {
    const { kernel, layout } = this.#image;
    const { refcountBlockEntries } = layout;
    for (let from = index; from > 0; ) {
      const step = await this.#withCounts(from, (page, at) => {
        if (!page) return null;
        if (kernel.isZero(page.bytes)) return { next: from - at - 1 };
        for (let i = at; i >= 0; i--) {
          if (kernel.refcountGet(page.bytes, layout.refcountOrder, i) === 0) continue;
          return { found: from - at + i };
        }
        return { next: from - at - 1 };
      });
      if (step?.found !== undefined) return step.found;
      // Not block by block: of a hostile image a cluster at 2^56 may have been written to.
      from = step?.next ?? (await this.#endOfBlocks(Math.floor(from / refcountBlockEntries))) - 1;
    }
    return 0;
  }

  /** One past the last cluster that the blocks with a number below this one can count. */
  async #endOfBlocks(number: number): Promise<number> {
    const last = await this.lastBlock(Math.min(number, this.table.bytes / 8));
    return last ? (last.block + 1) * this.#image.layout.refcountBlockEntries : 0;
  }

  /**
   * Looks for `count` free clusters side by side, and takes none of them.
   *
   * @returns the first one's offset, -1 if there is no such gap where refcount blocks are
   */
  async findGap(count: number): Promise<number> {
    const { kernel, layout } = this.#image;
    const end = (this.table.bytes / 8) * layout.refcountBlockEntries;
    let start = 0;
    let found = 0;
    for (let from = this.#hint; from < end; ) {
      const step = await this.#withCounts(from, (page, at, left) => {
        if (!page) return { next: alignDown(from, layout.refcountBlockEntries) };
        const want = count - found;
        const run = kernel.findFreeRun(page.bytes, layout.refcountOrder, at, left, want);
        return run ? { first: from + run.index - at, count: run.count } : { next: from + left };
      });
      if (step.count === undefined) {
        from = step.next + (step.next > from ? 0 : layout.refcountBlockEntries);
        found = 0;
        continue;
      }
      if (found === 0 || step.first !== start + found) {
        start = step.first;
        found = 0;
      }
      found += step.count;
      from = step.first + step.count;
      if (found >= count) return start * layout.clusterBytes;
    }
    return -1;
  }

  /**
   * Hands out these clusters, which findGap() has found.
   *
   * @throws BlockError as allocate()
   */
  async takeGap(offset: number, count: number): Promise<void> {
    const { kernel, layout, guard, pages } = this.#image;
    const area = guard.find(offset, count * layout.clusterBytes);
    if (area) {
      const error = overlapError("a cluster that is counted as free", offset, area);
      throw await this.#image.markCorrupt(error);
    }
    const first = offset / layout.clusterBytes;
    for (let done = 0; done < count; ) {
      done += await this.#withCounts(first + done, (page, at, left) => {
        assert(page, "a gap lies where refcount blocks are");
        const n = Math.min(left, count - done);
        kernel.refcountAdd(page.bytes, layout.refcountOrder, at, n, 1);
        pages.markDirty(page);
        return n;
      });
    }
    if (this.#hint === first) this.#hint = first + count;
  }

  /** Pieces of a run that has just lost references. */
  #findFree(page: Page, at: number, index: number, count: number, freed: HostRun[]): void {
    const { kernel, layout } = this.#image;
    for (let i = 0; i < count; ) {
      const run = kernel.findFreeRun(
        page.bytes,
        layout.refcountOrder,
        at + i,
        count - i,
        count - i,
      );
      if (!run) return;
      i = run.index - at;
      freed.push({ offset: (index + i) * layout.clusterBytes, count: run.count });
      i += run.count;
    }
  }

  /**
   * Takes back clusters that nothing refers to, neither on disk nor in memory. What cannot be
   * counted down now is left to the next epoch: whoever gives up has an error of his own to tell.
   */
  async release({ offset, count }: HostRun): Promise<void> {
    const { clusterBytes } = this.#image.layout;
    const index = offset / clusterBytes;
    let done = 0;
    try {
      while (done < count) done += await this.lower(index + done, count - done);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      this.#image.epoch.free(offset + done * clusterBytes, count - done);
    }
  }

  /** Packed data must not be added to a cluster that has become free. */
  #forgetTail(page: Page, at: number, index: number, count: number): void {
    const { packedTail, layout, kernel } = this.#image;
    if (!packedTail) return;
    const tail = packedTail.end / layout.clusterBytes - 1;
    if (tail < index || tail >= index + count) return;
    const left = kernel.refcountGet(page.bytes, layout.refcountOrder, at + tail - index);
    if (left === 0) this.#image.packedTail = null;
  }

  /**
   * Looks at the refcounts from a cluster on.
   *
   * @param look called once; `at` is the cluster's index in the page and `left` counts from there
   *   to the page's end; no page: there is no block, and `left` means nothing
   */
  async #withCounts<T>(
    index: number,
    look: (page: Page | null, at: number, left: number) => T,
  ): Promise<T> {
    const { layout, pages } = this.#image;
    const block = Math.floor(index / layout.refcountBlockEntries);
    for (;;) {
      if (block * 8 >= this.table.bytes) return look(null, 0, 0);
      const entryPage = pages.pageOffset(this.table, block * 8);
      const entries = pages.peek(entryPage);
      if (!entries) {
        await pages.load(this.table, entryPage);
        continue;
      }
      const offset = this.#blockOffset(entries, block);
      if (offset === 0) return look(null, 0, 0);
      const area = this.#image.guard.find(offset, layout.clusterBytes, "refcount block");
      if (area) {
        throw await this.#image.markCorrupt(overlapError("a refcount block", offset, area));
      }
      this.#image.guard.addTable(offset, "refcount block");
      const table: Table = { kind: "refcount-block", offset, bytes: layout.clusterBytes };
      const perByte = 8 / 2 ** layout.refcountOrder;
      const inBlock = index % layout.refcountBlockEntries;
      const pageOffset = pages.pageOffset(table, Math.floor(inBlock / perByte));
      const page = pages.peek(pageOffset);
      if (!page) {
        await pages.load(table, pageOffset);
        continue;
      }
      const at = inBlock - (pageOffset - offset) * perByte;
      return look(page, at, pages.pageBytes * perByte - at);
    }
  }

  /** The last refcount block with a number below this one; null if there is none. */
  async lastBlock(
    below: number,
  ): Promise<{ readonly block: number; readonly offset: number } | null> {
    const { pageBytes } = this.#image.pages;
    for (let at = alignDown((below - 1) * 8, pageBytes); at >= 0; at -= pageBytes) {
      const page = await this.#entriesAt(this.table, at);
      for (let block = Math.min(below, (at + pageBytes) / 8) - 1; block * 8 >= at; block--) {
        const offset = this.#blockOffset(page, block);
        if (offset !== 0) return { block, offset };
      }
    }
    return null;
  }

  #blockOffset(entries: Page, block: number, table: Table = this.table): number {
    const at = table.offset + block * 8 - entries.offset;
    const what = `refcount table entry ${block}`;
    return tableOffsetOf(entries.bytes, at, this.#image.layout, REFCOUNT_TABLE_RESERVED, what);
  }

  async #addBlock(block: number): Promise<void> {
    const { epoch, file, guard, layout, kernel, pages } = this.#image;
    if (block * 8 >= this.table.bytes) {
      await appendRegion(this.#image, block, 0);
      return;
    }
    const offset = block * layout.refcountBlockEntries * layout.clusterBytes;
    const area = block === 0 ? "header" : guard.find(offset, layout.clusterBytes);
    if (area) {
      throw await this.#image.markCorrupt(overlapError("an uncounted cluster", offset, area));
    }
    // Whatever lay in this part of the file, the block's other pages must read as zeroes.
    await file.writeZeroes(offset, layout.clusterBytes);
    const entryPage = pages.pageOffset(this.table, block * 8);
    for (;;) {
      const entries = pages.peek(entryPage);
      if (entries) {
        pages.drop(offset, layout.clusterBytes);
        const table: Table = { kind: "refcount-block", offset, bytes: layout.clusterBytes };
        const page = pages.create(table, offset);
        kernel.refcountAdd(page.bytes, layout.refcountOrder, 0, 1, 1);
        writeU64(entries.bytes, this.table.offset + block * 8 - entryPage, offset);
        pages.markDirty(entries);
        epoch.addNewBlock(offset);
        guard.addTable(offset, "refcount block");
        return;
      }
      await pages.load(this.table, entryPage);
    }
  }

  /** The page with byte `at` of a refcount table; good until the next await. */
  async #entriesAt(table: Table, at: number): Promise<Page> {
    const { pages } = this.#image;
    for (;;) {
      const page = pages.peek(table.offset + at);
      if (page) return page;
      await pages.load(table, table.offset + at);
    }
  }
}

function uncounted(index: number, count: number, { clusterBytes }: Layout): BlockError {
  const place = `clusters ${index} to ${index + count - 1} (of ${clusterBytes} bytes)`;
  return new BlockError("EIO", `The image is corrupt: ${place} are in use but have refcount 0`);
}
