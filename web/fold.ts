/**
 * One snapshot of the engine, folded from events and replies.
 *
 *   events, replies ──▶ fold(snapshot, input) ──▶ snapshot ──▶ views
 *
 * Nothing is guessed ahead: a click sends a command, and the picture changes when the engine says
 * so. The snapshot knows one job, the stream; the short jobs that make images are awaited where
 * they are started.
 */

import { addSample, type RateMeter, STILL } from "./rate.ts";
import type { BlockJobInfo, JobStatus, NodeInfo, QmpEvent } from "./wire.ts";

/** The id that the page gives to its block-stream. */
export const STREAM_ID = "stream0";

export interface StreamJob {
  readonly status: JobStatus;
  /** Bytes of `len` that are dealt with, copied or skipped. */
  readonly offset: number;
  readonly len: number;
  /** Bytes per second, 0 is no limit. */
  readonly speed: number;
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
  readonly job: StreamJob | undefined;
}

export const NOTHING: Snapshot = { nodes: [], job: undefined };

export type Input =
  | { readonly kind: "event"; readonly event: QmpEvent }
  | { readonly kind: "nodes"; readonly nodes: readonly NodeInfo[] }
  | { readonly kind: "jobs"; readonly jobs: readonly BlockJobInfo[]; readonly nowMs: number };

export function fold(snapshot: Snapshot, input: Input): Snapshot {
  switch (input.kind) {
    case "nodes":
      return { ...snapshot, nodes: input.nodes };
    case "jobs":
      return { ...snapshot, job: foldReply(snapshot.job, input.jobs, input.nowMs) };
    case "event":
      return { ...snapshot, job: foldEvent(snapshot.job, input.event) };
  }
}

/** Moving: worth asking how far it is. */
export function isMoving(job: StreamJob | undefined): boolean {
  return job !== undefined && job.status !== "paused" && isActive(job);
}

/** Not ended: it holds the disk. */
export function isActive(job: StreamJob | undefined): job is StreamJob {
  return job !== undefined && job.status !== "concluded" && job.status !== "null";
}

const CREATED: StreamJob = {
  status: "created",
  offset: 0,
  len: 0,
  speed: 0,
  ioStatus: "ok",
  meter: STILL,
};

function foldReply(
  job: StreamJob | undefined,
  jobs: readonly BlockJobInfo[],
  nowMs: number,
): StreamJob | undefined {
  const info = jobs.find((candidate) => candidate.device === STREAM_ID);
  // A job that is gone stays on the page as it ended.
  if (info === undefined) return isActive(job) ? undefined : job;
  const before = job ?? CREATED;
  return {
    ...before,
    status: info.status,
    offset: info.offset,
    len: info.len,
    speed: info.speed,
    ioStatus: info["io-status"],
    meter: info.status === "running" ? addSample(before.meter, nowMs, info.offset) : STILL,
    ...(info.error !== undefined && before.outcome !== "cancelled" && { error: info.error }),
  };
}

function foldEvent(job: StreamJob | undefined, event: QmpEvent): StreamJob | undefined {
  if (!isAboutStream(event)) return job;
  const before = job ?? CREATED;
  switch (event.event) {
    case "JOB_STATUS_CHANGE":
      return foldStatus(before, event.data.status);
    case "BLOCK_JOB_COMPLETED": {
      const { offset, len, error } = event.data;
      return error === undefined
        ? { ...before, offset, len, outcome: "completed" }
        : { ...before, offset, len, outcome: "failed", error };
    }
    case "BLOCK_JOB_CANCELLED": {
      // That it was canceled is no error to somebody who canceled it.
      const { error: _error, ...rest } = before;
      return { ...rest, offset: event.data.offset, len: event.data.len, outcome: "cancelled" };
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
      return job;
  }
}

export function isAboutStream({ data }: QmpEvent): boolean {
  return ("device" in data ? data.device : data.id) === STREAM_ID;
}

function foldStatus(job: StreamJob, status: JobStatus): StreamJob {
  // Another run of the same name: nothing of the old one is true of it.
  if (status === "created") return CREATED;
  // The engine has forgotten it; the page keeps what it ended with.
  if (status === "null") return { ...job, status: job.outcome === undefined ? "null" : job.status };
  if (status === "paused") return { ...job, status, meter: STILL };
  if (status !== "running") return { ...job, status };
  const { stopped: _stopped, ...going } = job;
  return { ...going, status };
}
