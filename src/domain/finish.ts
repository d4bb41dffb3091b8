/**
 * The end of a block job, step by step. Everything that says how it ended is kept in one record, with the
 * chain as it is from then on; what follows can be done again, and is after a crash.
 *
 *     concluded ─▶ ask the engine ─▶ RECORD: outcome, chain, what is left to do      the commit point
 *                                       │
 *                                       ▼   dismissed in the engine, nodes closed, files removed
 *                                     event ─▶ record without the job
 *
 * (libvirt dismisses first, and may never learn of an end.)
 */

import { QmpError } from "../engine/client.ts";
import { cancelAll } from "./backup.ts";
import { discardBitmap, diskEnded, isOver, settle } from "./backup-end.ts";
import { stopServing } from "./backup-serve.ts";
import { afterCommit, afterPivot } from "./bitmaps.ts";
import { indexOfLayer, nodesOf } from "./chain.ts";
import { imageOf } from "./definition.ts";
import { BLOCK_JOB_STATUS, END_STATES, JOB_KINDS, type JobKind, type JobState } from "./enums.ts";
import { DomainError } from "./errors.ts";
import type { BlockJobEvent } from "./events.ts";
import { isDefinedAs, userOf } from "./image-users.ts";
import { closeNodes } from "./images.ts";
import type { Operation } from "./operation.ts";
import {
  type BackupRecord,
  type DiskRecord,
  type DomainRecord,
  deviceId,
  formatNode,
  type JobRecord,
  type JobStats,
  type Layer,
} from "./record.ts";
import { pathOf, type Source } from "./source.ts";
import { unlessNeedless } from "./start-job.ts";

/** What the engine says of a job that is over. */
export interface Outcome {
  readonly error?: string | undefined;
}

const STATUS_OF: Partial<Record<JobState, number>> = {
  completed: BLOCK_JOB_STATUS.COMPLETED,
  failed: BLOCK_JOB_STATUS.FAILED,
  cancelled: BLOCK_JOB_STATUS.CANCELED,
  ready: BLOCK_JOB_STATUS.READY,
};

/** The chain afterwards, and the images that nobody needs any more. */
interface Change {
  readonly layers: readonly Layer[];
  readonly gone: readonly Layer[];
}

/**
 * By kind: what a success changes, and what is left to be put away otherwise.
 *
 * @param switched the disk's device reads from the new image now: the graph itself says so
 */
interface Ending {
  success(disk: DiskRecord, job: JobRecord): Change;
  failure?(job: JobRecord): readonly Layer[];
  /** It has worked if, and only if, the device has switched. */
  readonly isSwitch?: boolean;
}

const ENDINGS: Partial<Record<JobKind, Ending>> = {
  pull: {
    success({ layers }, { base }) {
      const [top, ...below] = layers;
      const at = below.findIndex(({ n }) => n === base);
      const kept = at < 0 ? [] : below.slice(at);
      return { layers: [top!, ...kept], gone: at < 0 ? below : below.slice(0, at) };
    },
  },
  commit: {
    success(disk, job) {
      const [top, base] = [indexOfLayer(disk, job.top), indexOfLayer(disk, job.base)];
      const { layers } = disk;
      if (top < 0 || base < 0) return { layers, gone: [] };
      return { layers: layers.toSpliced(top, base - top), gone: layers.slice(top, base) };
    },
  },
  "active-commit": {
    isSwitch: true,
    success(disk, job) {
      const base = indexOfLayer(disk, job.base);
      const { layers } = disk;
      if (base < 0) return { layers, gone: [] };
      return { layers: layers.slice(base), gone: layers.slice(0, base) };
    },
  },
  copy: {
    isSwitch: true,
    success({ layers }, { mirror = [], flags }) {
      const isShared = (flags & 1) !== 0 && mirror.length === 1;
      const kept = isShared ? layers.slice(1) : [];
      return { layers: [...mirror, ...kept], gone: isShared ? layers.slice(0, 1) : layers };
    },
    failure: ({ mirror = [] }) => mirror,
  },
};

/**
 * A job is over, and its end has not been dealt with, or not to the last step. What the record says of the end
 * is changed in one turn: others save it meanwhile, too.
 */
export async function conclude(op: Operation, job: JobRecord, outcome: Outcome): Promise<void> {
  if (END_STATES.includes(job.state)) return putAway(op, job);
  if (job.kind === "backup") return concludeBackup(op, job, outcome);
  const ending = ENDINGS[job.kind];
  const disk = op.record.disks.find(({ target }) => target === job.disk);
  const hasSwitched = ending?.isSwitch && disk ? await isSwitched(op, disk, job, outcome) : false;
  const state = outcomeOf(job, outcome, ending?.isSwitch ? hasSwitched : undefined);
  const change = ending && disk && state === "completed" ? ending.success(disk, job) : null;
  let left: string | undefined;
  if (disk && change) {
    // Before the images that have the bitmaps are gone; again and again if need be.
    if (job.kind === "commit") await afterCommit(op, job, disk, change.gone);
    if (ending?.isSwitch) left = await afterPivot(op, disk, change.layers, change.gone);
  }
  end(job, state, outcome);
  if (ending && !isToUnlink(job)) delete job.unlink;
  op.record.leftovers.push(...nodesOf(change?.gone ?? ending?.failure?.(job) ?? []));
  if (disk && change) {
    const [top] = disk.layers;
    disk.layers = [...change.layers];
    redefine(op.record, disk, top!);
  }
  await op.save();
  await putAway(op, job, left);
}

