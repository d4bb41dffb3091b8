/**
 * blockJobAbort(): ends a job, by an abort or by a pivot. Asking for it takes the domain's job; waiting for
 * the end does not, so that everybody else can go on meanwhile. (In libvirt the wait holds it.)
 */

import { beforePivot, takeBackPivot } from "./bitmaps.ts";
import { TWO_PHASE } from "./enums.ts";
import { DomainError } from "./errors.ts";
import { BLOCK_JOB_ABORT } from "./flags.ts";
import type { Operation } from "./operation.ts";
import type { JobRecord } from "./record.ts";
import { activeJobOf, isRefused } from "./start-job.ts";

/** @returns which job it was: its end is still to come */
export async function requestEnd(op: Operation, name: string, flags: number): Promise<JobRecord> {
  const { target } = op.disk(name);
  const job = activeJobOf(op, target);
  if (job.state === "aborting" || job.state === "pivoting") {
    throw new DomainError("OPERATION_INVALID", `The job of disk '${target}' is still being ended`);
  }
  if (flags & BLOCK_JOB_ABORT.PIVOT) await pivot(op, job);
  else await abort(op, job);
  return job;
}

async function pivot(op: Operation, job: JobRecord): Promise<void> {
  if (job.state !== "ready") {
    const text = `The job of disk '${job.disk}' is not ready: there is nothing to pivot to`;
    throw new DomainError("BLOCK_COPY_ACTIVE", text);
  }
  job.state = "pivoting";
  await op.save();
  try {
    await beforePivot(op, job);
    await op.execute("job-complete", { id: job.name });
  } catch (error) {
    if (!isRefused(error) || !op.job(job.serial)) throw error;
    await takeBackPivot(op, job);
    job.state = "ready";
    await op.save();
    throw error;
  }
}

/** Of a job that is ready it is a good end: the copy stands as it is at this moment. */
async function abort(op: Operation, job: JobRecord): Promise<void> {
  const before = job.state;
  job.state = "aborting";
  await op.save();
  try {
    // One that stands still, paused by somebody or by an error, ends, too.
    const force = !TWO_PHASE.includes(job.kind);
    await op.execute("block-job-cancel", { device: job.name, force });
  } catch (error) {
    if (!isRefused(error) || !op.job(job.serial)) throw error;
    job.state = before;
    await op.save();
    throw error;
  }
}

/** @throws DomainError OPERATION_FAILED: the pivot has not worked, the disk is where it was */
export function checkEnd(ended: JobRecord, flags: number): void {
  if (!(flags & BLOCK_JOB_ABORT.PIVOT) || ended.state !== "failed") return;
  const why = ended.error ?? "the engine does not say why";
  const text = `The pivot of disk '${ended.disk}' has failed: ${why}`;
  throw new DomainError("OPERATION_FAILED", text);
}
