/**
 * What a mirror has on record: the regions of the source that the target may lack, after any crash. With
 * it the next engine copies no more than those; without it, all again.
 *
 *   what is to be copied is known ──▶ on record ──▶ copies ──▶ sweep: flush both disks, take out what is
 *                                        ▲                            clean; every two seconds
 *                                        └── a guest's write to a clean region, before it goes through
 *
 * Both disks are flushed: the target has to hold what was copied, and the source what it was copied from,
 * or a power cut would leave a source that is older than its copy.
 */

import { BlockError } from "../base/errors.ts";
import { settleAll } from "../base/settle.ts";
import { markAll } from "../block/bitmap-intent.ts";
import type { DirtyBitmap } from "../block/dirty-bitmap.ts";
import { regionBytesFor } from "../block/intent-regions.ts";
import { getLength } from "../block/io.ts";
import type { BlockNode } from "../block/node.ts";
import type { WriteIntent } from "../block/write-intent.ts";
import type { MirrorDisks, MirrorFailure } from "./mirror-copies.ts";
import { Sweeps } from "./sweeps.ts";

const SWEEP_MS = 2000;

export class MirrorIntent {
  /** Found on record, and trusted: the bitmap has what is to be copied already. */
  readonly isFound: boolean;
  readonly #intent: WriteIntent;
  readonly #target: BlockNode;
  readonly #bitmap: DirtyBitmap;
  readonly #save: () => Promise<void>;
  readonly #sweeps = new Sweeps(SWEEP_MS);

  /**
   * To be called while the source is drained, when the bitmap records already.
   *
   * @param nodes both disks: first the node that the bitmap is of, last the target
   * @param wholeClusters as MirrorDirty has it: no region is a part of one, as all of it becomes dirty at once
   * @param id of a record that an engine has left
   * @returns null where nothing is kept
   */
  static begin(
    nodes: readonly BlockNode[],
    bitmap: DirtyBitmap,
    wholeClusters: number,
    id: string | undefined,
  ): MirrorIntent | null {
    if (!nodes[0]!.world.intents) return null;
    return new MirrorIntent(nodes, bitmap, Math.max(bitmap.granularity, wholeClusters), id);
  }

  private constructor(
    nodes: readonly BlockNode[],
    bitmap: DirtyBitmap,
    granularity: number,
    id: string | undefined,
  ) {
    const source = nodes[0]!;
    const intents = source.world.intents!;
    const found = id === undefined ? null : intents.find(id, nodes, source.world.kernel);
    if (id !== undefined && !found) intents.forget(id);
    const regionBytes = regionBytesFor(getLength(source), granularity);
    this.#intent = intents.begin({ id: found ? id! : intents.newId(), nodes, regionBytes });
    this.#target = nodes.at(-1)!;
    this.#bitmap = bitmap;
    this.#save = () => intents.saved();
    this.isFound = found !== null;
    if (!found) return;
    for (const { offset, bytes } of found.regions.ranges()) bitmap.set(offset, bytes);
    this.#publish();
  }

  /** For the job's own record. */
  get id(): string {
    return this.#intent.id;
  }

  /**
   * The bitmap has all that is to be copied: from now on it can be relied on. Resolves when the target may be
   * written: the save that copies wait for would else stand in a queue behind what they read.
   */
  async publish(signal: AbortSignal): Promise<void> {
    if (!this.#intent.isPublished) this.#publish();
    try {
      await this.#target.gate?.announce(signal);
    } catch (error) {
      // The first copy hears of it again, and the policy is asked.
      if (!(error instanceof BlockError)) throw error;
    }
  }

  #publish(): void {
    this.#intent.publish();
    markAll(this.#intent, this.#bitmap);
  }

  /** Begins a sweep if it is time for one. @param fail told of a disk that cannot be flushed */
  sweep(disks: MirrorDisks, nowMs: number, fail: (failure: MirrorFailure) => void): void {
    const flush = () =>
      settleAll([
        sided("source", () => disks.reader.flush(), fail),
        sided("target", () => disks.target.flush(), fail),
      ]);
    const isBusy = (offset: number, bytes: number) => disks.locks.isTaken(offset, bytes);
    this.#sweeps.begin(nowMs, async () => {
      if (await this.#intent.sweep(this.#bitmap, isBusy, flush)) await this.#save();
    });
  }

  /** Until no sweep is under way. */
  rest(): Promise<void> {
    return this.#sweeps.rest();
  }

  /** For good. Both disks must be drained, or not be written any more by the job. */
  end(): void {
    this.#intent.end();
  }
}

async function sided(
  side: MirrorFailure["side"],
  flush: () => Promise<void>,
  fail: (failure: MirrorFailure) => void,
): Promise<void> {
  try {
    await flush();
  } catch (error) {
    if (error instanceof BlockError) fail({ side, error });
    throw error;
  }
}
