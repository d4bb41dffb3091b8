/**
 * The end of a backup: its disks end one by one, and what they come to together is told once.
 *
 *     a disk fails, or is cancelled, while others run    the others are called off
 *     none runs any more     any failed, or is not shown FAILED, with the first error
 *                            any cancelled, of a push    CANCELLED
 *                            else                        COMPLETED: a pull is ended by cancelling it
 *
 * Scratch files always go; targets go unless all is well; neither that somebody else has made.
 */

import { warningOf } from "./backup-serve.ts";
import { removeBitmaps } from "./bitmaps.ts";
import { nodesOf } from "./chain.ts";
import { JOB_OPERATION, JOB_TYPE } from "./enums.ts";
import { DomainError } from "./errors.ts";
import { BACKUP_BEGIN, JOB_STATS } from "./flags.ts";
import type { Operation, Qmp } from "./operation.ts";
import type { BackupRecord, DomainRecord, JobRecord, JobStats } from "./record.ts";
import type { Source } from "./source.ts";
import { isRefused, millisecondsOf } from "./start-job.ts";

/**
 * The bitmap that was made for a disk's push. It is in the top: no snapshot is made while the job is on record. Below
 * there may be one of an earlier backup, which harms nobody, and an image that cannot be written.
 */
export async function discardBitmap(
  op: Operation,
  { disk: name, bitmap }: JobRecord,
): Promise<void> {
  const disk = op.record.disks.find(({ target }) => target === name);
  // That of a pull goes with its scratch image; what has the name here is somebody else's then.
  if (bitmap === undefined || !disk || op.record.backup?.mode !== "push") return;
  try {
    await removeBitmaps(op, disk.layers.slice(0, 1), bitmap);
  } catch (error) {
    // What the backup has come to is so all the same. The next one tries again.
    if (!isRefused(error)) throw error;
  }
}

/**
 * What a disk's job has come to. The next save keeps it.
 *
 * @param job ended
 * @param figures the engine's last, if it still has them
 * @returns whether it was called off because of another one
 */
export function diskEnded(
  op: Operation,
  job: JobRecord,
  { offset, len }: { readonly offset: number; readonly len: number } = { offset: 0, len: 0 },
): boolean {
  const { backup } = op.record;
  const part = backup?.disks.find((disk) => disk.job === job.name);
  if (!backup || !part) return true;
  const isCalledOff = part.state === "cancelling";
  part.state =
    job.state === "completed" ? "complete" : job.state === "failed" ? "failed" : "cancelled";
  part.done = offset;
  part.total = len;
  if (part.state === "failed") backup.error ??= job.error ?? "the engine does not say why";
  return isCalledOff;
}

export function isOver({ disks }: BackupRecord): boolean {
  return disks.every(({ state }) => state !== "running" && state !== "cancelling");
}

function resultOf({ disks, mode, error }: BackupRecord): number {
  if (error !== undefined || disks.some(({ state }) => state === "failed")) return JOB_TYPE.FAILED;
  const isCancelled = disks.some(({ state }) => state === "cancelled");
  return isCancelled && mode === "push" ? JOB_TYPE.CANCELLED : JOB_TYPE.COMPLETED;
}

/**
 * All disks have ended: what is to be closed goes into the record, together with the result.
 *
 * @returns files to be removed
 */
export function settle(op: Operation, backup: BackupRecord): Source[] {
  const type = resultOf(backup);
  const keeps = (backup.flags & BACKUP_BEGIN.REUSE_EXTERNAL) !== 0;
  const isWanted = backup.mode === "push" && type === JOB_TYPE.COMPLETED;
  op.record.completed = {
    type,
    operation: JOB_OPERATION.BACKUP,
    time_elapsed: elapsed(op.host.clock, backup),
    ...figuresOf(backup, []),
    success: type === JOB_TYPE.COMPLETED,
    ...(backup.error !== undefined && { errmsg: backup.error }),
  };
  const stores = backup.disks.map(({ store }) => store);
  op.record.leftovers.push(...nodesOf(stores));
  return keeps || isWanted ? [] : stores.map(({ source }) => source);
}

/** Milliseconds. The clock on the wall may have been set back. */
function elapsed(clock: Operation["host"]["clock"], { started }: BackupRecord): number {
  return Math.max(0, Math.round(millisecondsOf(clock) - started));
}

const NO_STATS: JobStats = { type: JOB_TYPE.NONE };

/** @param flags of JOB_STATS */
export async function getJobStats(
  { qmp, clock }: { qmp: Qmp; clock: Operation["host"]["clock"] },
  record: DomainRecord,
  flags: number,
): Promise<{ stats: JobStats; isTaken: boolean }> {
  const keeps = (flags & JOB_STATS.KEEP_COMPLETED) !== 0;
  if (flags & JOB_STATS.COMPLETED) {
    return { stats: record.completed ?? NO_STATS, isTaken: record.completed !== null && !keeps };
  }
  if (keeps) throw new DomainError("INVALID_ARG", "KEEP_COMPLETED goes with COMPLETED alone");
  const { backup } = record;
  if (!backup) return { stats: NO_STATS, isTaken: false };
  const jobs = await qmp.execute("query-block-jobs");
  const warning = await warningOf(qmp, backup);
  const stats = {
    type: JOB_TYPE.UNBOUNDED,
    operation: JOB_OPERATION.BACKUP,
    time_elapsed: elapsed(clock, backup),
    ...figuresOf(backup, jobs),
    ...(warning !== undefined && { warning }),
  };
  return { stats, isTaken: false };
}

/**
 * Summed up over the disks; of a pull they are about its scratch files.
 *
 * @param jobs what the engine tells of those that run
 */
function figuresOf(
  { mode, disks }: BackupRecord,
  jobs: readonly { readonly device: string; readonly offset: number; readonly len: number }[],
): Partial<JobStats> {
  let [total, done] = [0, 0];
  for (const disk of disks) {
    const running = jobs.find(({ device }) => device === disk.job);
    total += running?.len ?? disk.total ?? 0;
    done += running?.offset ?? disk.done ?? 0;
  }
  return mode === "pull"
    ? { disk_temp_used: done, disk_temp_total: total }
    : { disk_total: total, disk_processed: done, disk_remaining: total - done };
}
