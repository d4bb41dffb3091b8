/**
 * Refcounts of another width. Every block changes its form, and in place a crash would leave some of
 * each; so all are built anew beside those that hold, and one sector switches:
 *
 *     now     header ─▶ refcount table  ─▶ blocks
 *     built   ─ ─ ─ ─ ▶ refcount table' ─▶ blocks'        counts all that was counted, and itself,
 *                       ── flush ──                       but not the ones of now
 *     switch  refcount_order, refcount_table_offset and _clusters: all in the first sector
 *
 * Room for what is built is handed out in the refcounts of now: a crash before the switch leaks it. So
 * the image need never be marked dirty. Memory: one cluster for each of the two.
 */

import { writeU16, writeU32, writeU64 } from "../../../base/bytes.ts";
import { assert, BlockError, throwIfAborted } from "../../../base/errors.ts";
import { EntryWriter } from "./entry-writer.ts";
import { Guard } from "./guard.ts";
import { scanGuard } from "./guard-scan.ts";
import { AT, type Header } from "./header.ts";
import type { Image } from "./image.ts";
import { type Layout, layoutOf, REFCOUNT_TABLE_BYTES_MAX, SECTOR_BYTES } from "./layout.ts";
import type { Table } from "./pages.ts";
import type { HostRun } from "./refcount.ts";
import { decisive } from "./refcount-grow.ts";

/**
 * Caller holds the mutex and has called beginChange(); no request is in flight.
 *
 * @param order of the new refcounts, as in the header
 * @throws BlockError EINVAL if a refcount is too large for them, EFBIG if their table would be; nothing
 *   has changed then. What reading and writing throw
 */
export async function changeRefcountWidth(
  image: Image,
  order: number,
  signal?: AbortSignal,
): Promise<void> {
  if (order === image.layout.refcountOrder) return;
  await image.epoch.finish();
  const change = new WidthChange(image, order, signal);
  try {
    await change.reserve();
    await change.build();
    await change.uncountOld();
    await change.switchHeader();
  } catch (error) {
    await change.undo();
    throw error;
  }
}

/** What the new form needs, by what is counted now. */
interface Need {
  readonly blocks: number;
  /** Number of the last block, plus one. */
  readonly entries: number;
}

class WidthChange {
  readonly #image: Image;
  readonly #next: Layout;
  readonly #signal: AbortSignal | undefined;
  readonly #before: { readonly table: Table; readonly guard: Guard; readonly layout: Layout };
  /** Single clusters for blocks. */
  readonly #supply: number[] = [];
  /** All that was handed out. */
  #held: HostRun[] = [];
  #table: HostRun = { offset: 0, count: 0 };
  #isSwitched = false;

  constructor(image: Image, order: number, signal: AbortSignal | undefined) {
    const { layout, refcounts, guard } = image;
    this.#image = image;
    this.#next = layoutOf(layout.clusterBits, order, layout.extendedL2);
    this.#signal = signal;
    this.#before = { table: refcounts.table, guard, layout };
  }

  /** Hands out all room, until what is counted then fits it. */
  async reserve(): Promise<void> {
    const { refcounts, epoch, layout, pages } = this.#image;
    for (;;) {
      const need = await this.#measure();
      const tableClusters = Math.ceil((need.entries * 8) / layout.clusterBytes);
      if (tableClusters * layout.clusterBytes > REFCOUNT_TABLE_BYTES_MAX) {
        throw new BlockError(
          "EFBIG",
          `The table of refcounts of ${2 ** this.#next.refcountOrder} bits would be larger than ` +
            `${REFCOUNT_TABLE_BYTES_MAX} bytes`,
        );
      }
      const isEnough = need.blocks <= this.#supply.length && tableClusters <= this.#table.count;
      if (isEnough) break;
      if (tableClusters > this.#table.count) {
        // What is outgrown serves as blocks: it is a few clusters.
        this.#addToSupply(this.#table);
        const offset = await refcounts.allocateRegion(tableClusters);
        this.#table = { offset, count: tableClusters };
        this.#held.push(this.#table);
      }
      for (let missing = need.blocks - this.#supply.length; missing > 0; ) {
        await epoch.makeRoom();
        const run = await refcounts.allocate(missing);
        this.#held.push(run);
        this.#addToSupply(run);
        missing -= run.count;
      }
      await epoch.finish();
    }
    // What is still in memory of these places belonged to tables that are gone.
    for (const { offset, count } of this.#held) pages.drop(offset, count * layout.clusterBytes);
  }

  #addToSupply({ offset, count }: HostRun): void {
    const { clusterBytes } = this.#image.layout;
    for (let i = 0; i < count; i++) this.#supply.push(offset + i * clusterBytes);
  }

