/**
 * What a disk's job is doing, and how fast it may. Asking takes nobody's turn: it needs no job of the domain,
 * so it is answered whatever else goes on.
 */

import { fromBytesPerSecond } from "./bandwidth.ts";
import type { DomainEntry } from "./entry.ts";
import { ACTIVE_STATES, type JobKind, type JobState } from "./enums.ts";
import { type BlockJobInfo, blockJobInfo, NO_JOB } from "./info.ts";
import { withMonitor } from "./locks/with-job.ts";
import { type Asking, findDisk, type Operation } from "./operation.ts";
import type { JobRecord } from "./record.ts";
import { activeJobOf, jobOf } from "./start-job.ts";

export interface BlockJobAnswer {
  /** As libvirt's return value: 1, there is a job; 0, there is none, and `info` is all zeroes. */
  readonly result: 0 | 1;
  readonly info: BlockJobInfo;
}

/** One job of a domain, with what libvirt does not tell. */
export interface BlockJobEntry extends BlockJobInfo {
  readonly disk: string;
  readonly kind: JobKind;
  readonly state: JobState;
  /** Its id in the engine. */
  readonly name: string;
  /** Of what cannot be gone on with. */
  readonly error?: string;
}

/** @throws DomainError INVALID_ARG (disk), QmpError */
export async function getBlockJobInfo(
  asking: Asking,
  entry: DomainEntry,
  disk: string,
  isBytes: boolean,
): Promise<BlockJobAnswer> {
  const { target } = findDisk(entry.record, disk);
  const job = jobOf(entry, target);
  if (!job || !isTold(job)) return { result: 0, info: NO_JOB };
  return { result: 1, info: await infoOf(asking, job, isBytes) };
}

/** All jobs of all disks: virsh has long wished for it. Bandwidths in bytes/s. */
export async function listBlockJobs(asking: Asking, entry: DomainEntry): Promise<BlockJobEntry[]> {
  const entries: BlockJobEntry[] = [];
  for (const job of [...entry.record.jobs]) {
    const { disk, kind, state, name, error } = job;
    const info = await infoOf(asking, job, true);
    entries.push({ disk, kind, state, name, ...info, ...(error !== undefined && { error }) });
  }
  return entries;
}

/** Over means over: what is only being cleared away is no job any more. */
function isTold({ kind, state }: JobRecord): boolean {
  return kind !== "broken" && (ACTIVE_STATES.includes(state) || state === "new");
}

async function infoOf(asking: Asking, job: JobRecord, isBytes: boolean): Promise<BlockJobInfo> {
  const jobs = await asking.execute("query-block-jobs");
  const found = jobs.find(({ device }) => device === job.name);
  // A concluded one is still in the engine's list, until its end has been dealt with.
  const figures = found && found.status !== "concluded" ? found : null;
  return blockJobInfo(job.kind, fromBytesPerSecond(found?.speed ?? 0, isBytes), figures);
}

/** @param speed bytes/s */
export async function setSpeed(op: Operation, disk: string, speed: number): Promise<void> {
  const job = activeJobOf(op, op.disk(disk).target);
  const set = { device: job.name, speed };
  await withMonitor(op.ctx, op.entry.object, () =>
    op.host.asking.execute("block-job-set-speed", set),
  );
}
