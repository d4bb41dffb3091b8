/** Jobs that have ended, whichever tab had the disks then: kept until somebody dismisses them. */

import type { SharedApi } from "../src/domain/client.ts";
import type { ReturnOf } from "../src/qmp/commands/index.ts";
import { isOwnWork } from "./fold.ts";
import { formatBytes, formatSeconds } from "./format.ts";

export type EndedJob = ReturnOf<"x-query-job-history">[number];

/** The newest first, without what is part of other actions. */
export async function queryHistory(
  client: SharedApi,
  isShared: boolean,
): Promise<readonly EndedJob[]> {
  if (!isShared) return [];
  const all = await client.execute("x-query-job-history");
  return all.filter(({ id }) => !isOwnWork(id));
}

/** One run of a job: others may have had its name. */
export function isSameRun(a: EndedJob, b: EndedJob): boolean {
  const [began, other] = [a.began, b.began];
  return (
    a.id === b.id && began.seconds === other.seconds && began.microseconds === other.microseconds
  );
}

/** @param job undefined: all */
export async function dismissHistory(client: SharedApi, job: EndedJob | undefined): Promise<void> {
  const which = job === undefined ? {} : { id: job.id, began: job.began };
  await client.execute("x-job-history-dismiss", which);
}

/** How much it did, if that is bytes, and how long it took: "16 MiB in 3 s". */
export function describeWork({ type, ...job }: EndedJob): string {
  const took = formatSeconds(job["duration-ms"] / 1000);
  return BLOCK_JOBS.has(type) ? `${formatBytes(job["current-progress"])} in ${took}` : took;
}

/** What others are through with are steps. */
const BLOCK_JOBS = new Set<EndedJob["type"]>(["stream", "commit", "mirror", "backup"]);
