/**
 * What is written in which order, so that at every moment what is on disk is clean or has leaks,
 * never worse: also when the tab is killed between any two writes, or the store loses everything
 * since its last flush. Metadata changes gather in pages.ts; one epoch writes them:
 *
 *     step 0   new refcount blocks                              only if there are any
 *              ─── flush ───
 *     step A   guest data and copies (written before, by io.ts), refcounts that went up,
 *              refcount table entries of new blocks, whole new L2 tables
 *              ─── flush ───
 *     step B   entries that can be reached: in L2 tables that were there, and in the L1 table
 *              ─── flush ───
 *     then     refcounts of what was freed go down, in memory: part of the next step A
 *
 * What holds because of it:
 *
 *   1. A pointer on disk points to what is on disk: data, L2 tables and refcount blocks are flushed
 *      before the entry that leads to them is written.
 *   2. A cluster that something on disk refers to has its refcount on disk: refcounts go up in A,
 *      references appear in B.
 *   3. A refcount goes down only after the last reference to it is gone from the disk: after B's
 *      flush. Until then the cluster is not free in memory either, so nobody is given it.
 *   4. Nothing is changed in memory between the start of A and the end of B: the caller holds the
 *      image's mutex. So B cannot write an entry whose data or refcount came after A.
 *   5. A page is clean only when the flush after its writing has succeeded. After a failure
 *      everything is written again, in the same order.
 *   6. A step that has nothing to write is left out, its flush too; but A always flushes, for the
 *      guest's data.
 */

import { MiB } from "../../../base/bytes.ts";
import { BlockError } from "../../../base/errors.ts";
import { settleAll } from "../../../base/settle.ts";
import type { DebugEvent } from "../../../block/debug.ts";
import type { Image } from "./image.ts";
import type { Page, TableKind } from "./pages.ts";
import type { HostRun } from "./refcount.ts";

/** Most runs of freed clusters that are remembered; more start an epoch early. */
const FREED_RUNS_MAX = 16 * 1024;
/** More bytes than these start one before room is made: the file would grow while there is some in it. */
const FREED_BYTES_MAX = 64 * MiB;
/** Adjacent pages go out as one write, up to this many bytes. */
const WRITE_BYTES_MAX = 128 * 1024;
const PARALLEL_WRITES = 16;

const UPDATE_EVENTS: Readonly<Record<TableKind, DebugEvent>> = {
  l1: "l1_update",
  l2: "l2_update",
  "refcount-table": "reftable_update",
  "refcount-block": "refblock_update",
};

interface FreedRun {
  /** In host clusters. */
  index: number;
  count: number;
  /** What becomes free is discarded in the file as well. */
  readonly discards: boolean;
}

export class Epoch {
  readonly #image: Image;
  /** Offsets of refcount blocks that no durable refcount table entry leads to. */
  readonly #newBlocks = new Set<number>();
  /** Offsets of L2 tables that no L1 entry in the file leads to. */
  readonly #newTables = new Set<number>();
  #freed: FreedRun[] = [];
  #freedClusters = 0;

  constructor(image: Image) {
    this.#image = image;
  }

  addNewBlock(offset: number): void {
    this.#newBlocks.add(offset);
  }

  addNewTable(offset: number): void {
    this.#newTables.add(offset);
  }

  /** The table entry that led to it is gone. */
  removeNewBlock(offset: number): void {
    this.#newBlocks.delete(offset);
  }

  /**
   * One reference less to each of `count` clusters, once that is on disk (invariant 3).
   *
   * @param why somebody gave up what was there, or it has moved: 'pass-discard-…' tells them apart
   */
  free(offset: number, count: number, why: "request" | "other" = "other"): void {
    const index = offset / this.#image.layout.clusterBytes;
    const discards = this.#image.passesDiscard[why];
    const last = this.#freed.at(-1);
    this.#freedClusters += count;
    if (last && last.index + last.count === index && last.discards === discards) {
      last.count += count;
    } else this.#freed.push({ index, count, discards });
  }

  /**
   * To be called under the mutex before a change: a change may then dirty a few pages.
   *
   * @param allocates the change will take clusters for data
   * @throws BlockError what writing throws; nothing is lost then
   */
  async makeRoom(allocates = false): Promise<void> {
    const freedBytes = this.#freedClusters * this.#image.layout.clusterBytes;
    const isMuch = allocates && freedBytes >= FREED_BYTES_MAX;
    if (this.#image.pages.isFull || this.#freed.length >= FREED_RUNS_MAX || isMuch) {
      await this.run();
    }
  }

