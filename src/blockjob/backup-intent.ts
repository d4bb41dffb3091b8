/**
 * What a backup has on record, so that it can go on after a crash with the moment that it is of:
 *
 *   a guest's write ──▶ all of its region is in the target, flushed ──▶ region on record ──▶ through
 *
 *   after a crash     on record        the target has that moment; the source is not looked at
 *                     not on record    nobody has written there: the source has it
 *
 * The source is flushed before there is a record, or a power cut would take it back behind its moment.
 * What the job itself has copied is put on record now and then, so that it is not copied again.
 */

import * as v from "valibot";
import { Coalesced } from "../base/coalesced.ts";
import { BlockError } from "../base/errors.ts";
import { Regions, regionBytesFor, regionsOf, regionsRecord } from "../block/intent-regions.ts";
import * as io from "../block/io.ts";
import type { BlockNode } from "../block/node.ts";
import { skipFilters } from "../block/status.ts";
import type { WriteIntent } from "../block/write-intent.ts";
import type { FoundIntent, WriteIntents } from "../block/write-intents.ts";
import type { CopyBeforeWrite, CopyGuard } from "../drivers/filter/copy-before-write.ts";
import type { BackupOptions, BackupPlan } from "./backup-options.ts";
import { Sweeps } from "./sweeps.ts";

const SWEEP_MS = 1000;

export class BackupIntent implements CopyGuard {
  readonly #intents: WriteIntents;
  readonly #intent: WriteIntent;
  readonly #filter: CopyBeforeWrite;
  /** What a next engine would have to copy; on record now and then. */
  readonly #left: Regions;
  readonly #flushes: Coalesced;
  readonly #lost = new AbortController();
  readonly #sweeps = new Sweeps(SWEEP_MS);

  /**
   * To be called with the source drained, when the filter is in.
   *
   * @returns null where nothing is kept
   * @throws BlockError EIO if it was to go on, and its moment is lost; what flushing the source throws
   */
  static async begin(
    plan: BackupPlan,
    filter: CopyBeforeWrite,
    { intent: id, discardSource = false }: BackupOptions,
  ): Promise<BackupIntent | null> {
    const { intents, kernel } = plan.source.world;
    // A source that gives up what is copied has lost it before the target has flushed it.
    const isKept = intents && !discardSource;
    const found = id !== undefined && isKept ? intents.find(id, imagesOf(plan), kernel) : null;
    if (id !== undefined && !found) {
      intents?.forget(id);
      throw new BlockError(
        "EIO",
        "The moment of the backup is lost: what was written since is not known. The target is not complete",
      );
    }
    if (!isKept) return null;
    if (!found) await io.flush(plan.source);
    return new BackupIntent(intents, plan, filter, found, id);
  }

  private constructor(
    intents: WriteIntents,
    plan: BackupPlan,
    filter: CopyBeforeWrite,
    found: FoundIntent | null,
    id: string | undefined,
  ) {
    const { copy } = filter;
    const { kernel } = plan.source.world;
    const regionBytes = regionBytesFor(copy.length, copy.clusterSize);
    this.#intents = intents;
    this.#filter = filter;
    this.#flushes = new Coalesced(() => io.flush(plan.target));
    this.#left = new Regions(kernel, regionBytes);
    this.#left.addRange(0, copy.length);
    this.#intent = intents.begin({
      id: id ?? intents.newId(),
      nodes: imagesOf(plan),
      regionBytes,
      describe: () => ({ left: this.#left.describe() }),
    });
    this.#intent.publish();
    if (found) this.#takeOver(plan, found);
    filter.guard = this;
  }

  /** For the job's own record. */
  get id(): string {
    return this.#intent.id;
  }

  /** What the lost engine had copied, and what guests had written. */
  #takeOver(plan: BackupPlan, { regions: written, more }: FoundIntent): void {
    const { copy } = this.#filter;
    const done = new Regions(plan.source.world.kernel, this.#left.regionBytes);
    done.addRange(0, copy.length);
    const record = v.safeParse(regionsRecord, more["left"]);
    const left = record.success ? regionsOf(plan.source.world.kernel, record.output) : null;
    // Whole regions only, whatever size they had before.
    if (left) for (const { offset, bytes } of left.ranges()) removeTouched(done, offset, bytes);
    else done.remove(0, Number.MAX_SAFE_INTEGER);
    for (const { offset, bytes } of done.ranges()) this.#isCopied(offset, bytes);
    for (const { offset, bytes } of written.ranges()) {
      this.#intent.mark(offset, bytes);
      this.#isCopied(offset, bytes);
      plan.bitmap?.successor?.set(offset, bytes);
    }
  }

  #isCopied(offset: number, bytes: number): void {
    const { copy } = this.#filter;
    const inside = Math.min(bytes, copy.length - offset);
    if (inside <= 0) return;
    this.#filter.wasCopied(offset, inside);
    const { first, end } = this.#left.span(offset, inside);
    this.#left.remove(first, end);
  }

  // CopyGuard

  widen(offset: number, bytes: number): { offset: number; bytes: number } {
    const { regionBytes } = this.#left;
    const { first, end } = this.#left.span(offset, bytes);
    return { offset: first * regionBytes, bytes: (end - first) * regionBytes };
  }

  async secure(offset: number, bytes: number, signal?: AbortSignal): Promise<void> {
    const { regions } = this.#intent;
    const { first, end } = regions.span(offset, bytes);
    for (let region = first; region < end; region++) {
      if (regions.has(region)) continue;
      const { signal: lost } = this.#lost;
      return this.#flushes.done(signal ? AbortSignal.any([signal, lost]) : lost);
    }
  }

  /** The moment is given up, or the job is over: the next write waits until there is no record. */
  end(): void {
    this.#lost.abort();
    this.#intent.end();
    this.#filter.guard = null;
  }

  /**
   * Begins to put what has been copied on record, if it is time for that.
   *
   * @param fail told of a target that cannot be flushed
   */
  sweep(nowMs: number, fail: (error: BlockError) => void): void {
    if (this.#intent.isPublished) this.#sweeps.begin(nowMs, () => this.#sweep(fail));
  }

  /** Until no sweep is under way. */
  rest(): Promise<void> {
    return this.#sweeps.rest();
  }

  async #sweep(fail: (error: BlockError) => void): Promise<void> {
    const { copy } = this.#filter;
    const { regionBytes } = this.#left;
    const done: number[] = [];
    for (let run = this.#left.nextRun(0); run; run = this.#left.nextRun(run.end)) {
      for (let region = run.first; region < run.end; region++) {
        if (copy.isDone(region * regionBytes, regionBytes)) done.push(region);
      }
    }
    if (done.length === 0) return;
    try {
      await this.#flushes.done();
    } catch (error) {
      if (error instanceof BlockError) fail(error);
      throw error;
    }
    for (const region of done) this.#left.remove(region);
    await this.#intents.saved();
  }
}

function imagesOf({ source, target }: BackupPlan): BlockNode[] {
  return [skipFilters(source), skipFilters(target)];
}

function removeTouched(set: Regions, offset: number, bytes: number): void {
  const { first, end } = set.span(offset, bytes);
  set.remove(first, end);
}
