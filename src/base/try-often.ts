/** What a store refuses now it may take a moment later: full, busy, or in use by a program that looks at all files. */

import { type Clock, sleep } from "./clock.ts";
import { BlockError } from "./errors.ts";

/** Waits before the next tries. */
const RETRY_MS = [100, 1000, 5000];

/** @throws BlockError what the last try throws; ESTALE at once, since that does not pass */
export async function tryOften(clock: Clock, attempt: () => Promise<void>): Promise<void> {
  for (const ms of RETRY_MS) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof BlockError) || error.errno === "ESTALE") throw error;
    }
    await sleep(clock, ms);
  }
  await attempt();
}
