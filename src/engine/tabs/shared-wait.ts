/**
 * Waiting for a job while the disks may change hands: events of the moment of the hand-over may never
 * come, so after each the wait begins anew, with a look at what there is.
 */

import type { JobStatus } from "../../job/status.ts";
import type { QmpClient } from "../qmp-client.ts";
import { QmpError } from "../qmp-error.ts";
import { type JobOutcome, waitForJob } from "../wait-for-job.ts";
import type { Watch } from "./watch.ts";

/** @throws QmpError as waitForJob() */
export async function waitThroughHandOvers(
  client: QmpClient,
  watch: Watch,
  id: string,
  status: JobStatus,
  signal?: AbortSignal,
): Promise<JobOutcome> {
  for (;;) {
    let isOtherOwner = false;
    const again = new AbortController();
    const forget = watch.onHandOver(() => {
      isOtherOwner = true;
      again.abort();
    });
    const stop = () => again.abort();
    signal?.addEventListener("abort", stop, { once: true });
    if (signal?.aborted) stop();
    try {
      return await waitForJob(client, id, status, again.signal);
    } catch (error) {
      const isAgain = error instanceof QmpError && error.errno === "ECANCELED" && isOtherOwner;
      if (!isAgain || signal?.aborted) throw error;
    } finally {
      forget();
      signal?.removeEventListener("abort", stop);
    }
  }
}
