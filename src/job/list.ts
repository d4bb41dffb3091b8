/**
 * All jobs of an engine, newest first: names, queries, and an orderly end for everybody.
 *
 * Internal jobs have no id. They are in the list, so that shutdown ends them too, but no query shows
 * them and no event tells of them.
 */

import { assert, BlockError } from "../base/errors.ts";
import type { Trace } from "../base/trace.ts";
import type { JobInfo } from "./driver.ts";
import type { Job } from "./job.ts";
import type { JobStatus } from "./status.ts";

export interface JobListHooks {
  /** A named job has moved: JOB_STATUS_CHANGE. Called before anything else happens. */
  onStatus?(event: { readonly id: string; readonly status: JobStatus }): void;
  /**
   * Something that is not a BlockError was thrown in a job: our bug. The job ends as failed, but the
   * engine should stop. Must not throw.
   */
  onBug(bug: unknown, job: Job): void;
  /**
   * A named job is about to run for the first time.
   *
   * @returns when it may
   */
  beforeRun?(job: Job): Promise<void>;
  /**
   * What a named job has brought about is there to stay (Job.hasTakenEffect), and it is about to clean up.
   *
   * @returns when it may. Rejects if the engine has stopped: it must not, then
   */
  beforeClean?(job: Job): Promise<void>;
  /** Where jobs can be watched. */
  readonly trace?: Trace;
}

const ID = /^[A-Za-z][A-Za-z0-9\-._]*$/;

export class JobList {
  readonly hooks: JobListHooks;
  readonly #jobs: Job[] = [];

  constructor(hooks: JobListHooks) {
    this.hooks = hooks;
  }

  /** Newest first, internal ones included. A snapshot: the list may change while it is walked. */
  all(): readonly Job[] {
    return [...this.#jobs];
  }

  find(id: string): Job | undefined {
    return this.#jobs.find((job) => job.id === id);
  }

  /** @throws BlockError ENOENT (GenericError) */
  get(id: string): Job {
    const job = this.find(id);
    if (job === undefined) throw new BlockError("ENOENT", `Job '${id}' not found`);
    return job;
  }

  /** query-jobs: newest first. */
  query(): JobInfo[] {
    return this.#jobs.filter((job) => job.id !== null).map((job) => job.query());
  }

  /**
   * @throws BlockError EINVAL unless it is a letter followed by letters, digits, '-', '.' and '_'
   * @throws BlockError EEXIST if a job has it, a concluded one included
   */
  checkId(id: string): void {
    if (!ID.test(id)) {
      throw new BlockError(
        "EINVAL",
        `Invalid job ID '${id}': expected a letter, then letters, digits, '-', '.' and '_'`,
      );
    }
    if (this.find(id)) throw new BlockError("EEXIST", `Job ID '${id}' is already in use`);
  }

  /** For Job's constructor. */
  add(job: Job): void {
    if (job.id !== null) this.checkId(job.id);
    this.#jobs.unshift(job);
  }

  /** For Job: it is about to be null. */
  remove(job: Job): void {
    const at = this.#jobs.indexOf(job);
    assert(at !== -1, "a job leaves the list once");
    this.#jobs.splice(at, 1);
  }

  /**
   * Shutdown: cancels all by force, all at once, waits for their ends, and dismisses what is left, the
   * newest first. Jobs that are just being finalized come to their own end. Resolves when the list is empty.
   */
  async cancelAll(): Promise<void> {
    while (this.#jobs.length > 0) {
      const jobs = this.all();
      for (const job of jobs) if (job.status !== "concluded") job.cancel(true);
      for (const job of jobs) {
        if (job.status === "concluded") job.cancel(true);
        await job.finished;
      }
    }
  }
}
