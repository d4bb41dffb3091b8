/** Waiting for a job to come to a status, told from events. */

import type { JobStatus } from "../job/status.ts";
import type { QmpClient } from "./qmp-client.ts";
import { clientError } from "./qmp-error.ts";

export interface JobOutcome {
  /** The status that was waited for. */
  readonly status: JobStatus;
  /** Why the job failed, if it has by then. */
  readonly error?: string;
}

/**
 * Resolves when the job is in the status, at once if it is now, or was since the call.
 *
 * A job that dismisses itself may be gone before its start is answered. To miss nothing, begin the
 * wait in the same turn as the command, right after it:
 *
 *     const started = client.execute("block-stream", { "job-id": "s0", device: "top" });
 *     const ended = client.waitForJob("s0", "concluded");
 *
 * @throws QmpError ENOENT if there is no such job, or it has ended without coming to the status;
 *   ECANCELED if the signal is raised
 */
export async function waitForJob(
  client: QmpClient,
  id: string,
  status: JobStatus,
  signal?: AbortSignal,
): Promise<JobOutcome> {
  const events = client.events("JOB_STATUS_CHANGE", "BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED");
  const stop = () => events.fail(clientError("ECANCELED", `The wait for job '${id}' was canceled`));
  if (signal?.aborted) stop();
  signal?.addEventListener("abort", stop, { once: true });
  try {
    // Events were asked for first, so nothing falls between this answer and them.
    const job = (await client.execute("query-jobs")).find((candidate) => candidate.id === id);
    let { error } = job ?? {};
    if (job?.status === status) return outcome(status, error);
    let isKnown = job !== undefined;
    const endsAt: readonly JobStatus[] = status === "null" ? ["null"] : ["concluded", "null"];
    let isOver = job !== undefined && endsAt.includes(job.status);
    while (!isOver && (isKnown || events.unreadCount > 0)) {
      const { value: event } = await events.next();
      if (!event) break;
      if (event.event === "BLOCK_JOB_COMPLETED" && event.data.device === id) {
        error = event.data.error ?? error;
      }
      if (event.event === "BLOCK_JOB_CANCELLED" && event.data.device === id) {
        error = "Operation canceled";
      }
      if (event.event !== "JOB_STATUS_CHANGE" || event.data.id !== id) continue;
      isKnown = true;
      if (event.data.status === status) return outcome(status, error);
      isOver = endsAt.includes(event.data.status);
    }
    const how = isKnown ? `has ended without ever being ${status}` : "not found";
    throw clientError("ENOENT", `Job '${id}' ${how}${error === undefined ? "" : `: ${error}`}`);
  } finally {
    signal?.removeEventListener("abort", stop);
    await events.return();
  }
}

function outcome(status: JobStatus, error: string | undefined): JobOutcome {
  return { status, ...(error !== undefined && { error }) };
}
