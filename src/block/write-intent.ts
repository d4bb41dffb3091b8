/**
 * The regions of a disk that somebody must know about after a crash: a mirror those that the target
 * lacks, a backup and a bitmap those that guests have written. A region is on record before the first
 * write to it goes through to the store, so whatever a crash leaves, no write is missing there.
 *
 *     guest writes ──▶ in the set? ──yes──────────────────────▶ through
 *                           │ no: added; all who come meanwhile wait for the same save
 *                           └──▶ save ──▶ on record ──────────▶ through
 *
 *     sweep()          what need not be known any more ──▶ flush ──▶ taken out, if nobody wrote there
 *
 * Taken out lazily, so a place that is written all the time costs one save and no more.
 */

import { assert } from "../base/errors.ts";
import type { DirtyBitmap } from "./dirty-bitmap.ts";
import { Regions } from "./intent-regions.ts";
import type { BlockNode } from "./node.ts";
import { imagesOf, type WriteIntents } from "./write-intents.ts";

export interface WriteIntentInit {
  /** Unique in its WriteIntents. */
  readonly id: string;
  /** Whose bytes the record speaks of, without filters: the one that is written, and a copy's target. */
  readonly nodes: readonly BlockNode[];
  readonly regionBytes: number;
  /** What else is to be on record, as JSON; asked at each save. */
  readonly describe?: () => object;
}

export class WriteIntent {
  readonly id: string;
  readonly nodes: readonly BlockNode[];
  /** Their names, as they were at the beginning: nodes may be closed. */
  readonly images: readonly string[];
  readonly regionBytes: number;
  readonly describe: () => object;
  /** On record, or about to be. */
  readonly regions: Regions;
  readonly #intents: WriteIntents;
  /** Of `regions`: in no save that has begun; in the one that is under way. */
  #unsaved: Set<number> = new Set();
  #saving: Set<number> = new Set();
  /** Writes under way, by region. */
  readonly #inFlight = new Map<number, number>();
  /** What has been written since the last sweep began. */
  #touched: Set<number> = new Set();
  #state: "unpublished" | "unsaved" | "saved" | "ended" = "unpublished";

  /** Made by WriteIntents.begin(). */
  constructor(intents: WriteIntents, init: WriteIntentInit) {
    this.#intents = intents;
    this.id = init.id;
    this.nodes = init.nodes;
    this.images = init.nodes.flatMap(imagesOf);
    this.regionBytes = init.regionBytes;
    this.describe = init.describe ?? (() => ({}));
    this.regions = new Regions(init.nodes[0]!.world.kernel, init.regionBytes);
  }

  /** It is to be in the next record. */
  get isPublished(): boolean {
    return this.#state === "unsaved" || this.#state === "saved";
  }

  /**
   * From now on there is a record, and writes wait to be on it; until then there is none, which says
   * that nothing is known. What is under way is part of it.
   */
  publish(): void {
    assert(this.#state === "unpublished", "an intent is published once");
    this.#state = "unsaved";
    this.#intents.touch();
    for (const region of this.#inFlight.keys()) this.regions.add(region);
  }

  /** For good: no record. Writes to the nodes wait until it is gone from the store. */
  end(): void {
    if (this.#state === "ended") return;
    this.#state = "ended";
    this.#intents.ended(this);
  }

  /** Nobody sees to it any more, but the record stays, for as long as nobody writes. */
  leaveRecord(): void {
    if (this.#state === "ended") return;
    this.#intents.left(this);
    this.#state = "ended";
  }

  /** A range must be on record before it is written: see isOnRecord(). Without end in writes: mark(). */
  mark(offset: number, bytes: number): void {
    if (!this.isPublished || bytes <= 0) return;
    const { first, end } = this.regions.span(offset, bytes);
    for (let region = first; region < end; region++) {
      if (this.regions.has(region)) continue;
      this.regions.add(region);
      this.#unsaved.add(region);
      this.#intents.touch();
    }
  }

  /** Whether a crash now would leave a record that has all of the range. */
  isOnRecord(offset: number, bytes: number): boolean {
    if (this.#state === "unpublished" || this.#state === "ended") return true;
    if (this.#state === "unsaved") return false;
    if (this.#unsaved.size === 0 && this.#saving.size === 0) return true;
    const { first, end } = this.regions.span(offset, bytes);
    for (let region = first; region < end; region++) {
      if (this.#unsaved.has(region) || this.#saving.has(region)) return false;
    }
    return true;
  }

  /** A write begins; leave() follows, whatever comes of it. */
  enter(offset: number, bytes: number): void {
    this.mark(offset, bytes);
    const { first, end } = this.regions.span(offset, bytes);
    for (let region = first; region < end; region++) {
      this.#inFlight.set(region, (this.#inFlight.get(region) ?? 0) + 1);
      this.#touched.add(region);
    }
  }

  leave(offset: number, bytes: number): void {
    const { first, end } = this.regions.span(offset, bytes);
    for (let region = first; region < end; region++) {
      const others = (this.#inFlight.get(region) ?? 1) - 1;
      if (others > 0) this.#inFlight.set(region, others);
      else this.#inFlight.delete(region);
    }
  }

  /**
   * Takes out the regions in which nothing is dirty, once that is there to stay. Not those that have been
   * written since the sweep before: they will be again.
   *
   * @param dirty what the regions stand for; told of a write not later than when it ends
   * @param isBusy somebody is at a part of the range who will make it dirty if he fails
   * @param flush makes last what has been done for those that are not dirty
   * @returns whether there were any
   * @throws BlockError what flush() throws: nothing is taken out then
   */
  async sweep(
    dirty: DirtyBitmap,
    isBusy: (offset: number, bytes: number) => boolean,
    flush: () => Promise<void>,
  ): Promise<boolean> {
    const hot = this.#touched;
    this.#touched = new Set();
    const clean = this.#cleanRegions(dirty, isBusy).filter((region) => !hot.has(region));
    if (clean.length === 0) return false;
    await flush();
    if (!this.isPublished) return false;
    for (const region of clean) {
      if (this.#touched.has(region)) continue;
      this.regions.remove(region);
      this.#unsaved.delete(region);
      this.#saving.delete(region);
    }
    return true;
  }

  #cleanRegions(
    dirty: DirtyBitmap,
    isBusy: (offset: number, bytes: number) => boolean,
  ): readonly number[] {
    const found: number[] = [];
    const { regionBytes } = this;
    for (let run = this.regions.nextRun(0); run; run = this.regions.nextRun(run.end)) {
      const stop = Math.min(run.end * regionBytes, dirty.size);
      for (let at = run.first * regionBytes; at < stop; ) {
        // Stretches that are dirty all over are passed over at once.
        const clear = dirty.nextClear(at, stop);
        if (clear === null) break;
        const region = Math.floor(clear / regionBytes);
        const start = region * regionBytes;
        const end = Math.min(start + regionBytes, stop);
        const isDone = dirty.nextDirty(start, end) === null;
        if (isDone && !this.#inFlight.has(region) && !isBusy(start, end - start))
          found.push(region);
        at = start + regionBytes;
      }
    }
    return found;
  }

  // For WriteIntents.

  /** A save begins that has all that `regions` has now. */
  saveBegins(): void {
    if (this.#state === "unsaved" || this.#state === "saved") {
      this.#saving = this.#unsaved;
      this.#unsaved = new Set();
    }
  }

  saveEnded(isSaved: boolean): void {
    if (isSaved && this.#state === "unsaved") this.#state = "saved";
    if (!isSaved) for (const region of this.#saving) this.#unsaved.add(region);
    this.#saving = new Set();
  }
}
