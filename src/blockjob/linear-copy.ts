/**
 * Going over a disk once, from the first byte to the last: the work that stream and commit share.
 *
 *   turn ─▶ failures? ask the policy ─▶ next chunk: one to try again, or of the next run ─┐
 *    ▲                                                                                   │
 *    └────────────── charge it, start it; it reports its own progress ◀──────────────────┘
 *
 * QEMU has one request under way at a time (stream_run(), commit_run() in block/). Here there are a
 * few; order, policies and limits are the same.
 */

import { alignDown, alignUp, KiB, MiB } from "../base/bytes.ts";
import { BlockError } from "../base/errors.ts";
import type { BlockJob } from "./block-job.ts";
import { type CopyTask, CopyWindow } from "./copy-window.ts";

/** Bytes of a copy; with a speed limit also what goes out in one burst. Or one larger cluster. */
const CHUNK_BYTES = 512 * KiB;
/** Zeroes move no bytes: without a limit more of them go at once. */
const ZERO_CHUNK_BYTES = 16 * MiB;
/** Copies under way at once; each holds one buffer of its clusters. */
const COPIES_IN_FLIGHT = 6;
/** A closed tab or a crash costs at most this much work. */
const FLUSH_EVERY_MS = 2000;
const FLUSH_EVERY_BYTES = 256 * MiB;

/** What is to be done with a run of `bytes` > 0: nothing, copy it, or make it zero. */
export interface Run {
  readonly bytes: number;
  readonly action: "pass" | "copy" | "zero";
}

export interface LinearTask extends CopyTask {
  readonly action: "copy" | "zero";
  /** It has failed before. */
  readonly isRetry: boolean;
}

/** What a job does with its disk. All of these may throw BlockError, with `at`. */
export interface LinearWork {
  /** Bytes to go over. */
  readonly length: number;
  /** Cluster size of what is written, or 1: chunks end where clusters do. */
  readonly granule: number;
  /**
   * What becomes of a chunk when the policy says ignore: `pass` goes on without it, and the job
   * fails at its end; `retry` tries it again after a while.
   */
  readonly whenIgnored: "pass" | "retry";
  /** @param bytes > 0, within the length */
  look(offset: number, bytes: number): Promise<Run>;
  copy(task: LinearTask): Promise<void>;
  /** Makes what was copied last. */
  flush(): Promise<void>;
}

export class LinearCopy {
  readonly #job: BlockJob;
  readonly #work: LinearWork;
  readonly #chunkBytes: number;
  readonly #window: CopyWindow<LinearTask>;
  readonly #retry: LinearTask[] = [];
  /** Everything below is done, under way, waiting to be tried again, or left out. */
  #offset = 0;
  /** Up to here, from #offset on, one action is known to be due. */
  #runEnd = 0;
  #action: "copy" | "zero" = "copy";
  #isBackOffDue = false;
  #firstIgnored: BlockError | null = null;
  #unflushedBytes = 0;
  #flushedAtMs: number;

  constructor(job: BlockJob, work: LinearWork) {
    this.#job = job;
    this.#work = work;
    this.#chunkBytes = Math.max(CHUNK_BYTES, work.granule);
    this.#flushedAtMs = job.clock.now();
    this.#window = new CopyWindow<LinearTask>(COPIES_IN_FLIGHT, (task) => this.#copy(task));
  }

