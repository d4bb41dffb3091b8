/**
 * A job that has only its end before it: what a job of the lost engine ended with, or has to end with
 * now. It goes the way of every job, so it is told, dismissed and kept in the history like any other.
 */

import type { BlockError } from "../../base/errors.ts";
import { BlockJob, type BlockJobServices } from "../../blockjob/block-job.ts";
import type { JobDriver } from "../../job/driver.ts";
import { Job } from "../../job/job.ts";
import type { JobRecord } from "./record.ts";

/**
 * Starts it, and returns it running.
 *
 * @param error null: it completes
 * @throws BlockError EINVAL, EEXIST for the id
 */
export function startStandIn(
  services: BlockJobServices,
  record: JobRecord,
  error: BlockError | null,
): Job {
  const { id, type, again, current, total, autoDismiss } = record;
  const driver: JobDriver = {
    type,
    async run({ progress }) {
      progress.workDone(current);
      progress.setRemaining(Math.max(0, total - current));
      if (error) throw error;
    },
    ...(again && { journal: () => again }),
  };
  const isOfNodes = record.speed !== undefined;
  const job = isOfNodes
    ? new BlockJob(services, { id, driver, onError: "report", autoDismiss })
    : new Job({ id, driver, clock: services.clock, list: services.jobs, autoDismiss });
  job.start();
  return job;
}
