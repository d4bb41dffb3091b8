/** What the engine tells of jobs becomes what the domain's record says. */

import type { JobStatus } from "../job/status.ts";
import { settleCreations } from "./creations.ts";
import { conclude, tell } from "./finish.ts";
import type { Operation } from "./operation.ts";
import type { JobRecord } from "./record.ts";

/** Statuses that mean something here; the others are the engine's own business. */
const NEWS = ["ready", "concluded"] as const;

/** A job has come to this status. */
export interface News {
  readonly job: string;
  readonly status: (typeof NEWS)[number];
}

export function newsOf(job: string, status: JobStatus): News | null {
  const known = NEWS.find((one) => one === status);
  return known ? { job, status: known } : null;
}

/** Within the domain's job. What is told of a job that has been dealt with meanwhile is no news. */
export async function dealWith(op: Operation, news: News): Promise<void> {
  if (op.entry.lostCreations.has(news.job)) return settleCreations(op);
  const job = op.record.jobs.find(({ name }) => name === news.job);
  if (!job) return;
  if (news.status === "ready") await ready(op, job);
  else await concluded(op, job);
}

/** Once: a job that is ready again while it pivots or is aborted is no news. */
export async function ready(op: Operation, job: JobRecord): Promise<void> {
  if (job.state !== "new" && job.state !== "running") return;
  job.state = "ready";
  job.wasReady = true;
  await op.save();
  tell(op, job);
}

/** Asks the engine how it has ended. */
async function concluded(op: Operation, job: JobRecord): Promise<void> {
  const found = (await op.execute("query-jobs")).find(({ id }) => id === job.name);
  // Whoever dismissed it has dealt with it.
  if (found?.status === "concluded") await conclude(op, job, { error: found.error });
}