  /** @throws BlockError by the policy `report`; with `pass` the first one that was ignored */
  async run(): Promise<void> {
    const job = this.#job;
    job.progress.setRemaining(this.#work.length);
    try {
      for (let more = true; more; ) {
        await job.turn();
        if (job.cancelled) return;
        this.#askPolicy();
        if (this.#isBackOffDue) await this.#backOff();
        else if (!job.userPaused) more = await this.#step();
      }
    } finally {
      await this.#window.drain();
    }
    // What was left out is still read from below, so the chain must stay: the job has failed, even
    // though every byte was visited.
    if (this.#firstIgnored !== null) throw this.#firstIgnored;
  }

  /** Brings all activity to rest, before the job is paused. */
  async quiesce(): Promise<void> {
    await this.#window.drain();
    // The policy has said stop: what else fails of the window is more of the same.
    if (this.#job.ioStatus === "ok") return;
    for (const { task } of this.#window.takeFailed()) this.#tryAgain(task);
  }

  /** @returns false when all is done */
  async #step(): Promise<boolean> {
    if (this.#isFlushDue()) return this.#flush();
    const task = this.#retry.shift() ?? (await this.#nextTask());
    if (task) {
      await this.#window.room();
      this.#job.charge(this.#cost(task));
      this.#window.start(task);
      return true;
    }
    if (this.#offset < this.#work.length || this.#isBackOffDue) return true;
    // Its failures come first, those of a copy that has ended while we looked for more as well.
    if (!this.#window.isIdle || this.#window.hasFailed) {
      await this.#window.drain();
      return true;
    }
    // Here, so that a store that is full by now is the policy's matter and not prepare()'s.
    return this.#unflushedBytes > 0 ? this.#flush() : false;
  }

  /**
   * The next chunk, put together from as many runs of one action as it takes; null if something
   * was passed over instead, or none is left.
   */
  async #nextTask(): Promise<LinearTask | null> {
    try {
      while (this.#runEnd - this.#offset < this.#limit && (await this.#look())) {}
    } catch (error) {
      if (!(error instanceof BlockError) || this.#job.cancelled) throw error;
      // What was found before the trouble goes first; the trouble will still be there.
      if (this.#runEnd <= this.#offset) {
        const action = this.#decide(error);
        if (action === "ignore" && this.#work.whenIgnored === "pass") this.#pass(this.#chunkBytes);
        return null;
      }
    }
    const found = this.#runEnd - this.#offset;
    if (found <= 0) return null;
    let bytes = Math.min(this.#limit, found);
    const atCluster = alignDown(this.#offset + bytes, this.#work.granule) - this.#offset;
    if (bytes < found && atCluster > 0) bytes = atCluster;
    const task = { offset: this.#offset, bytes, action: this.#action, isRetry: false };
    this.#offset += bytes;
    return task;
  }

  /** Bytes that move for a task: whole clusters, up to the end of the disk. */
  #cost({ offset, bytes }: LinearTask): number {
    const { granule, length } = this.#work;
    const end = Math.min(alignUp(offset + bytes, granule), Math.max(length, offset + bytes));
    return end - alignDown(offset, granule);
  }

  /** Most bytes of the next chunk. */
  get #limit(): number {
    const isFree = this.#action === "zero" && this.#job.speed === 0;
    return isFree ? Math.max(ZERO_CHUNK_BYTES, this.#chunkBytes) : this.#chunkBytes;
  }

  /** Looks at one more run. @returns false if it does not belong to the chunk at hand */
  async #look(): Promise<boolean> {
    const at = Math.max(this.#offset, this.#runEnd);
    const { length } = this.#work;
    if (at >= length) return false;
    const { bytes, action } = await this.#work.look(at, length - at);
    if (at === this.#offset) {
      if (action === "pass") this.#pass(bytes);
      else this.#action = action;
      if (action === "pass") return false;
    } else if (action !== this.#action) return false;
    this.#runEnd = at + bytes;
    return true;
  }

  /** Leaves bytes as they are. */
  #pass(bytes: number): void {
    const passed = Math.min(bytes, this.#work.length - this.#offset);
    this.#job.progress.workDone(passed);
    this.#offset += passed;
  }

  async #copy(task: LinearTask): Promise<void> {
    await this.#work.copy(task);
    this.#unflushedBytes += task.bytes;
    this.#job.progress.workDone(task.bytes);
    if (task.isRetry) this.#job.resetBackOff();
  }

  #askPolicy(): void {
    for (const { task, error } of this.#window.takeFailed()) {
      const isStopping = this.#job.ioStatus !== "ok";
      const action = isStopping ? "stop" : this.#decide(error);
      const isLeftOut = action === "ignore" && this.#work.whenIgnored === "pass";
      if (isLeftOut) this.#job.progress.workDone(task.bytes);
      else this.#tryAgain(task);
    }
  }

  #tryAgain(task: LinearTask): void {
    this.#retry.push({ ...task, isRetry: true });
  }

  /** @throws the error, if the policy is to report it */
  #decide(error: BlockError): "stop" | "ignore" {
    const action = this.#job.onError(error);
    if (action === "report") throw error;
    if (action === "ignore") {
      if (this.#work.whenIgnored === "pass") this.#firstIgnored ??= error;
      else this.#isBackOffDue = true;
    }
    return action;
  }

  async #backOff(): Promise<void> {
    this.#isBackOffDue = false;
    await this.#job.backOff();
  }

  #isFlushDue(): boolean {
    if (this.#unflushedBytes === 0) return false;
    if (this.#unflushedBytes >= FLUSH_EVERY_BYTES) return true;
    return this.#job.clock.now() - this.#flushedAtMs >= FLUSH_EVERY_MS;
  }

  async #flush(): Promise<true> {
    const bytes = this.#unflushedBytes;
    this.#unflushedBytes = 0;
    try {
      await this.#work.flush();
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      const isPassed = this.#decide(error) === "ignore" && this.#work.whenIgnored === "pass";
      if (!isPassed) this.#unflushedBytes += bytes;
    }
    this.#flushedAtMs = this.#job.clock.now();
    return true;
  }
}
