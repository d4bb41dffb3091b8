/**
 * The work of a mirror job: find out what is to be copied, copy it, be ready, keep up with the
 * guests, and come to an end at a moment when both disks are the same (QEMU: mirror_run() in
 * block/mirror.c).
 *
 *   turn ─▶ failures? ask the policy ─▶ something dirty? start a copy of it ─┐
 *    ▲  ▲                                   │ no, and nothing under way      │
 *    │  └───────────────────────────────────┼────────────────────────────────┘
 *    └── sleep ◀── ready ◀── flush ◀────────┘
 *                    │ asked to end: drain the source; the little that is dirty yet is
 *                    ▼ copied now; flush
 *                 the end; the source stays drained until the job is finalized
 */

import { alignDown, MiB } from "../base/bytes.ts";
import { BlockError } from "../base/errors.ts";
import type { DrainedSection } from "../block/drain.ts";
import type { BlockNode } from "../block/node.ts";
import { backingOf, chainStatus } from "../block/status.ts";
import type { BlockJob } from "./block-job.ts";
import type { MirrorCopies, MirrorDisks } from "./mirror-copies.ts";
import type { GuestWrites } from "./mirror-filter.ts";
import type { MirrorIntent } from "./mirror-intent.ts";

/** With a speed limit, most bytes of one copy: what goes out in one burst. */
const LIMITED_CHUNK_BYTES = 1 * MiB;
/** What cannot be looked at is taken for dirty in steps of this. */
const UNKNOWN_BYTES = 1 * MiB;
/**
 * Under writes that never stop there may be no moment with nothing dirty: QEMU's mirror never gets
 * ready then. After so many rounds a job is ready when what is dirty is no more than one copy.
 */
const STEADY_ROUNDS = 4;
/** A job that is ready and has nothing to do looks again after so long. */
const IDLE_MS = 100;

export interface MirrorRunInit {
  readonly job: BlockJob;
  readonly disks: MirrorDisks;
  readonly copies: MirrorCopies;
  readonly writes: GuestWrites;
  readonly intent: MirrorIntent | null;
  /** Most bytes of one copy; a multiple of the granularity. */
  readonly chunkBytes: number;
  /** What is dirty at the start: of the whole disk, of what is allocated above `base`, or nothing. */
  readonly sync: "full" | "top" | "none";
  readonly base: BlockNode | null;
  /** An engine that was lost has copied before: the target may hold what the source does not any more. */
  readonly isAgain: boolean;
  readonly targetIsZero: boolean;
  /** Makes the target as long as the source, or throws. */
  matchLength(): Promise<void>;
}

/** What the beginning of a range is. */
interface Look {
  readonly bytes: number;
  readonly isAllocated: boolean;
  readonly isZero: boolean;
}

export class MirrorRun {
  /** The user wants it to end, and the target in the source's place. */
  completeRequested = false;
  /** The source is quiet from the end of run() on, and until whoever finalizes the job ends this. */
  section: DrainedSection | null = null;
  readonly #init: MirrorRunInit;

  constructor(init: MirrorRunInit) {
    this.#init = init;
  }

  /** Nothing of the job's own is under way any more. */
  async rest(): Promise<void> {
    await this.#init.copies.drain();
    await this.#init.intent?.rest();
  }

  /** Both disks have the same bytes, and writes go to both before they are told to be done. */
  get isSynced(): boolean {
    const { job, disks, copies, writes } = this.#init;
    const isOn = writes.isOn && !writes.isHeldOff;
    return job.ready && isOn && disks.dirty.isClean && copies.isIdle;
  }

  async run(): Promise<void> {
    const { job, writes, intent } = this.#init;
    await this.#init.matchLength();
    try {
      if (!intent?.isFound) await this.#findDirty();
      if (!job.cancelled) await intent?.publish(job.signal);
      writes.isHeldOff = false;
      while (!(await this.#step())) {}
    } finally {
      await this.rest();
    }
  }

  /** The user resumes: what went wrong until now is tried again before it is told. */
  forgive(): void {
    this.#init.copies.takeFailed();
  }

  /** @returns true at the end of the work */
  async #step(): Promise<boolean> {
    const { job, disks, copies, intent } = this.#init;
    await job.turn();
    if (job.cancelled) return true;
    intent?.sweep(disks, job.clock.now(), (failure) => {
      copies.fail(failure);
      job.endSleep();
    });
    if (copies.hasFailed) {
      await this.#askPolicy();
      return false;
    }
    this.#tellProgress();
    if (this.#isAlmostSame()) return this.#tryToEnd();
    if (this.#isSteady()) {
      await copies.drain();
      if (!copies.hasFailed && !job.cancelled) await this.#rest();
      return false;
    }
    const room = Math.min(copies.room, this.#chunkBytes);
    const task = room > 0 ? copies.next(room) : null;
    if (task) {
      job.charge(task.bytes);
      copies.start(task);
    } else if (!copies.isIdle) {
      await copies.oneEnded();
    } else if (disks.dirty.isClean) {
      await this.#rest();
    }
    return false;
  }

  get #chunkBytes(): number {
    const { job, chunkBytes } = this.#init;
    return job.speed === 0 ? chunkBytes : Math.min(chunkBytes, LIMITED_CHUNK_BYTES);
  }

  #tellProgress(): void {
    const { job, disks, copies, writes } = this.#init;
    job.progress.setRemaining(disks.dirty.bytes + copies.bytesTaken + writes.bytesInFlight);
  }

  /** Not ready yet, but as near to it as the guests' writes let it come. */
  #isSteady(): boolean {
    const { job, disks, copies } = this.#init;
    return !job.ready && copies.rounds >= STEADY_ROUNDS && disks.dirty.bytes <= this.#chunkBytes;
  }

