/**
 * One snapshot of the engine, folded from events and replies.
 *
 *   events, replies ──▶ fold(snapshot, input) ──▶ snapshot ──▶ views
 *
 * Nothing is guessed ahead: a click sends a command, and the picture changes when the engine says
 * so. All jobs of the engine are in it, whoever started them; block jobs tell more of themselves
 * than others. A job that the engine has forgotten stays as it ended.
 */

import { addSample, type RateMeter, STILL } from "./rate.ts";
import type { BlockJobInfo, JobInfo, JobStatus, NodeInfo, QmpEvent } from "./wire.ts";

/** How the ids of the page's blockdev-create jobs begin, which it dismisses itself. */
export const CREATE_ID = "page-create-";
/** The same of the driver of domains. */
const DOMAIN_CREATE_ID = "create-libvirt-";

/** Makes an image, as part of something else. */
export function isOwnWork(id: string): boolean {
  return id.startsWith(CREATE_ID) || id.startsWith(DOMAIN_CREATE_ID);
}

/** A block job of vda, under the name that the driver of domains gives it. */
export function isOfDisk(id: string): boolean {
  return /^(?:pull|commit|copy|backup)-vda-/.test(id);
}

/** The stream that makes the disk whole has a panel of its own. */
export function isPull(id: string): boolean {
  return id.startsWith("pull-vda-");
}

export interface Job {
  readonly id: string;
  /** "" until the engine has told. */
  readonly type: string;
  readonly status: JobStatus;
  /** How much of `len` is dealt with: bytes for block jobs, no unit for others. */
  readonly offset: number;
  readonly len: number;
  /** Bytes per second, 0 is no limit; undefined if the job has no speed. */
  readonly speed?: number;
  readonly ioStatus: BlockJobInfo["io-status"];
  readonly meter: RateMeter;
  /** How it ended; undefined while it has not. */
  readonly outcome?: "completed" | "cancelled" | "failed";
  /** The engine's words for why it failed. */
  readonly error?: string;
  /** The error that made the engine pause the job; gone when it is resumed. */
  readonly stopped?: StopReason;
}

export interface StopReason {
  readonly operation: "read" | "write";
  /** The engine's words for it, and what to branch on. */
  readonly reason?: string;
  readonly errno?: string;
}

export interface Snapshot {
  readonly nodes: readonly NodeInfo[];
  /** By id, oldest first. */
  readonly jobs: ReadonlyMap<string, Job>;
}

export const NOTHING: Snapshot = { nodes: [], jobs: new Map() };

export type Input =
  | { readonly kind: "event"; readonly event: QmpEvent }
  | { readonly kind: "nodes"; readonly nodes: readonly NodeInfo[] }
  | {
      readonly kind: "jobs";
      /** query-jobs and query-block-jobs, asked right after each other. */
      readonly jobs: readonly JobInfo[];
      readonly blockJobs: readonly BlockJobInfo[];
      readonly nowMs: number;
    }
  /** The user does not want to see this ended job any more. */
  | { readonly kind: "forget"; readonly id: string };

export function fold(snapshot: Snapshot, input: Input): Snapshot {
  switch (input.kind) {
    case "nodes":
      return { ...snapshot, nodes: input.nodes };
    case "jobs":
      return { ...snapshot, jobs: foldReplies(snapshot.jobs, input) };
    case "event": {
      const id = jobOf(input.event);
      if (id === undefined) return snapshot;
      return put(snapshot, id, foldEvent(snapshot.jobs.get(id) ?? created(id), input.event));
    }
    case "forget":
      return put(snapshot, input.id, undefined);
  }
}

/** The id of the job that an event tells of. */
export function jobOf({ event, data }: QmpEvent): string | undefined {
  if (event === "BLOCK_EXPORT_DELETED" || event === "BLOCK_WRITE_THRESHOLD") return undefined;
  return "device" in data ? data.device : data.id;
}

/** Moving: worth asking how far it is. */
export function isMoving(job: Job | undefined): boolean {
  return isActive(job) && job.status !== "paused" && job.status !== "pending";
}

/** Its end has come: it holds no node any more. */
export function hasEnded({ status }: Job): boolean {
  return status === "concluded" || status === "null";
}

