/**
 * Snapshots change nearly everything that is counted, in one step: refcounts go up and down all over
 * the image, and every COPIED flag must follow. Done in place, a crash in between would leave flags
 * that belie the refcounts. So nothing is done in place:
 *
 *     now     header ─▶ refcounts    L1 ─▶ L2 tables               snapshot table
 *     built   ─ ─ ─ ─ ▶ refcounts'   L1' ─▶ L2 tables, some L2'    snapshot table'
 *                       ── flush ──
 *     switch  48 bytes of the header, from the disk's size to snapshots_offset: one sector
 *
 *   1. Room for what is built is handed out in the refcounts that hold now. A crash leaks it.
 *   2. The refcounts are copied whole (1/32768 of the image by default); raising and lowering is done
 *      to the copy, which nothing reaches. No room is handed out from it before the switch: what is
 *      free in it may still be in use until then.
 *   3. After the switch the image has no leaks: what is no longer used is not counted any more.
 *   4. A failure before the switch changes nothing. One during it is told, and nothing is written any
 *      more, since nobody knows which header is in the file; either is a whole image.
 *
 * All under the image's mutex, with no request in flight.
 */

import { writeU32, writeU64 } from "../../../base/bytes.ts";
import { assert } from "../../../base/errors.ts";
import { EntryWriter } from "./entry-writer.ts";
import { cutFileEnd } from "./file-end.ts";
import { Guard } from "./guard.ts";
import { scanGuard } from "./guard-scan.ts";
import { AT, CRYPT_LUKS, type Header } from "./header.ts";
import type { Image } from "./image.ts";
import type { Table } from "./pages.ts";
import type { HostRun } from "./refcount.ts";
import { copyWithin, decisive } from "./refcount-grow.ts";
import { type SnapshotEntry, tableBytesOf } from "./snapshot-table.ts";

export interface RebuildPlan {
  /** Guest size afterwards, in bytes. */
  readonly size: number;
  /** Of the new L1 table. */
  readonly l1Entries: number;
  /** Most clusters that fill() takes for L2 tables. */
  readonly l2Tables: number;
  /** Afterwards. */
  readonly snapshots: readonly SnapshotEntry[];
  /** Raises, lowers, and makes the tables. */
  fill(build: Build): Promise<void>;
}

/**
 * Caller holds the mutex and has called beginChange().
 *
 * @throws BlockError what reading and writing throw; ENOSPC, EFBIG, EIO: see refcount.ts
 */
export async function rebuild(image: Image, plan: RebuildPlan): Promise<void> {
  const build = new Build(image, plan);
  try {
    await build.reserve();
    await build.copyRefcounts();
    await plan.fill(build);
    await build.finish();
    await build.switchHeader();
  } catch (error) {
    await build.undo();
    throw error;
  }
  await cutFileEnd(image);
}

interface Region {
  readonly offset: number;
  /** Whole clusters. */
  readonly bytes: number;
}
const NOWHERE: Region = { offset: 0, bytes: 0 };

export class Build {
  readonly #image: Image;
  readonly #plan: RebuildPlan;
  /** Single clusters to be taken, from the front. */
  #supply: HostRun[] = [];
  /** All that was handed out. */
  readonly #held: HostRun[] = [];
  #l1 = NOWHERE;
  #snapshotTable = NOWHERE;
  #refcountTable = NOWHERE;
  #l1Entries: EntryWriter | null = null;
  /** What holds until the switch; null before refcounts are copied. */
  #live: { readonly table: Table; readonly guard: Guard } | null = null;

  constructor(image: Image, plan: RebuildPlan) {
    this.#image = image;
    this.#plan = plan;
  }

