/**
 * The work of a backup: everything that is still to be copied, a few clusters at a time, while guests'
 * writes copy what they are about to overwrite themselves (QEMU: backup_run() in block/backup.c).
 *
 *   room ─▶ turn ─▶ failures? wait for the rest, ask the policy ─▶ take a run, charge it, start it ─┐
 *    ▲                                                                                             │
 *    └─────────────────────────────────────────────────────────────────────────────────────────────┘
 *
 * It is done when no cluster is left to be copied and nobody is at one, a guest's write included.
 */

import { BlockError } from "../base/errors.ts";
import type { BlockCopy, CopyTask } from "../block/block-copy.ts";
import type { CopySide } from "../block/copy-mover.ts";
import * as io from "../block/io.ts";
import type { CopyBeforeWrite } from "../drivers/filter/copy-before-write.ts";
import type { BackupIntent } from "./backup-intent.ts";
import type { BackupPlan } from "./backup-options.ts";
import type { BlockJob } from "./block-job.ts";
import { CopyWindow } from "./copy-window.ts";

export class BackupRun {
  readonly #job: BlockJob;
  readonly #plan: BackupPlan;
  readonly #filter: CopyBeforeWrite;
  readonly #copy: BlockCopy;
  readonly #intent: BackupIntent | null;
  readonly #window: CopyWindow<CopyTask>;
  readonly #taskBytes: number;
  readonly #failed: { readonly error: BlockError; readonly side: CopySide }[] = [];
  /** Where to look next for what is to be copied; from the end it goes on at the beginning. */
  #cursor = 0;

  constructor(
    job: BlockJob,
    plan: BackupPlan,
    filter: CopyBeforeWrite,
    intent: BackupIntent | null,
  ) {
    this.#intent = intent;
    this.#job = job;
    this.#plan = plan;
    this.#filter = filter;
    this.#copy = filter.copy;
    this.#taskBytes = this.#copy.taskBytes(plan.maxChunk);
    this.#window = new CopyWindow(plan.maxWorkers, (task) => this.#run(task));
  }

  async run(): Promise<void> {
    const job = this.#job;
    this.#filter.onBroken = () => job.enter();
    try {
      if (this.#plan.sync === "none") return await this.#wait();
      if (this.#plan.sync === "top") await this.#leaveOutInherited();
      do await this.#copyAll();
      while (!(await this.#flush()));
    } finally {
      this.#filter.onBroken = null;
      await this.quiesce();
    }
  }

  /** Brings all activity to rest, before the job is paused. */
  async quiesce(): Promise<void> {
    await this.#window.drain();
    await this.#intent?.rest();
  }

  /** sync=none: all work is done by those who write. */
  async #wait(): Promise<void> {
    while (!this.#job.cancelled) {
      this.#throwIfBroken();
      await this.#job.yield();
    }
  }

  /** Until nothing is left to be copied, or the job is cancelled. */
  async #copyAll(): Promise<void> {
    const job = this.#job;
    for (;;) {
      await this.#window.room();
      // Nothing is owed for what is under way: its end need not be waited for by the speed limit.
      const isAllTaken = this.#copy.dirty.count === 0;
      if (isAllTaken) await job.pausePoint();
      else await job.turn(() => this.#failed.length > 0 || this.#filter.broken !== null);
      if (job.cancelled) return;
      this.#throwIfBroken();
      if (this.#failed.length > 0) {
        await this.#askPolicy();
        continue;
      }
      this.#intent?.sweep(job.clock.now(), (error) => this.#fail(error, "target"));
      // A guest's copy has failed and left it to us: that is not paid for yet.
      if (isAllTaken && this.#copy.dirty.count > 0) continue;
      const task = this.#take();
      if (task) {
        job.charge(task.bytes);
        this.#window.start(task);
      } else if (!this.#window.isIdle) {
        await this.#window.drain();
      } else if (!this.#copy.isIdle) {
        await this.#copy.taskEnded(job.signal); // A guest's, which may fail and leave it to us.
      } else {
        // What a sweep's flush could not write is not told by the last one again.
        await this.#intent?.rest();
        if (this.#failed.length === 0) return;
      }
    }
  }

  #take(): CopyTask | null {
    const { length } = this.#copy;
    const task =
      this.#copy.take(this.#cursor, length, this.#taskBytes) ??
      this.#copy.take(0, length, this.#taskBytes);
    if (task) this.#cursor = task.offset + task.bytes;
    return task;
  }

  async #run(task: CopyTask): Promise<void> {
    let hasFailed = false;
    try {
      await this.#copy.run(task, this.#job.signal, (error, side) => {
        hasFailed = true;
        this.#fail(error, side);
      });
      this.#job.resetBackOff();
    } catch (error) {
      if (!hasFailed) throw error;
    }
  }

  #fail(error: BlockError, side: CopySide): void {
    this.#failed.push({ error, side });
    this.#job.endSleep();
  }

  /** Whoever hears of the error finds the job with nothing in flight. One question for all. */
  async #askPolicy(): Promise<void> {
    await this.#window.drain();
    const [first] = this.#failed.splice(0);
    if (first && !this.#job.cancelled) await this.#decide(first.error, first.side);
  }

  /** @throws the error, if the policy is to report it */
  async #decide(error: BlockError, side: CopySide): Promise<void> {
    const action = this.#job.onError(error, side);
    if (action === "report") throw error;
    // After a stop, what failed comes first; else the rest of the disk does.
    if (action === "stop") this.#cursor = 0;
    else await this.#job.backOff();
  }

  /** What the source's own layer does not hold is not copied. */
  async #leaveOutInherited(): Promise<void> {
    const copy = this.#copy;
    for (let at = 0; at < copy.length; ) {
      await this.#job.turn();
      if (this.#job.cancelled) return;
      this.#throwIfBroken();
      const run = await this.#allocation(at);
      // It was so at the start, too: who allocates here since then has seen to its copy first.
      if (!run.allocated) copy.leaveOut(at, run.bytes);
      at += run.bytes;
    }
    copy.inheritedFrom(undefined);
  }

  async #allocation(offset: number): Promise<{ bytes: number; allocated: boolean }> {
    try {
      return await this.#copy.allocation(offset);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      // Then it has to be read, and the policy will hear of it.
      const bytes = Math.min(this.#copy.clusterSize, this.#copy.length - offset);
      return { bytes, allocated: true };
    }
  }

  /** Makes the copy last. @returns false if that is to be tried again */
  async #flush(): Promise<boolean> {
    if (this.#job.cancelled) return true;
    const { target } = this.#plan;
    try {
      await io.flush(target);
      return true;
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      const at = { node: target.name, op: "flush", offset: 0, bytes: 0 } as const;
      await this.#decide(
        new BlockError(error.errno, error.message, { at, cause: error }),
        "target",
      );
      return false;
    }
  }

  #throwIfBroken(): void {
    if (this.#filter.broken) throw this.#filter.broken;
  }
}