  async #measure(): Promise<Need> {
    const bits = 2 ** this.#next.refcountOrder;
    let blocks = 0;
    let last = -1;
    await this.#eachCount((index, count) => {
      if (count > 2 ** bits - 1) {
        throw new BlockError(
          "EINVAL",
          `Refcounts of ${bits} bits count no more than ${2 ** bits - 1} references to a cluster, ` +
            `and the one at ${index * this.#next.clusterBytes} has ${count}`,
        );
      }
      const block = Math.floor(index / this.#next.refcountBlockEntries);
      if (block !== last) blocks++;
      last = block;
    });
    return { blocks, entries: last + 1 };
  }

  /** All refcounts above 0, in order, as they are in the file; a promise is waited for. */
  async #eachCount(visit: (index: number, count: number) => void | Promise<void>): Promise<void> {
    const { kernel, file, refcounts } = this.#image;
    const { clusterBytes, refcountOrder, refcountBlockEntries } = this.#before.layout;
    const bytes = new Uint8Array(clusterBytes);
    for await (const { block, offset } of refcounts.blocks(this.#before.table)) {
      throwIfAborted(this.#signal);
      await file.read(bytes, offset);
      if (kernel.isZero(bytes)) continue;
      for (let i = 0; i < refcountBlockEntries; i++) {
        const count = kernel.refcountGet(bytes, refcountOrder, i);
        if (count === 0) continue;
        const wait = visit(block * refcountBlockEntries + i, count);
        if (wait) await wait;
      }
    }
  }

  /** Writes blocks and table. From here on refcounts are these. */
  async build(): Promise<void> {
    const image = this.#image;
    const { file, refcounts, kernel } = image;
    const { clusterBytes, refcountOrder, refcountBlockEntries } = this.#next;
    const bytes = this.#table.count * clusterBytes;
    await file.writeZeroes(this.#table.offset, bytes);
    const entries = new EntryWriter(image, this.#table.offset, bytes);
    const counts = new Uint8Array(clusterBytes);
    let current = -1;
    const finish = async () => {
      if (current < 0) return;
      const place = this.#supply.pop();
      assert(place !== undefined, "room for all blocks was handed out");
      await file.write(counts, place);
      await entries.set(current, place, false);
      counts.fill(0);
    };
    await this.#eachCount((index, count) => {
      const block = Math.floor(index / refcountBlockEntries);
      const put = () => {
        current = block;
        const at = index % refcountBlockEntries;
        if (refcountOrder === 6) writeU64(counts, at * 8, count);
        else if (refcountOrder === 5) writeU32(counts, at * 4, count);
        else if (refcountOrder === 4) writeU16(counts, at * 2, count);
        else kernel.refcountAdd(counts, refcountOrder, at, 1, count);
      };
      if (block === current) return put();
      return finish().then(put);
    });
    await finish();
    await entries.finish();
    image.layout = this.#next;
    image.guard = new Guard(clusterBytes);
    refcounts.useTable({ kind: "refcount-table", offset: this.#table.offset, bytes });
  }

  /** In the new refcounts, which nothing reaches yet. Ends with a flush. */
  async uncountOld(): Promise<void> {
    const { refcounts, epoch } = this.#image;
    const { clusterBytes } = this.#next;
    const { table } = this.#before;
    for await (const { offset } of refcounts.blocks(table)) await this.#lower(offset, 1);
    await this.#lower(table.offset, table.bytes / clusterBytes);
    for (const spare of this.#supply) await this.#lower(spare, 1);
    await epoch.run();
  }

  async #lower(offset: number, count: number): Promise<void> {
    const { refcounts, pages, epoch } = this.#image;
    const index = offset / this.#next.clusterBytes;
    for (let done = 0; done < count; ) {
      if (pages.isFull) await epoch.run();
      done += await refcounts.lower(index + done, count - done);
    }
  }

  async switchHeader(): Promise<void> {
    const image = this.#image;
    const next: Header = {
      ...image.header,
      layout: this.#next,
      refcountTableOffset: this.#table.offset,
      refcountTableClusters: this.#table.count,
    };
    const guard = await scanGuard(image, next, image.snapshots);
    throwIfAborted(this.#signal);
    const sector = new Uint8Array(SECTOR_BYTES);
    await image.file.read(sector, 0);
    writeU64(sector, AT.refcountTable, next.refcountTableOffset);
    writeU32(sector, AT.refcountTable + 8, next.refcountTableClusters);
    writeU32(sector, AT.refcountOrder, this.#next.refcountOrder);
    await decisive(image, sector, 0);
    this.#isSwitched = true;
    image.header = next;
    image.guard = guard;
    const { table } = this.#before;
    image.pages.drop(table.offset, table.bytes);
    for await (const { offset } of image.refcounts.blocks(table)) {
      image.pages.drop(offset, this.#next.clusterBytes);
    }
    image.pages.drop(table.offset, table.bytes);
  }

  /** Back to what holds. */
  async undo(): Promise<void> {
    if (this.#isSwitched) return;
    const image = this.#image;
    const { pages, refcounts } = image;
    const { table, guard, layout } = this.#before;
    if (image.layout !== layout) {
      for (const page of pages.dirtyPages(() => true)) pages.drop(page.offset, 1);
      image.layout = layout;
      image.guard = guard;
      refcounts.useTable(table);
    }
    for (const run of this.#held) {
      pages.drop(run.offset, run.count * layout.clusterBytes);
      if (!image.isCorrupt) await refcounts.release(run);
    }
    this.#held = [];
  }
}
