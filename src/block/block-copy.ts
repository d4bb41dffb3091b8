/**
 * Copies one disk to another while the first is being written to: the engine that a
 * copy-before-write filter and its backup job share (QEMU: block/block-copy.c).
 *
 * A bitmap says which clusters are still to be copied. Whoever copies a run of them takes its bits
 * away first and lists it as under way; a failure puts the bits back. So every cluster is, at any
 * moment, one of these:
 *
 *   dirty       nobody has copied it; the source still has the old content
 *   under way   somebody is at it; who wants to write there waits
 *   neither     copied, or not wanted: it is never looked at again
 */

import { Bell } from "../base/bell.ts";
import { alignDown, alignUp, KiB, MiB } from "../base/bytes.ts";
import { BlockError, throwIfAborted } from "../base/errors.ts";
import { settleAll } from "../base/settle.ts";
import type { BlockChild } from "./child.ts";
import { CopyMover, type CopySide } from "./copy-mover.ts";
import { DirtyBitmap } from "./dirty-bitmap.ts";
import type { BlockNode } from "./node.ts";
import { skipFilters } from "./status.ts";

const CLUSTER_BYTES_MIN = 64 * KiB;

/** Most bytes of one task, unless one cluster is more. */
const TASK_BYTES = 1 * MiB;
/** Tasks at a time of one request that a guest is waiting for. */
const REQUEST_TASKS = 8;

export interface BlockCopyInit {
  readonly source: BlockChild;
  /** At least as long as the source. */
  readonly target: BlockChild;
  /** Bytes; a power of two, a multiple of what the target allocates in. */
  readonly clusterSize: number;
}

/** Whole clusters that somebody is at, or up to the end of the disk. Taken by take(). */
export interface CopyTask {
  readonly offset: number;
  readonly bytes: number;
}

export class BlockCopy {
  readonly clusterSize: number;
  /** Bytes of disk. */
  readonly length: number;
  /** What is still to be copied, and nobody is at. */
  readonly dirty: DirtyBitmap;
  readonly #source: BlockNode;
  readonly #mover: CopyMover;
  readonly #tasks = new Set<CopyTask>();
  readonly #taskEnded = new Bell();
  readonly #calledOff = new AbortController();
  /** Told of every end of a task, with the bytes that were copied, whole clusters. */
  onTaskEnd: ((bytes: number) => void) | null = null;

  /** All is to be copied. */
  constructor({ source, target, clusterSize }: BlockCopyInit) {
    this.clusterSize = clusterSize;
    this.length = source.length;
    this.#source = source.node;
    this.#mover = new CopyMover({ source, target, clusterSize, length: this.length });
    this.dirty = new DirtyBitmap({
      node: source.node,
      name: null,
      granularity: clusterSize,
      size: this.length,
      enabled: false,
    });
    this.dirty.setAll();
  }

  /** How to copy: packed; giving back in the source what has been copied. */
  set compress(wanted: boolean) {
    this.#mover.compress = wanted;
  }

  set discardSource(wanted: boolean) {
    this.#mover.discardSource = wanted;
  }

  /**
   * Leaves out what the source inherits from this backing node, or has from nowhere if that is null.
   * undefined: copies that, too.
   */
  inheritedFrom(base: BlockNode | null | undefined): void {
    this.#mover.base = base;
  }

