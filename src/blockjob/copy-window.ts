/**
 * A few copies under way at once, and what became of those that failed.
 *
 * QEMU streams and commits one request at a time; over HTTP that would be a round trip of waiting
 * for each. The window keeps `depth` copies going. A failed one is kept with its error for the job
 * to decide on: to be tried again, left out, or the end of it all.
 */

import { BlockError } from "../base/errors.ts";

export interface CopyTask {
  readonly offset: number;
  readonly bytes: number;
}

export interface FailedTask<Task extends CopyTask = CopyTask> {
  readonly task: Task;
  readonly error: BlockError;
}

export class CopyWindow<Task extends CopyTask = CopyTask> {
  readonly #depth: number;
  readonly #copy: (task: Task) => Promise<void>;
  readonly #running = new Set<Promise<void>>();
  readonly #failed: FailedTask<Task>[] = [];
  /** Not a BlockError: a bug, to be thrown where the job can see it. */
  #bug: { reason: unknown } | null = null;

  constructor(depth: number, copy: (task: Task) => Promise<void>) {
    this.#depth = depth;
    this.#copy = copy;
  }

  get isIdle(): boolean {
    return this.#running.size === 0;
  }

  /** Somebody has to decide on what failed before the work is done. */
  get hasFailed(): boolean {
    return this.#failed.length > 0;
  }

  /** Begins a copy. Wait for room() first. */
  start(task: Task): void {
    const running = this.#copy(task).then(
      () => {},
      (reason) => {
        if (reason instanceof BlockError) this.#failed.push({ task, error: reason });
        else this.#bug ??= { reason };
      },
    );
    const counted = running.then(() => {
      this.#running.delete(counted);
    });
    this.#running.add(counted);
  }

  /** Until one more copy may begin. */
  async room(): Promise<void> {
    while (this.#running.size >= this.#depth) await Promise.race(this.#running);
    this.#throwBug();
  }

  /** Until nothing is under way. */
  async drain(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
    this.#throwBug();
  }

  /** The failures since the last call, in the order in which they happened. */
  takeFailed(): FailedTask<Task>[] {
    return this.#failed.splice(0);
  }

  #throwBug(): void {
    if (this.#bug) throw this.#bug.reason;
  }
}
