/**
 * The work of block-stream, from the first byte to the last: whose is this range? copy it up if a
 * lower layer decides it, and tell (QEMU: stream_run() in block/stream.c).
 *
 *   turn ─▶ failures? ask the policy ─▶ next task: one to try again, or the next inherited run ─┐
 *    ▲                                                                                         │
 *    └────────────────── charge it, start it; it reports its own progress ◀────────────────────┘
 */

import { KiB, MiB } from "../base/bytes.ts";
import { BlockError } from "../base/errors.ts";
import type { BlockBackend } from "../block/backend.ts";
import * as io from "../block/io.ts";
import type { BlockNode } from "../block/node.ts";
import { chainStatus } from "../block/status.ts";
import type { BlockJob } from "./block-job.ts";
import { type CopyTask, CopyWindow } from "./copy-window.ts";

/** Most bytes of one copy; with a speed limit also the most that go out in one burst. */
const CHUNK_BYTES = 512 * KiB;
/** Copies under way at once; each holds one buffer of its clusters. */
const COPIES_IN_FLIGHT = 6;
/** A closed tab or a crash costs at most this much work. */
const FLUSH_EVERY_MS = 2000;
const FLUSH_EVERY_BYTES = 256 * MiB;

export class StreamRun {
  readonly #job: BlockJob;
  readonly #source: BlockBackend;
  readonly #overlay: BlockNode;
  readonly #base: BlockNode | null;
  readonly #length: number;
  readonly #window: CopyWindow;
  readonly #retry: CopyTask[] = [];
  /** Everything below is copied, under way, waiting to be tried again, or left out. */
  #offset = 0;
  /** Up to here, from #offset on, lower layers are known to decide. */
  #inheritedEnd = 0;
  #firstIgnored: BlockError | null = null;
  #unflushedBytes = 0;
  #flushedAtMs: number;

  /**
   * @param source the job's way to the copy-on-read filter over `overlay`
   * @param base the layer that stays below; null: the whole chain is streamed
   */
  constructor(job: BlockJob, source: BlockBackend, overlay: BlockNode, base: BlockNode | null) {
    this.#job = job;
    this.#source = source;
    this.#overlay = overlay;
    this.#base = base;
    this.#length = source.length;
    this.#flushedAtMs = job.clock.now();
    this.#window = new CopyWindow(COPIES_IN_FLIGHT, (task) => this.#copy(task));
  }

  async run(): Promise<void> {
    const job = this.#job;
    job.progress.setRemaining(this.#length);
    try {
      for (let more = true; more; ) {
        await job.turn();
        if (job.cancelled) return;
        this.#askPolicy();
        if (!job.userPaused) more = await this.#step();
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
    for (const { task } of this.#window.takeFailed()) this.#retry.push(task);
  }

  /** @returns false when all is done */
  async #step(): Promise<boolean> {
    if (this.#isFlushDue()) return this.#flush();
    const task = this.#retry.shift() ?? (await this.#nextInherited());
    if (task) {
      await this.#window.room();
      this.#job.charge(task.bytes);
      this.#window.start(task);
      return true;
    }
    if (this.#offset < this.#length) return true;
    if (!this.#window.isIdle) {
      await this.#window.drain();
      return true; // Its failures come first.
    }
    // Here, so that a store that is full by now is the policy's matter and not prepare()'s.
    return this.#unflushedBytes > 0 ? this.#flush() : false;
  }

  /**
   * The next chunk that lower layers decide, put together from as many runs as it takes; null if
   * something was passed over instead, or none is left.
   */
  async #nextInherited(): Promise<CopyTask | null> {
    try {
      while (this.#inheritedEnd - this.#offset < CHUNK_BYTES && (await this.#look())) {}
    } catch (error) {
      if (!(error instanceof BlockError) || this.#job.cancelled) throw error;
      // What was found before the trouble goes first; the trouble will still be there.
      if (this.#inheritedEnd <= this.#offset) {
        if (this.#decide(error) === "ignore") this.#pass(CHUNK_BYTES);
        return null;
      }
    }
    const bytes = Math.min(CHUNK_BYTES, this.#inheritedEnd - this.#offset);
    if (bytes <= 0) return null;
    const task = { offset: this.#offset, bytes };
    this.#offset += bytes;
    return task;
  }

  /** Asks who decides the next run. @returns false if it is not to be copied, or there is none */
  async #look(): Promise<boolean> {
    const at = Math.max(this.#offset, this.#inheritedEnd);
    if (at >= this.#length) return false;
    const run = await chainStatus(this.#overlay, this.#base, at, this.#length - at);
    const inherited = run.node !== null && run.node !== this.#overlay;
    // With no backing file left, what the overlay does not hold reads as zeroes by itself.
    if (inherited && !(run.zero && this.#base === null)) {
      this.#inheritedEnd = at + run.bytes;
      return true;
    }
    if (at === this.#offset) this.#pass(run.bytes);
    return false;
  }

  /** Leaves bytes as they are. */
  #pass(bytes: number): void {
    const passed = Math.min(bytes, this.#length - this.#offset);
    this.#job.progress.workDone(passed);
    this.#offset += passed;
  }

  async #copy({ offset, bytes }: CopyTask): Promise<void> {
    await this.#source.copyUp(offset, bytes, { signal: this.#job.signal });
    this.#unflushedBytes += bytes;
    this.#job.progress.workDone(bytes);
  }

  #askPolicy(): void {
    for (const { task, error } of this.#window.takeFailed()) {
      const isStopping = this.#job.ioStatus !== "ok";
      if (isStopping || this.#decide(error) === "stop") this.#retry.push(task);
      else this.#job.progress.workDone(task.bytes);
    }
  }

  /** @throws the error, if the policy is to report it */
  #decide(error: BlockError): "stop" | "ignore" {
    const action = this.#job.onError(error);
    if (action === "report") throw error;
    if (action === "ignore") this.#firstIgnored ??= error;
    return action;
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
      await io.flush(this.#overlay);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      const at = { node: this.#overlay.name, op: "flush", offset: 0, bytes: 0 } as const;
      const told = new BlockError(error.errno, error.message, { at, cause: error });
      if (this.#decide(told) === "stop") this.#unflushedBytes += bytes;
    }
    this.#flushedAtMs = this.#job.clock.now();
    return true;
  }
}