async function concludeBackup(op: Operation, job: JobRecord, outcome: Outcome): Promise<void> {
  const found = (await op.execute("query-block-jobs")).find(({ device }) => device === job.name);
  await discardBitmap(op, job);
  end(job, outcomeOf(job, outcome, undefined), outcome);
  const isCalledOff = diskEnded(op, job, found);
  const { backup } = op.record;
  if (backup && isOver(backup)) job.unlink = settle(op, backup);
  await op.save();
  if (job.state !== "completed" && !isCalledOff) await cancelAll(op);
  await putAway(op, job);
}

function end(job: JobRecord, state: JobState, { error }: Outcome): void {
  job.state = state;
  if (state === "failed" && error !== undefined) job.error = error;
}

/**
 * The steps after the commit point.
 *
 * @param job ended, by its record
 * @param left is left behind
 */
async function putAway(op: Operation, job: JobRecord, left?: string): Promise<void> {
  await dismiss(op, job.name);
  const { backup, completed } = op.record;
  const isLast = job.kind === "backup" && backup !== null && isOver(backup);
  if (isLast) await stopServing(op, backup);
  await closeNodes(op, op.record.leftovers);
  const kept = await unlink(op, job.unlink ?? []);
  const warnings = [left, kept].filter((one) => one !== undefined);
  tell(op, job, warnings.length > 0 ? warnings.join("; ") : undefined);
  if (isLast && completed) {
    tellCompleted(op, backup, completed);
    op.record.backup = null;
  }
  op.record.jobs = op.record.jobs.filter((other) => other !== job);
  await op.save();
}

/**
 * What the graph has become decides, not what was asked for: an abort that came too late is a completion.
 *
 * @param hasSwitched undefined: this kind of job does not switch
 */
function outcomeOf(
  { state }: JobRecord,
  { error }: Outcome,
  hasSwitched: boolean | undefined,
): JobState {
  if (END_STATES.includes(state)) return state;
  if (hasSwitched ?? error === undefined) return "completed";
  // A soft end without an error: somebody has cancelled it, we or another client of the engine.
  return state === "aborting" || error === undefined ? "cancelled" : "failed";
}

/** Of a commit what it has merged; of a copy what never became one. */
function isToUnlink({ kind, state, wasReady }: JobRecord): boolean {
  if (kind !== "copy") return state === "completed";
  return state === "failed" || (state === "cancelled" && !wasReady);
}

/** Without a device nothing shows it: a pivot that we had asked for, and that has not failed, is one. */
async function isSwitched(
  op: Operation,
  disk: DiskRecord,
  job: JobRecord,
  { error }: Outcome,
): Promise<boolean> {
  const to = job.kind === "copy" ? job.mirror?.[0]?.n : job.base;
  if (to === undefined || to === null) return false;
  const exports = await op.execute("query-block-exports");
  const device = exports.find(({ id }) => id === deviceId(op.record, disk));
  if (!device) return job.state === "pivoting" && error === undefined;
  return device["node-name"] === formatNode({ n: to });
}

/**
 * The chain is what create() will start next time, unless another image has been defined there meanwhile.
 *
 * @param top the image that was at the top until now
 */
export function redefine(
  { definition, disks }: DomainRecord,
  changed: DiskRecord,
  top: Layer,
): void {
  const at = definition.disks.findIndex((one) => isDefinedAs(one, changed, top));
  if (at < 0 || !disks.includes(changed)) return;
  const { target, readonly } = definition.disks[at]!;
  const disk = { target, ...(readonly !== undefined && { readonly }), ...imageOf(changed.layers) };
  (definition.disks as (typeof disk)[])[at] = disk;
}

/** Forgets it in the engine. A job that is not there any more is what we want. */
export async function dismiss(op: Operation, id: string): Promise<void> {
  const jobs = await op.execute("query-jobs");
  const isThere = jobs.some((job) => job.id === id);
  if (isThere) await unlessNeedless(op.execute("job-dismiss", { id }));
}

/** @returns what could not be removed, and why: the job is as good as it is */
export async function unlink(
  op: Operation,
  sources: readonly Source[],
): Promise<string | undefined> {
  const kept: string[] = [];
  for (const source of sources) {
    const why = await removeOne(op, source);
    if (why !== undefined) kept.push(`'${pathOf(source)}' could not be removed: ${why}`);
  }
  return kept.length > 0 ? kept.join("; ") : undefined;
}

/** @returns why not. Somebody may have come to use it since it was decided that it goes */
async function removeOne(op: Operation, source: Source): Promise<string | undefined> {
  const { files, record } = op.host;
  if (!files?.canRemove(source)) return undefined;
  const user = userOf(record, source);
  if (user !== undefined) return `${user} has it`;
  try {
    await op.unlocked(() => files.remove(source));
  } catch (error) {
    if (!(error instanceof QmpError) && !(error instanceof DomainError)) throw error;
    return error.message;
  }
  return undefined;
}

/** A backup has ended. */
export function tellCompleted(op: Operation, { serial }: BackupRecord, stats: JobStats): void {
  op.host.emit({ event: "job-completed", domain: op.entry.name, serial, stats });
}

/** Both flavours of the event: by path where there is one, and by target. */
export function tell(op: Operation, job: JobRecord, warning?: string): void {
  const status = STATUS_OF[job.state];
  const disk = op.record.disks.find(({ target }) => target === job.disk);
  if (status === undefined || job.kind === "broken" || !disk) return;
  const path = pathOf(disk.layers[0]!.source);
  const event = {
    domain: op.entry.name,
    type: JOB_KINDS[job.kind],
    status,
    serial: job.serial,
    ...(job.state === "failed" && job.error !== undefined && { error: job.error }),
    ...(warning !== undefined && { warning }),
  };
  const told: BlockJobEvent[] = [{ event: "block-job-2", disk: disk.target, ...event }];
  if (path !== null) told.unshift({ event: "block-job", disk: path, ...event });
  for (const one of told) op.host.emit(one);
}
