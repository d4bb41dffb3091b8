/** A job's side of a rate limit. */

import type { Job } from "./job.ts";

/** Whatever knows how long to wait: a RateLimit, or several things together. */
export interface Debt {
  /** Milliseconds >= 0 until nothing is owed any more. @param bytes 0: only asks */
  delay(bytes: number, nowMs: number): number;
}

/**
 * Sleeps until nothing is owed any more, but at least lets others have a turn. Call it before each
 * request, and charge the request to the limit when it is done.
 *
 * A pause interrupts the sleep; what was still owed then is slept off after the resume, so that
 * waking up early earns no bytes. Returns early if force-cancelled: look at job.cancelled.
 *
 * @param isUrgent something else is to be looked at first: ends the wait when the job is woken for it
 */
export async function sleepOff(
  job: Job,
  limit: Debt,
  isUrgent: () => boolean = () => false,
): Promise<void> {
  while (!isUrgent()) {
    const ms = limit.delay(0, job.clock.now());
    await job.sleep(ms);
    if (ms === 0 || job.cancelled) return;
  }
}
