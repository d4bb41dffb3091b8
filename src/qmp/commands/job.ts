/** Jobs: what there is, and the verbs (QEMU: qapi/job.json, qapi/block-core.json). */

import * as v from "valibot";
import { BlockError } from "../../base/errors.ts";
import { BlockJob } from "../../blockjob/block-job.ts";
import type { Job } from "../../job/job.ts";
import type { JobList } from "../../job/list.ts";
import { verbs } from "../../job/verbs.ts";
import { command, int, nothing } from "../schema.ts";
import { blockJobInfo, jobInfo } from "../types.ts";

export const queryJobs = command({
  name: "query-jobs",
  doc: "Lists all jobs, the newest first.",
  args: {},
  returns: v.array(jobInfo),
  run: ({ jobs }) => jobs.query(),
});

export const queryBlockJobs = command({
  name: "query-block-jobs",
  doc: "Lists the jobs that work on nodes, the newest first.",
  args: {},
  returns: v.array(blockJobInfo),
  run: ({ jobs }) =>
    jobs
      .all()
      .filter(isNamedBlockJob)
      .map((job) => job.info()),
});

function isNamedBlockJob(job: Job): job is BlockJob {
  return job instanceof BlockJob && job.id !== null;
}

/** A command that is one verb on the job `id`, of whatever type. */
function verb<const Name extends string>(
  name: Name,
  doc: string,
  apply: (job: Job) => Promise<void>,
) {
  return command({
    name,
    doc,
    args: { id: v.string() },
    returns: nothing,
    async run({ jobs }, { id }) {
      await apply(jobs.get(id));
      return {};
    },
  });
}

export const jobPause = verb("job-pause", "Stops a job at its next pause point.", verbs.pause);
export const jobResume = verb("job-resume", "Lets a paused job go on.", verbs.resume);
export const jobCancel = verb("job-cancel", "Ends a job at once; what it has done stays.", (job) =>
  verbs.cancel(job, true),
);
export const jobComplete = verb(
  "job-complete",
  "Lets a ready job come to its end.",
  verbs.complete,
);
export const jobFinalize = verb(
  "job-finalize",
  "Lets a pending job, and its group, take effect.",
  verbs.finalize,
);
export const jobDismiss = verb("job-dismiss", "Forgets a concluded job.", verbs.dismiss);

/**
 * The block job of this name; jobs of other types are not seen, as in QEMU.
 *
 * @throws BlockError ENOENT (DeviceNotActive)
 */
export function getBlockJob(jobs: JobList, id: string): BlockJob {
  const job = jobs.find(id);
  if (job instanceof BlockJob) return job;
  throw new BlockError("ENOENT", `Block job '${id}' not found`, { class: "DeviceNotActive" });
}

export const blockJobCancel = command({
  name: "block-job-cancel",
  doc: "Ends a block job; without force, one that is ready comes to a good end as it stands.",
  args: {
    /** The job's id. */
    device: v.string(),
    /** At once, whatever state the target is in; job-cancel always does that. Default false. */
    force: v.optional(v.boolean()),
  },
  returns: nothing,
  async run({ jobs }, { device, force = false }) {
    await verbs.cancel(getBlockJob(jobs, device), force);
    return {};
  },
});

/** The deprecated twin of a job-* command, for block jobs alone. Some name it by `device`. */
function blockVerb<const Name extends string, const Key extends "device" | "id">(
  name: Name,
  key: Key,
  apply: (job: Job) => Promise<void>,
) {
  return command({
    name,
    doc: `Deprecated: use ${name.replace("block-", "")}.`,
    args: { [key]: v.string() } as Record<Key, v.StringSchema<undefined>>,
    returns: nothing,
    async run({ jobs }, args) {
      await apply(getBlockJob(jobs, (args as Record<Key, string>)[key]));
      return {};
    },
  });
}

export const blockJobPause = blockVerb("block-job-pause", "device", verbs.pause);
export const blockJobResume = blockVerb("block-job-resume", "device", verbs.resume);
export const blockJobComplete = blockVerb("block-job-complete", "device", verbs.complete);
export const blockJobFinalize = blockVerb("block-job-finalize", "id", verbs.finalize);
export const blockJobDismiss = blockVerb("block-job-dismiss", "id", verbs.dismiss);

export const blockJobSetSpeed = command({
  name: "block-job-set-speed",
  doc: "Limits the mean rate of a block job.",
  args: {
    /** The job's id. */
    device: v.string(),
    /** Bytes per second; 0 is unlimited. */
    speed: int,
  },
  returns: nothing,
  run({ jobs }, { device, speed }) {
    getBlockJob(jobs, device).setSpeed(speed);
    return {};
  },
});
