/**
 * Every event, as data: its name and what it tells. On the wire an event is
 * { event, data, timestamp: { seconds, microseconds } } (QEMU: qapi/job.json, block-core.json).
 */

import * as v from "valibot";
import { size } from "../base/check.ts";
import { int, type nothing } from "./schema.ts";
import { jobStatus, jobType } from "./types.ts";

/** Bytes of len, offset and speed as in query-block-jobs. */
const blockJob = {
  type: jobType,
  /** The job's id. */
  device: v.string(),
  len: int,
  offset: int,
  speed: int,
};

export const EVENTS = {
  /** A job has moved; one for every move, from created to null. */
  JOB_STATUS_CHANGE: v.strictObject({ id: v.string(), status: jobStatus }),
  BLOCK_JOB_READY: v.strictObject(blockJob),
  /** It waits for job-finalize. */
  BLOCK_JOB_PENDING: v.strictObject({ type: jobType, id: v.string() }),
  /** It has come to its own end; with `error`, to a bad one. */
  BLOCK_JOB_COMPLETED: v.strictObject({ ...blockJob, error: v.exactOptional(v.string()) }),
  BLOCK_JOB_CANCELLED: v.strictObject(blockJob),
  /** An I/O error, and what the job's on-error policy makes of it. */
  BLOCK_JOB_ERROR: v.strictObject({
    device: v.string(),
    operation: v.picklist(["read", "write"]),
    action: v.picklist(["ignore", "report", "stop"]),
    /** Not in QEMU: what went wrong, where. */
    reason: v.exactOptional(v.string()),
    /** Not in QEMU: what to branch on. */
    errno: v.exactOptional(v.string()),
  }),
  /** A write went beyond what block-set-write-threshold has set: told once. */
  BLOCK_WRITE_THRESHOLD: v.strictObject({
    "node-name": v.string(),
    "amount-exceeded": size,
    "write-threshold": size,
  }),
  BLOCK_EXPORT_DELETED: v.strictObject({ id: v.string() }),
} satisfies Record<string, ReturnType<typeof v.strictObject> | typeof nothing>;

export type EventName = keyof typeof EVENTS;

export interface Timestamp {
  readonly seconds: number;
  readonly microseconds: number;
}

/** One event, or with a name that kind of event. */
export type QmpEvent<Name extends EventName = EventName> = {
  [N in Name]: {
    readonly event: N;
    readonly data: Readonly<v.InferOutput<(typeof EVENTS)[N]>>;
    readonly timestamp: Timestamp;
  };
}[Name];
