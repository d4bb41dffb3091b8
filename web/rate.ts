/**
 * How fast a job moves and when it will be there, from samples of its progress.
 *
 * The rate is taken over a window of the last few seconds, so a hole that is skipped in no time is
 * forgotten after one window instead of being smeared over the rest of the job. A value, not an
 * object with habits: adding a sample gives a new meter, and time comes in with the sample.
 *
 *   offset ^                 x now
 *          |           x
 *          |     x                     rate = rise / run between the two ends
 *          | x oldest kept
 *          +-|---- WINDOW_MS ---|--> time
 */

const WINDOW_MS = 4000;
/** Two samples closer than this say more about the clock than about the job. */
const SHORTEST_RUN_MS = 400;

interface Sample {
  readonly atMs: number;
  readonly offset: number;
}

/** Oldest first; offsets never go down within one meter. */
export type RateMeter = readonly Sample[];

export const STILL: RateMeter = [];

/**
 * @param nowMs of a clock that never goes back
 * @param offset bytes done by now. Fewer than before means another run: the meter starts afresh
 */
export function addSample(meter: RateMeter, nowMs: number, offset: number): RateMeter {
  const last = meter.at(-1);
  const sample = { atMs: nowMs, offset };
  if (last === undefined || offset < last.offset) return [sample];
  // The newest sample outside of the window stays: it is the window's left edge.
  const edge = meter.findLastIndex((old) => nowMs - old.atMs >= WINDOW_MS);
  return [...meter.slice(Math.max(edge, 0)), sample];
}

/** Bytes per second over the window; undefined until there is enough to go by. */
export function rateOf(meter: RateMeter): number | undefined {
  const first = meter[0];
  const last = meter.at(-1);
  if (first === undefined || last === undefined) return undefined;
  const runMs = last.atMs - first.atMs;
  if (runMs < SHORTEST_RUN_MS) return undefined;
  return ((last.offset - first.offset) * 1000) / runMs;
}

/** Seconds until `bytes` more are done; undefined if nothing moves or nobody knows yet. */
export function etaSeconds(meter: RateMeter, bytes: number): number | undefined {
  if (bytes <= 0) return 0;
  const rate = rateOf(meter);
  return rate === undefined || rate === 0 ? undefined : bytes / rate;
}
