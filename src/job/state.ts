/**
 * What can be seen of a job, and the three ways in which it changes: it moves, it tells, it fails.
 *
 * Whatever a driver or a listener throws comes through here. A BlockError is a result. Anything else
 * is a bug: it goes to the engine, and the job goes on to a failed end, so that nobody waits for it.
 */

import type { Clock } from "../base/clock.ts";
import { assert, BlockError } from "../base/errors.ts";
import { ProgressMeter } from "../base/progress.ts";
import type { Trace } from "../base/trace.ts";
import type { JobCompletion, JobDriver, JobEvent, JobInfo, JobListener } from "./driver.ts";
import type { Job } from "./job.ts";
import type { JobList } from "./list.ts";
import { isCompleted, type JobStatus, mayMove } from "./status.ts";
import { JobTxn } from "./txn.ts";

export interface JobOptions {
  /** Null for an internal job: no query shows it and no status event tells of it. */
  readonly id: string | null;
  readonly driver: JobDriver;
  readonly clock: Clock;
  readonly list: JobList;
  /** The group to end with; a fresh one of its own if left out. */
  readonly txn?: JobTxn | undefined;
  /** False: stays pending until the user finalizes it. Default true. */
  readonly autoFinalize?: boolean | undefined;
  /** False: stays concluded, and queryable, until the user dismisses it. Default true. */
  readonly autoDismiss?: boolean | undefined;
  /** The first listener: it hears "created", too. */
  readonly onEvent?: JobListener | undefined;
  readonly cb?: JobCompletion | undefined;
}

export abstract class JobState {
  readonly id: string | null;
  readonly driver: JobDriver;
  readonly clock: Clock;
  readonly txn: JobTxn;
  readonly autoFinalize: boolean;
  readonly autoDismiss: boolean;
  readonly progress = new ProgressMeter();
  /** Raised on force cancel, with a BlockError ECANCELED. For all waits of run(). */
  readonly signal: AbortSignal;

  protected readonly options: JobOptions;
  readonly #abort = new AbortController();
  readonly #listeners = new Set<JobListener>();
  #status: JobStatus = "undefined";
  #error: BlockError | null = null;
  /** What it has brought about is there to stay, though it has not ended yet: see JobDriver.journal. */
  hasTakenEffect = false;
  /** It was started by a change that may yet not come to be: until that counts it is on record as not started. */
  isProvisional = false;
  protected wasStarted = false;
  protected runIsOver = false;
  protected wasCancelled = false;

  constructor(options: JobOptions) {
    this.options = options;
    this.id = options.id;
    this.driver = options.driver;
    this.clock = options.clock;
    this.txn = options.txn ?? new JobTxn();
    this.autoFinalize = options.autoFinalize ?? true;
    this.autoDismiss = options.autoDismiss ?? true;
    this.signal = this.#abort.signal;
    if (options.onEvent) this.#listeners.add(options.onEvent);
  }

  /** No query shows it, and no status event tells of it. */
  get internal(): boolean {
    return this.id === null;
  }

  get trace(): Trace | undefined {
    return this.options.list.hooks.trace;
  }

  get status(): JobStatus {
    return this.#status;
  }

  /** Why the job failed; null is success so far. Final when concluded. */
  get error(): BlockError | null {
    return this.#error;
  }

  /** Force-cancelled: all that run() and its helpers need to look at. */
  get cancelled(): boolean {
    return this.signal.aborted;
  }

  /** Cancelled in either way. */
  get cancelRequested(): boolean {
    return this.wasCancelled;
  }

  get started(): boolean {
    return this.wasStarted;
  }

  /** run() is over: nothing can be asked of it any more. */
  get deferred(): boolean {
    return this.runIsOver;
  }

  /** waiting or later: the work is over, well or not. */
  get completed(): boolean {
    return isCompleted(this.#status);
  }

  /** Converged: ready or standby. */
  get ready(): boolean {
    return this.#status === "ready" || this.#status === "standby";
  }

  /**
   * Tells of what the job does from now on, in the same turn, after those who listened before.
   *
   * @returns ends it; harmless when called twice
   */
  listen(listener: JobListener): () => void {
    // A listener of its own for each call: the same function may be added twice.
    const added: JobListener = (event, job) => listener(event, job);
    this.#listeners.add(added);
    return () => this.#listeners.delete(added);
  }

  /** The entry of query-jobs; only for a job with an id. */
  query(): JobInfo {
    assert(this.id !== null, "internal jobs are not shown");
    return {
      id: this.id,
      type: this.driver.type,
      status: this.#status,
      "current-progress": this.progress.current,
      "total-progress": this.progress.total,
      ...(this.#error && { error: this.#error.message }),
    };
  }

  /** The job itself, for those who are handed one. */
  protected abstract readonly self: Job;

  /** A wrong move is our mistake: the end of the engine. */
  protected move(to: JobStatus): void {
    const from = this.#status;
    assert(mayMove(from, to), `job '${this.id}' may go from ${from} to ${to}`);
    if (from === to) return;
    this.#status = to;
    const { id } = this;
    this.trace?.job_state_transition?.(id ?? "", from, to);
    if (id !== null) {
      this.guard(() => this.options.list.hooks.onStatus?.({ id, status: to }));
    }
    this.tell({ kind: "status", status: to });
  }

  protected tell(event: JobEvent): void {
    for (const listener of [...this.#listeners]) {
      if (this.#listeners.has(listener)) this.guard(() => listener(event, this.self));
    }
  }

  protected forceCancel(): void {
    this.#abort.abort(canceled());
  }

  /** Keeps the first failure. */
  protected fail(reason: unknown): void {
    const error = reason instanceof BlockError ? reason : this.bug(reason);
    this.#error ??= error;
  }

  /** A cancel counts as a failure; a failure moves to aborting. */
  protected settle(): void {
    if (this.cancelled) this.#error ??= canceled();
    if (this.#error) this.move("aborting");
  }

  /** For steps that come when there is no way back: nothing they throw may pass for success. */
  protected async mustNotFail(step: () => void | Promise<void>): Promise<void> {
    try {
      await step();
    } catch (reason) {
      const error = this.bug(reason);
      this.#error ??= error;
    }
  }

  /** For callbacks that must not throw, in places where the job has to go on. */
  protected guard(call: () => void): void {
    try {
      call();
    } catch (reason) {
      this.bug(reason);
    }
  }

  protected bug(reason: unknown): BlockError {
    this.options.list.hooks.onBug(reason, this.self);
    const text = reason instanceof Error ? reason.message : String(reason);
    return new BlockError("EIO", `Internal error in job '${this.id}': ${text}`, { cause: reason });
  }
}

function canceled(): BlockError {
  return new BlockError("ECANCELED", "Operation canceled");
}