/** Not ended: it holds its nodes. */
export function isActive(job: Job | undefined): job is Job {
  return job !== undefined && !hasEnded(job);
}

function created(id: string): Job {
  return { id, type: "", status: "created", offset: 0, len: 0, ioStatus: "ok", meter: STILL };
}

function put(snapshot: Snapshot, id: string, job: Job | undefined): Snapshot {
  const jobs = new Map(snapshot.jobs);
  if (job === undefined) jobs.delete(id);
  else jobs.set(id, job);
  return { ...snapshot, jobs };
}

function foldReplies(
  before: ReadonlyMap<string, Job>,
  { jobs, blockJobs, nowMs }: Extract<Input, { kind: "jobs" }>,
): ReadonlyMap<string, Job> {
  const after = new Map<string, Job>();
  // A job that is gone stays on the page as it ended, also if the last of its events are still to come.
  for (const job of before.values()) {
    if (hasEnded(job) || job.outcome !== undefined) after.set(job.id, job);
  }
  for (const info of [...jobs].reverse()) {
    const block = blockJobs.find(({ device }) => device === info.id);
    after.set(info.id, foldReply(before.get(info.id) ?? created(info.id), info, block, nowMs));
  }
  return after;
}

function foldReply(
  before: Job,
  info: JobInfo,
  block: BlockJobInfo | undefined,
  nowMs: number,
): Job {
  const offset = info["current-progress"];
  const outcome = before.outcome ?? outcomeOf(info, block);
  return {
    ...before,
    type: info.type,
    status: info.status,
    offset,
    len: info["total-progress"],
    ...(block && { speed: block.speed, ioStatus: block["io-status"] }),
    meter: info.status === "running" ? addSample(before.meter, nowMs, offset) : STILL,
    ...(outcome !== undefined && { outcome }),
    ...(info.error !== undefined && outcome !== "cancelled" && { error: info.error }),
  };
}

/** Of jobs that tell of their end by nothing but their status. */
function outcomeOf(info: JobInfo, block: BlockJobInfo | undefined): Job["outcome"] {
  if (block !== undefined || info.status !== "concluded") return undefined;
  return info.error === undefined ? "completed" : "failed";
}

/** @returns undefined if nothing is left to show of the job */
function foldEvent(known: Job, event: QmpEvent): Job | undefined {
  const told = "speed" in event.data ? { speed: event.data.speed } : {};
  // Block jobs alone have these, so it has a speed, though no reply may have told of it.
  const before = event.event.startsWith("BLOCK_JOB_") ? { speed: 0, ...known, ...told } : known;
  switch (event.event) {
    case "JOB_STATUS_CHANGE":
      return foldStatus(before, event.data.status);
    case "BLOCK_JOB_COMPLETED": {
      const { type, offset, len, error } = event.data;
      const ended = { ...before, type, offset, len };
      return error === undefined
        ? { ...ended, outcome: "completed" }
        : { ...ended, outcome: "failed", error };
    }
    case "BLOCK_JOB_CANCELLED": {
      // That it was canceled is no error to somebody who canceled it.
      const { error: _error, ...rest } = before;
      const { type, offset, len } = event.data;
      return { ...rest, type, outcome: "cancelled", offset, len };
    }
    case "BLOCK_JOB_ERROR": {
      const { action, operation, reason, errno } = event.data;
      // Several requests may fail before the job stands still: the first one tells why.
      if (action !== "stop" || before.stopped !== undefined) return before;
      const words = {
        ...(reason !== undefined && { reason }),
        ...(errno !== undefined && { errno }),
      };
      return { ...before, stopped: { operation, ...words } };
    }
    default:
      return before;
  }
}

function foldStatus(job: Job, status: JobStatus): Job | undefined {
  // Another run of the same name: nothing of the old one is true of it.
  if (status === "created") return created(job.id);
  // The engine has forgotten it; the page keeps what it ended with.
  if (status === "null") return job.outcome === undefined ? undefined : job;
  if (status === "paused" || status === "standby") return { ...job, status, meter: STILL };
  if (status !== "running" && status !== "ready") return { ...job, status };
  const { stopped: _stopped, ...going } = job;
  return { ...going, status };
}
