/**
 * Ask, then wait for the end: where QEMU spins in a nested event loop until a job is done, here is a
 * promise. Everything may change while it is awaited, so what it settles with is the job's own
 * result and nothing remembered from before. (QEMU: job_finish_sync, job_cancel_sync and
 * job_complete_sync in job.c; job_cancel_sync_all is JobList.cancelAll.)
 *
 * All of these settle once the job is concluded, its `cb` called, or at rest: pending, with nobody
 * but the user to finalize it. QEMU's return as soon as the work is done, which its own header
 * denies, and hang on a job that stays paused; here `signal` ends the wait.
 */

import { BlockError, throwIfAborted } from "../base/errors.ts";
import type { Job } from "./job.ts";
import { verbs } from "./verbs.ts";

/**
 * Waits for the end of a job.
 *
 * @param ask what makes the job end; left out, it ends by itself
 * @param signal ends the wait, not the job
 * @returns the job's result; null is success
 * @throws BlockError of `ask`; ECANCELED if the signal is raised
 */
export async function finishSync(
  job: Job,
  ask?: (job: Job) => void | Promise<void>,
  signal?: AbortSignal,
): Promise<BlockError | null> {
  throwIfAborted(signal);
  await ask?.(job);
  // What is at rest in one turn may be cancelled in the next.
  while (!isAtRest(job)) await moves(job, signal);
  return job.error;
}

/**
 * Cancels, whatever the status; see Job.cancel(). Softly asked, the job may come to a good end.
 *
 * @returns as finishSync()
 */
export function cancelSync(
  job: Job,
  force: boolean,
  signal?: AbortSignal,
): Promise<BlockError | null> {
  return finishSync(job, () => job.cancel(force), signal);
}

/**
 * Lets a ready job come to its end.
 *
 * @returns as finishSync()
 * @throws BlockError EPERM, or the driver's, if it cannot be completed now
 */
export function completeSync(job: Job, signal?: AbortSignal): Promise<BlockError | null> {
  return finishSync(job, verbs.complete, signal);
}

/** Until the job moves. @throws BlockError ECANCELED if the signal is raised */
function moves(job: Job, signal: AbortSignal | undefined): Promise<void> {
  throwIfAborted(signal);
  return new Promise((resolve, reject) => {
    const done = (settle: () => void) => {
      unlisten();
      signal?.removeEventListener("abort", stop);
      settle();
    };
    const stop = () => done(() => reject(new BlockError("ECANCELED", "Operation canceled")));
    const unlisten = job.listen(({ kind }) => {
      if (kind === "status") done(resolve);
    });
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Nothing happens to it any more unless somebody asks. */
function isAtRest({ status, txn }: Job): boolean {
  if (status === "concluded" || status === "null") return true;
  const manual = txn.members.some((member) => !member.autoFinalize);
  return status === "pending" && txn.phase === "open" && manual;
}
