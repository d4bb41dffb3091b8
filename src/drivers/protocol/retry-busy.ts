/**
 * Patience with a store that somebody else holds.
 *
 * After a reload the browser may keep the old page's locks and handles for a moment, so "in use" is
 * asked again for a while before it is believed.
 */

import { type Clock, sleep } from "../../base/clock.ts";
import { BlockError } from "../../base/errors.ts";

const PATIENCE_MS = 2000;
const PAUSE_MS = 50;

/**
 * Calls until the answer is not EBUSY, for about two seconds.
 *
 * @throws BlockError whatever the call threw last; ECANCELED if the signal is raised in between
 */
export async function retryWhileBusy<T>(
  clock: Clock,
  signal: AbortSignal | undefined,
  call: () => Promise<T>,
): Promise<T> {
  const end = clock.now() + PATIENCE_MS;
  for (;;) {
    try {
      return await call();
    } catch (error) {
      const busy = error instanceof BlockError && error.errno === "EBUSY";
      if (!busy || clock.now() >= end) throw error;
    }
    await sleep(clock, PAUSE_MS, signal);
  }
}