  /** Nothing is under way, and there is nothing to do that could not wait. */
  async #rest(): Promise<void> {
    const { job } = this.#init;
    if (job.ready) return job.sleep(IDLE_MS);
    if ((await this.#flush()) && !job.cancelled) job.becomeReady();
  }

  // The end

  /** The end is wanted, and what is dirty can be copied while the guests wait for it. */
  #isAlmostSame(): boolean {
    const { job, disks } = this.#init;
    const isWanted = this.completeRequested || job.cancelRequested;
    return job.ready && isWanted && disks.dirty.bytes <= this.#chunkBytes;
  }

  /** @returns whether both disks are the same, and stay so: the section is kept then */
  async #tryToEnd(): Promise<boolean> {
    const { job, disks, copies } = this.#init;
    await this.rest();
    // Whoever asked for a pause meanwhile gets it first.
    if (copies.hasFailed || job.cancelled || job.pauseCount > 0) return job.cancelled;
    const section = await job.drain(disks.nodes);
    try {
      if (await this.#finishCopies()) this.section = section;
    } finally {
      if (this.section === null) section.end();
    }
    return this.section !== null || job.cancelled;
  }

  /** With the source at rest: copies what is left, unless it has become too much meanwhile. */
  async #finishCopies(): Promise<boolean> {
    const { job, disks, copies } = this.#init;
    if (job.cancelled || !this.#isAlmostSame()) return false;
    // Clusters that have to be copied as a whole can make it more than it looked.
    let left = this.#chunkBytes;
    while (!disks.dirty.isClean && left > 0 && !copies.hasFailed && !job.cancelled) {
      const room = Math.min(copies.room, left);
      const task = room > 0 ? copies.next(room) : null;
      if (!task) {
        await copies.oneEnded();
        continue;
      }
      this.#tellProgress(); // Or more would be done than there was to do.
      job.charge(task.bytes);
      copies.start(task);
      left = alignDown(left - task.bytes, disks.dirty.granularity);
    }
    await copies.drain();
    this.#tellProgress();
    if (!disks.dirty.isClean || copies.hasFailed || job.cancelled) return false;
    // A job that the user wants to stand still does not end: it goes on from here when resumed.
    return (await this.#flush()) && !job.cancelled && !job.userPaused;
  }

  /** What was copied is there to stay. @returns false if not: the policy is asked at the next turn */
  async #flush(): Promise<boolean> {
    const { disks, copies } = this.#init;
    try {
      await disks.target.flush();
      return true;
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      copies.fail({ side: "target", error });
      return false;
    }
  }

  // Trouble

  /** What has failed is dirty again. @throws BlockError by the policy `report` */
  async #askPolicy(): Promise<void> {
    const { job, copies, writes } = this.#init;
    // All that is under way now will be one answer: a broken disk is not told sixteen times.
    await copies.drain();
    let isIgnored = false;
    const told = new Set<string>();
    for (const { side, error } of copies.takeFailed()) {
      if (job.cancelled || job.ioStatus !== "ok") return;
      if (side === "target") writes.isHeldOff = true;
      const kind = `${side} ${error.errno}`;
      if (told.has(kind)) continue;
      told.add(kind);
      const action = job.onError(error, side);
      if (action === "report") throw error;
      isIgnored ||= action === "ignore";
    }
    if (isIgnored && !job.userPaused) await job.backOff();
  }

  // The beginning

  async #findDirty(): Promise<void> {
    const { disks, sync, base, isAgain } = this.#init;
    if (sync === "none") return;
    const { dirty, source } = disks;
    if (sync === "full" && !(await this.#isTargetZero())) return dirty.setAll();
    // A target that is zero needs no zeroes; but where it shows a backing file, it does.
    const isToCopy = ({ isAllocated, isZero }: Look) => isAllocated && !(sync === "full" && isZero);
    await this.#findRuns(source, base, isToCopy);
    if (sync === "full" || !isAgain) return;
    const { node } = disks.target;
    await this.#findRuns(node, backingOf(node), ({ isAllocated }) => isAllocated);
  }

  async #findRuns(
    node: BlockNode,
    base: BlockNode | null,
    isToCopy: (run: Look) => boolean,
  ): Promise<void> {
    const { job, disks } = this.#init;
    for (let at = 0; at < disks.dirty.length; ) {
      await job.turn();
      if (job.cancelled) return;
      const run = await this.#look(node, base, at);
      if (isToCopy(run)) disks.dirty.set(at, run.bytes);
      at += run.bytes;
    }
  }

  /** Whether the target is known to be zero everywhere. */
  async #isTargetZero(): Promise<boolean> {
    const { job, disks, targetIsZero } = this.#init;
    if (targetIsZero) return true;
    const { node } = disks.target;
    // It may get its backing file back some day.
    const isBacked = node.state.info?.()["backing-filename"] !== undefined;
    if (isBacked && !node.children.has("backing")) return false;
    for (let at = 0; at < disks.dirty.length; ) {
      await job.turn();
      if (job.cancelled) return false;
      const run = await this.#look(node, null, at);
      if (!run.isZero) return false;
      at += run.bytes;
    }
    return true;
  }

  /** What cannot be looked at is dirty: the copy will find out, and ask the policy. */
  async #look(node: BlockNode, base: BlockNode | null, at: number): Promise<Look> {
    const left = this.#init.disks.dirty.length - at;
    try {
      const run = await chainStatus(node, base, at, left);
      return { bytes: run.bytes, isAllocated: run.node !== null, isZero: run.zero };
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      return { bytes: Math.min(left, UNKNOWN_BYTES), isAllocated: true, isZero: false };
    }
  }
}
