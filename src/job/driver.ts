/**
 * The contract between the job floor and what a job does: one table with holes, in the order of a
 * life. (QEMU: struct JobDriver in include/qemu/job.h.)
 *
 *   run ── pause · resume · userResume · complete · cancel ──▶ prepare ──▶ commit ──▶ clean ──▶ free
 *    │                                                            │
 *    └── failed, cancelled, or never started ─────────────────────┴─────▶ abort ──▶ clean ──▶ free
 *
 * Promises of the job floor:
 *  1. Every job that was created ends with exactly one of commit and abort, then exactly one clean,
 *     then exactly one call of the creator's `cb`, then exactly one free. The one exception is
 *     earlyFail(), which calls free alone.
 *  2. run and prepare are called at most once; never after abort. A job that was cancelled before it
 *     started goes to abort without run.
 *  3. At most one of run, prepare, commit, abort, clean is under way at a time.
 *
 * Promises of a driver:
 *  4. It calls job.pausePoint(), sleep() or yield() often, with no I/O in flight that pause() does
 *     not wait for, and after each of them (and after every other await) looks at job.cancelled.
 *  5. Once job.signal is raised, run ends soon. What waits with the signal throws ECANCELED, and
 *     run may let that through. abort, commit and clean do not wait with it: they would not get far.
 *  6. Only run, prepare and complete may fail, with a BlockError. All else that is thrown is a bug,
 *     goes to the list's onBug, and fails the job.
 */

import type { BlockError } from "../base/errors.ts";
import type { Job } from "./job.ts";
import type { JobStatus } from "./status.ts";

export interface JobDriver {
  /** QMP's JobType: "stream", "create", … */
  readonly type: string;

  /**
   * The work. Called after the first pause point, running. When it returns, the job waits for its
   * group; when it throws, the group is aborted.
   *
   * A run that did all its work and returns after a force cancel still ends as cancelled.
   */
  run(job: Job): Promise<void>;

  /** At a pause point, before the job is paused: bring all activity to rest. */
  pause?(job: Job): void | Promise<void>;

  /** Leaving the pause point. Follows every pause, also where the job was not parked after all. */
  resume?(job: Job): void | Promise<void>;

  /** The user's pause is over, by resume or cancel. Before resume. */
  userResume?(job: Job): void;

  /**
   * The user wants a ready job to end. Only asks for it: run ends when it is ready to. May come more
   * than once.
   *
   * @throws BlockError to refuse
   */
  complete?(job: Job): void | Promise<void>;

  /**
   * Somebody asked for a cancel; may come more than once, also when run has returned.
   *
   * @param force false asks for an early but orderly end
   * @returns whether this cancel is by force: the job gives up at once and its result is ECANCELED.
   *   False leaves it to run to come to a good end. Without this member every cancel is by force.
   */
  cancel?(job: Job, force: boolean): boolean;

  /** The last step that may fail. The whole group's work is done and finalizing was allowed. */
  prepare?(job: Job): void | Promise<void>;

  /** All of the group succeeded. */
  commit?(job: Job): void | Promise<void>;

  /** One of the group failed or was cancelled. May come after a prepare that went well. */
  abort?(job: Job): void | Promise<void>;

  /** Right after commit or abort: let go of everything. */
  clean?(job: Job): void | Promise<void>;

  /** The job is null. */
  free?(job: Job): void;

  /**
   * What the job could be started again with after a crash, as JSON; asked at any time in its life, and
   * only where a record of jobs is kept (src/engine/journal/). Without it: it cannot be started again.
   */
  journal?(job: Job): object;
}

/**
 * What a job tells those who listen, in order (QEMU: the five notifier lists of a Job).
 *
 *   status               it has moved (an internal job too)
 *   ready                right after status ready
 *   pending              right after status pending, if it waits for the user to finalize it
 *   idle                 it has stopped working: parked, asleep, or run is over
 *   finalize-completed   committed or aborted, cleaned; status concluded comes next
 *   finalize-cancelled   the same after a force cancel
 *
 * A job that was never started tells neither of the last two.
 */
export type JobEvent =
  | { readonly kind: "status"; readonly status: JobStatus }
  | {
      readonly kind: "ready" | "pending" | "idle" | "finalize-completed" | "finalize-cancelled";
    };

/** Called in the turn in which the job says so; what it throws is a bug, and stops nobody. */
export type JobListener = (event: JobEvent, job: Job) => void;

/** One entry of query-jobs. Progress has no unit; `error` is there if the job failed. */
export interface JobInfo {
  readonly id: string;
  readonly type: string;
  readonly status: JobStatus;
  readonly "current-progress": number;
  readonly "total-progress": number;
  readonly error?: string;
}

/** Called once when the job has been cleaned; null is success. */
export type JobCompletion = (error: BlockError | null) => void;