  /** Bytes to be copied, those under way included; whole clusters. */
  get remaining(): number {
    let underWay = 0;
    for (const task of this.#tasks) underWay += alignUp(task.bytes, this.clusterSize);
    return this.dirty.count + underWay;
  }

  get isIdle(): boolean {
    return this.#tasks.size === 0;
  }

  /** Bytes of the largest task, where each may have `wanted` at most; 0: as much as is good. */
  taskBytes(wanted: number): number {
    const most = this.#mover.compress ? 0 : Math.min(wanted || TASK_BYTES, TASK_BYTES);
    return Math.max(this.clusterSize, alignDown(most, this.clusterSize));
  }

  /**
   * The first run of offset .. end-1 that is to be copied; the caller sees to it with run().
   *
   * @param offset with end: whole clusters, or the end of the disk
   * @param maxBytes as from taskBytes()
   */
  take(offset: number, end: number, maxBytes: number): CopyTask | null {
    const area = this.dirty.nextDirtyArea(offset, end, maxBytes);
    if (area === null) return null;
    this.dirty.reset(area.offset, area.bytes);
    this.#tasks.add(area);
    return area;
  }

  /**
   * Copies what was taken. After a failure it is to be copied again.
   *
   * @param failed told why, and whose doing it was, before anybody can take it again
   * @throws BlockError the same
   */
  async run(
    task: CopyTask,
    signal?: AbortSignal,
    failed?: (error: BlockError, side: CopySide) => void,
  ): Promise<void> {
    this.#source.world.trace.block_copy_process?.(this.#source.name, task.offset, task.bytes);
    let copied = 0;
    let side: CopySide = "source";
    try {
      const moved = await this.#mover.move(task.offset, task.bytes, signal, (whose) => {
        side = whose;
      });
      copied = alignUp(moved, this.clusterSize);
    } catch (error) {
      if (error instanceof BlockError) failed?.(error, side);
      this.dirty.set(task.offset, task.bytes);
      throw error;
    } finally {
      this.#tasks.delete(task);
      this.onTaskEnd?.(copied);
      this.#taskEnded.ring();
    }
  }

  /**
   * Sees to it that all of the range has been copied, by whomever. When it has, that stays so: a
   * write to the range may go on.
   *
   * @param signal ends the wait and begins nothing more, but lets finish what is under way
   * @throws BlockError of the first task that failed; ECANCELED, also after callOff()
   */
  async copy(offset: number, bytes: number, signal?: AbortSignal): Promise<void> {
    const start = alignDown(offset, this.clusterSize);
    const end = Math.min(alignUp(offset + bytes, this.clusterSize), this.length);
    for (;;) {
      throwIfAborted(signal);
      throwIfAborted(this.#calledOff.signal);
      if (await this.#copySome(start, end)) continue;
      // Since it was seen that nothing is dirty, a task may have failed: both are looked at in one turn.
      if (this.#isUnderWay(start, end)) await this.#taskEnded.rung(signal);
      else if (this.dirty.nextDirtyArea(start, end, end - start) === null) return;
    }
  }

  /** Nobody wants a copy any more: what copy() has under way ends soon, and it begins nothing more. */
  callOff(): void {
    this.#calledOff.abort();
  }

  /** Leaves out what is to be copied in these whole clusters; what is under way goes on. */
  leaveOut(offset: number, bytes: number): void {
    this.dirty.reset(offset, bytes);
    this.onTaskEnd?.(0);
  }

  /** Nothing of the range is to be copied any more, nor under way. */
  isDone(offset: number, bytes: number): boolean {
    const end = Math.min(offset + bytes, this.length);
    return !this.#isUnderWay(offset, end) && this.dirty.nextDirty(offset, end) === null;
  }

  /** See CopyMover. */
  allocation(offset: number): Promise<{ bytes: number; allocated: boolean }> {
    return this.#mover.allocation(offset, this.length);
  }

  /** Adds what has not been copied, or not yet. @param bitmap of the same disk */
  addUncopied(bitmap: DirtyBitmap): void {
    bitmap.merge(this.dirty);
    for (const { offset, bytes } of this.#tasks) bitmap.set(offset, bytes);
  }

  /** Until some task has ended, well or not. @throws BlockError ECANCELED */
  taskEnded(signal?: AbortSignal): Promise<void> {
    return this.#taskEnded.rung(signal);
  }

  /** Until nothing is under way. */
  async idle(): Promise<void> {
    while (!this.isIdle) await this.#taskEnded.rung();
  }

  /** A few tasks of the range, at once. @returns whether there was something to do */
  async #copySome(start: number, end: number): Promise<boolean> {
    const running: Promise<void>[] = [];
    const most = this.taskBytes(0);
    for (let at = start; running.length < REQUEST_TASKS; ) {
      const task = this.take(at, end, most);
      if (task === null) break;
      at = task.offset + task.bytes;
      running.push(this.run(task, this.#calledOff.signal));
    }
    await settleAll(running);
    return running.length > 0;
  }

  #isUnderWay(start: number, end: number): boolean {
    for (const { offset, bytes } of this.#tasks) {
      if (offset < end && start < offset + bytes) return true;
    }
    return false;
  }
}

/**
 * In what a copy to this target goes: no cluster of it is written twice, and bitmaps stay small.
 *
 * @param wanted 0, or a power of two that the caller wants at least
 */
export function copyClusterSize(target: BlockNode, wanted: number): number {
  return Math.max(CLUSTER_BYTES_MIN, skipFilters(target).state.limits.clusterSize, wanted);
}

/** @throws BlockError EINVAL */
export function checkMinClusterSize(bytes: number): void {
  if (bytes === 0 || Number.isInteger(Math.log2(bytes))) return;
  throw new BlockError("EINVAL", `'min-cluster-size' expects a power of two; got ${bytes}`);
}
