/**
 * What a user may ask of a job: job-pause, job-resume, job-cancel, job-complete, job-finalize,
 * job-dismiss, with the checks that stand between a client and the job. Code that drains nodes or
 * shuts down calls Job itself.
 *
 * Each takes effect before it returns, and its promise settles when QMP should reply. The order of
 * the checks decides which of two refusals a client sees. (QEMU: job-qmp.c, job_user_* in job.c.)
 */

import { BlockError } from "../base/errors.ts";
import type { Job } from "./job.ts";
import { type JobVerb, mayApply } from "./status.ts";

/** @throws BlockError EPERM unless the verb applies to the job's status */
export function checkVerb(job: Job, verb: JobVerb): void {
  const allowed = mayApply(verb, job.status);
  job.trace?.job_apply_verb?.(job.id ?? "", verb, job.status, allowed);
  if (!allowed) refuse(job, verb, `while it is ${job.status}`);
}

/** All of these throw BlockError EPERM to refuse. */
export const verbs = {
  async pause(job: Job): Promise<void> {
    checkVerb(job, "pause");
    if (job.userPaused) refuse(job, "pause", "as it is paused already");
    job.userPause();
  },

  async resume(job: Job): Promise<void> {
    if (!job.userPaused) refuse(job, "resume", `as it is not paused; it is ${job.status}`);
    checkVerb(job, "resume");
    job.userResume();
  },

  /**
   * @param force false (block-job-cancel only) asks a driver that knows of it for an orderly end
   *
   * Settles at once if the job has to wind down first; else with the end of the job.
   */
  async cancel(job: Job, force: boolean): Promise<void> {
    if (!force && job.userPaused) refuse(job, "cancel", "as it is paused: resume it, or use force");
    checkVerb(job, "cancel");
    if (job.txn.phase === "finalizing") refuse(job, "cancel", "while it is being finalized");
    const atWork = job.started && !job.deferred;
    job.cancel(force);
    if (job.cancelled && !atWork) await job.finished;
  },

  /**
   * Settles when the driver has taken note; the job ends later. A second one on a job that is still
   * ready is no error. @throws BlockError of the driver's, too
   */
  async complete(job: Job): Promise<void> {
    checkVerb(job, "complete");
    if (job.cancelRequested) refuse(job, "complete", "as it is being cancelled");
    if (!job.driver.complete) refuse(job, "complete", "as it ends by itself");
    await job.driver.complete(job);
  },

  /** Finalizes the job's whole group; settles with its end. How that went is in the jobs. */
  async finalize(job: Job): Promise<void> {
    checkVerb(job, "finalize");
    if (job.txn.phase !== "open") refuse(job, "finalize", `while its group is ${job.txn.phase}`);
    const pending = job.txn.members.every((member) => member.status === "pending");
    if (!pending) refuse(job, "finalize", "while others of its group are not pending");
    await job.txn.finalize();
  },

  async dismiss(job: Job): Promise<void> {
    checkVerb(job, "dismiss");
    job.dismiss();
  },
};

function refuse(job: Job, verb: JobVerb, why: string): never {
  throw new BlockError("EPERM", `'${verb}' does not apply to job '${job.id}' ${why}`);
}
