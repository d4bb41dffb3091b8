/** What an engine is made of, as entries of the record: see record.ts. */

import type { Graph } from "../../block/graph.ts";
import { BlockJob } from "../../blockjob/block-job.ts";
import type { ExportList } from "../../export/list.ts";
import type { Job } from "../../job/job.ts";
import type { Timestamp } from "../../qmp/events.ts";
import type { ExportRecord, JobRecord, ObjectRecord } from "./record.ts";

/** Of a secret the file that it came from; what it holds is never kept. */
export function describeObjects(graph: Graph): ObjectRecord[] {
  const groups = [...graph.throttleGroups.all].map(([id, { limits }]) => ({
    "qom-type": "throttle-group",
    id,
    limits,
  }));
  const secrets = [...graph.secrets.ids].map((id) => ({
    "qom-type": "secret",
    id,
    ...graph.secrets.fileOf(id),
  }));
  return [...groups, ...secrets];
}

export function describeExports(graph: Graph, exports: ExportList): ExportRecord[] {
  const there = [...exports.all].reverse().filter(({ shuttingDown }) => !shuttingDown);
  return there.map(({ type, id, backend, options }) => ({
    type,
    id,
    "node-name": graph.settledNode(backend).name,
    ...options,
  }));
}

export function describeJob(job: Job & { readonly id: string }, began: Timestamp): JobRecord {
  const { id, driver, status, error, progress } = job;
  return {
    id,
    type: driver.type,
    status: job.isProvisional ? "created" : status,
    hasTakenEffect: job.hasTakenEffect,
    paused: job.userPaused,
    autoFinalize: job.autoFinalize,
    autoDismiss: job.autoDismiss,
    ...(job instanceof BlockJob && { speed: job.speed }),
    current: progress.current,
    total: progress.total,
    began,
    error: error && { errno: error.errno, desc: error.message },
    again: (driver.journal?.(job) as JobRecord["again"]) ?? null,
  };
}