  /** Hands out all room. Afterwards all that was in memory is in the file. */
  async reserve(): Promise<void> {
    const { epoch, refcounts, pages, layout } = this.#image;
    const { l1Entries, snapshots, l2Tables } = this.#plan;
    this.#l1 = await this.#takeRegion(l1Entries * 8);
    this.#snapshotTable = await this.#takeRegion(tableBytesOf(snapshots));
    await this.#takeClusters(l2Tables);
    for (let copies = 0; ; ) {
      // Each time more blocks may have been made, and the table may have been moved.
      const blocks = await this.#countBlocks();
      const { bytes } = refcounts.table;
      if (blocks > copies) {
        await this.#takeClusters(blocks - copies);
        copies = blocks;
      } else if (this.#refcountTable.bytes < bytes) {
        const { offset, bytes: outgrown } = this.#refcountTable;
        if (outgrown > 0) this.#supply.push({ offset, count: outgrown / layout.clusterBytes });
        this.#refcountTable = await this.#takeRegion(bytes);
      } else break;
    }
    await epoch.finish();
    // What is still in memory of these places belonged to tables that are gone.
    for (const { offset, count } of this.#held) pages.drop(offset, count * layout.clusterBytes);
  }

  async #countBlocks(): Promise<number> {
    let count = 0;
    for await (const _block of this.#image.refcounts.blocks()) count++;
    return count;
  }

  async #takeRegion(bytes: number): Promise<Region> {
    const { refcounts, layout } = this.#image;
    const count = Math.ceil(bytes / layout.clusterBytes);
    if (count === 0) return NOWHERE;
    await this.#image.epoch.makeRoom();
    const offset = await refcounts.allocateRegion(count);
    this.#held.push({ offset, count });
    return { offset, bytes: count * layout.clusterBytes };
  }

