/** Jobs: what there is, and the verbs (QEMU: qapi/job.json, qapi/block-core.json). */

import * as v from "valibot";
import { BlockError } from "../../base/errors.ts";
import { BlockJob } from "../../blockjob/block-job.ts";
import type { Job } from "../../job/job.ts";
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
    const job = jobs.find(device);
    if (!(job instanceof BlockJob)) {
      throw new BlockError("ENOENT", `Block job '${device}' not found`, {
        class: "DeviceNotActive",
      });
    }
    job.setSpeed(speed);
    return {};
  },
});