  /** One epoch. The caller holds the mutex. @throws BlockError what writing or flushing throws */
  async run(): Promise<void> {
    const { pages } = this.#image;
    if (this.#newBlocks.size > 0) {
      await this.#step((page) => this.#newBlocks.has(page.table.offset));
      this.#newBlocks.clear();
    }
    await this.#step((page) => !this.#isReachable(page), true);
    // From its first write on, step B makes them reachable, whether it succeeds or not.
    this.#newTables.clear();
    if (pages.hasDirty) await this.#step(() => true);
    await this.#settleFreed();
  }

  /** run(), and again until no refcount waits to go down. For close(). */
  async finish(): Promise<void> {
    do await this.run();
    while (this.#image.pages.hasDirty || this.#freed.length > 0);
  }

  /**
   * Forgets what was not written yet, on an image that must not be written any more.
   *
   * @returns true if there was something
   */
  abandon(): boolean {
    const { pages } = this.#image;
    const had = pages.hasDirty || this.#freed.length > 0;
    for (const page of pages.dirtyPages(() => true)) pages.drop(page.offset, 1);
    this.#freed = [];
    this.#freedClusters = 0;
    this.#newBlocks.clear();
    this.#newTables.clear();
    return had;
  }

  /** True for pages that belong in step B. */
  #isReachable({ table }: Page): boolean {
    return table.kind === "l1" || (table.kind === "l2" && !this.#newTables.has(table.offset));
  }

  async #step(wanted: (page: Page) => boolean, always = false): Promise<void> {
    const { pages, file } = this.#image;
    const dirty = pages.dirtyPages(wanted);
    if (dirty.length === 0 && !always) return;
    for (const kind of new Set(dirty.map((page) => page.table.kind))) {
      const stop = file.debugEvent(UPDATE_EVENTS[kind]);
      if (stop) await stop;
    }
    const runs = adjacentRuns(dirty, pages.pageBytes);
    for (let i = 0; i < runs.length; i += PARALLEL_WRITES) {
      await settleAll(runs.slice(i, i + PARALLEL_WRITES).map((run) => this.#write(run)));
    }
    await this.flushStores();
    for (const page of dirty) pages.markClean(page);
  }

  #write(run: readonly Page[]): Promise<void> {
    const { file, pages } = this.#image;
    const [first] = run;
    if (!first) return Promise.resolve();
    if (run.length === 1) return file.write(first.bytes, first.offset);
    const buf = new Uint8Array(run.length * pages.pageBytes);
    for (const [i, page] of run.entries()) buf.set(page.bytes, i * pages.pageBytes);
    return file.write(buf, first.offset);
  }

  async flushStores(): Promise<void> {
    const { file, dataFile } = this.#image;
    await settleAll([file.flush(), ...(dataFile ? [dataFile.flush()] : [])]);
  }

  async #settleFreed(): Promise<void> {
    const { pages, refcounts } = this.#image;
    const freed = this.#freed.sort((a, b) => a.index - b.index);
    this.#freed = [];
    this.#freedClusters = 0;
    try {
      for (let run = freed[0]; run; run = freed[0]) {
        // Going down is safe to write at any time now.
        if (pages.isFull) await this.#step((page) => !this.#isReachable(page));
        const free: HostRun[] | undefined = run.discards ? [] : undefined;
        const lowered = await refcounts.lower(run.index, run.count, free);
        run.index += lowered;
        run.count -= lowered;
        if (run.count === 0) freed.shift();
        if (free) await this.#discard(free);
      }
    } finally {
      // After a failure: a leak until the next epoch.
      for (const run of freed) this.#freedClusters += run.count;
      this.#freed.push(...freed);
    }
  }

  /** Nothing on disk refers to these any more, and nobody is given them before this is over. */
  async #discard(runs: readonly HostRun[]): Promise<void> {
    const { file, layout } = this.#image;
    for (const { offset, count } of runs) {
      const bytes = Math.min(count * layout.clusterBytes, file.length - offset);
      if (bytes <= 0) continue;
      try {
        await file.discard(offset, bytes);
      } catch (error) {
        // It only gives back room.
        if (!(error instanceof BlockError)) throw error;
      }
    }
  }
}

function adjacentRuns(sorted: readonly Page[], pageBytes: number): Page[][] {
  const runs: Page[][] = [];
  let run: Page[] = [];
  for (const page of sorted) {
    const last = run.at(-1);
    const joins = last && last.offset + pageBytes === page.offset;
    if (!joins || run.length * pageBytes >= WRITE_BYTES_MAX) {
      run = [];
      runs.push(run);
    }
    run.push(page);
  }
  return runs;
}