  async #takeClusters(count: number): Promise<void> {
    for (let left = count; left > 0; ) {
      await this.#image.epoch.makeRoom();
      const run = await this.#image.refcounts.allocate(left);
      this.#held.push(run);
      this.#supply.push(run);
      left -= run.count;
    }
  }

  /** From here on refcounts are those of the copy. */
  async copyRefcounts(): Promise<void> {
    const image = this.#image;
    const { refcounts, file, layout } = image;
    const { offset, bytes } = this.#refcountTable;
    await file.writeZeroes(offset, bytes);
    const entries = new EntryWriter(image, offset, refcounts.table.bytes);
    for await (const { block, offset: source } of refcounts.blocks()) {
      const copy = this.take();
      await copyWithin(image, source, copy, layout.clusterBytes);
      await entries.set(block, copy, false);
    }
    await entries.finish();
    await file.writeZeroes(this.#l1.offset, this.#l1.bytes);
    this.#l1Entries = new EntryWriter(image, this.#l1.offset, this.#plan.l1Entries * 8);
    this.#live = { table: refcounts.table, guard: image.guard };
    refcounts.table = { kind: "refcount-table", offset, bytes: refcounts.table.bytes };
    // The copy has its blocks in places of its own; nothing is handed out while it is built.
    image.guard = new Guard(layout.clusterBytes);
  }

  /** A cluster for an L2 table. */
  take(): number {
    const [run] = this.#supply;
    assert(run, "all room that a rebuild needs was reserved");
    if (run.count === 1) this.#supply.shift();
    else {
      const offset = run.offset + this.#image.layout.clusterBytes;
      this.#supply[0] = { offset, count: run.count - 1 };
    }
    return run.offset;
  }

  /** One reference more to each. @throws BlockError EFBIG, EIO: see Refcounts.raiseRun() */
  async raise(cluster: number, count: number): Promise<void> {
    await this.#eachPage(count, (done) =>
      this.#image.refcounts.raiseRun(cluster + done, count - done),
    );
  }

  /** One reference less to each. @throws BlockError EIO if one has none */
  async lower(cluster: number, count: number): Promise<void> {
    await this.#eachPage(count, (done) =>
      this.#image.refcounts.lower(cluster + done, count - done),
    );
  }

  lowerRegion(offset: number, bytes: number): Promise<void> {
    const { clusterBytes } = this.#image.layout;
    return this.lower(offset / clusterBytes, Math.ceil(bytes / clusterBytes));
  }

  async #eachPage(count: number, step: (done: number) => Promise<number>): Promise<void> {
    const { pages, epoch } = this.#image;
    for (let done = 0; done < count; ) {
      // Nothing reaches what is dirty now, so it may be written at any time.
      if (pages.isFull) await epoch.run();
      done += await step(done);
    }
  }

  /** Entries of the new L1 table, in order. */
  async setL1(index: number, l2Offset: number, copied: boolean): Promise<void> {
    assert(this.#l1Entries && index < this.#plan.l1Entries, "an L1 entry lies in its table");
    await this.#l1Entries.set(index, l2Offset, copied);
  }

  /** Writes the rest, and stops counting what nothing will refer to. Ends with a flush. */
  async finish(): Promise<void> {
    const { refcounts, header, epoch, layout, snapshots } = this.#image;
    assert(this.#live && this.#l1Entries, "refcounts are copied first");
    await this.#l1Entries.finish();
    await this.#writeSnapshots();
    for await (const { offset } of refcounts.blocks(this.#live.table)) {
      await this.lowerRegion(offset, layout.clusterBytes);
    }
    await this.lowerRegion(this.#live.table.offset, this.#live.table.bytes);
    if (header.snapshotCount > 0) {
      await this.lowerRegion(header.snapshotsOffset, tableBytesOf(snapshots));
    }
    for (const { offset, count } of this.#supply.splice(0)) {
      await this.lower(offset / layout.clusterBytes, count);
    }
    await epoch.run();
  }

  async #writeSnapshots(): Promise<void> {
    const { offset, bytes } = this.#snapshotTable;
    if (bytes === 0) return;
    const table = new Uint8Array(bytes);
    let at = 0;
    for (const { raw } of this.#plan.snapshots) {
      table.set(raw, at);
      at += raw.length;
    }
    await this.#image.file.write(table, offset);
  }

  async switchHeader(): Promise<void> {
    const image = this.#image;
    const { snapshots, size, l1Entries } = this.#plan;
    const before = image.l1;
    const next: Header = {
      ...image.header,
      size,
      l1Entries,
      l1Offset: this.#l1.bytes > 0 ? this.#l1.offset : image.header.l1Offset,
      refcountTableOffset: image.refcounts.table.offset,
      snapshotCount: snapshots.length,
      snapshotsOffset: this.#snapshotTable.offset,
    };
    const guard = await scanGuard(image, next, snapshots);
    await decisive(image, switchedFields(next), AT.size);
    image.header = next;
    image.l1 = { kind: "l1", offset: next.l1Offset, bytes: l1Entries * 8 };
    image.guard = guard;
    image.snapshots = snapshots;
    image.pages.drop(before.offset, before.bytes);
    this.#live = null;
    this.#held.length = 0;
  }

  /** Back to what holds. */
  async undo(): Promise<void> {
    const image = this.#image;
    const { pages, refcounts, layout } = image;
    if (this.#live) {
      for (const page of pages.dirtyPages(() => true)) pages.drop(page.offset, 1);
      refcounts.table = this.#live.table;
      image.guard = this.#live.guard;
    }
    for (const run of this.#held) {
      pages.drop(run.offset, run.count * layout.clusterBytes);
      if (!image.isCorrupt) await refcounts.release(run);
    }
  }
}

/** The header from its size to snapshots_offset. */
function switchedFields(header: Header): Uint8Array {
  const bytes = new Uint8Array(48);
  writeU64(bytes, 0, header.size);
  writeU32(bytes, AT.cryptMethod - AT.size, header.crypt === "luks" ? CRYPT_LUKS : 0);
  writeU32(bytes, AT.l1Size - AT.size, header.l1Entries);
  writeU64(bytes, AT.l1Size - AT.size + 4, header.l1Offset);
  writeU64(bytes, AT.refcountTable - AT.size, header.refcountTableOffset);
  writeU32(bytes, AT.refcountTable - AT.size + 8, header.refcountTableClusters);
  writeU32(bytes, AT.snapshots - AT.size, header.snapshotCount);
  writeU64(bytes, AT.snapshots - AT.size + 4, header.snapshotsOffset);
  return bytes;
}
