/** Waits that a signal may end. */

import { Bell } from "./bell.ts";

/**
 * A promise as `new Promise(begin)`, of which `cancel` is told when the signal is raised before it has
 * settled. What comes of it then is up to `cancel`. The signal must not be raised yet.
 */
export function cancelable<T, Reason>(
  signal: AbortSignal | undefined,
  cancel: () => void,
  begin: (resolve: (value: T) => void, reject: (reason: Reason) => void) => void,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const settled = () => signal?.removeEventListener("abort", cancel);
    signal?.addEventListener("abort", cancel, { once: true });
    begin(
      (value) => {
        settled();
        resolve(value);
      },
      (reason) => {
        settled();
        reject(reason);
      },
    );
  });
}

/**
 * Settles as the promise does. The signal ends the wait, not what is waited for.
 *
 * @throws BlockError ECANCELED as soon as the signal is raised
 */
export async function unlessAborted<T>(
  promise: Promise<T>,
  signal: AbortSignal | undefined,
): Promise<T> {
  if (!signal) return promise;
  const bell = new Bell();
  const ring = () => bell.ring();
  promise.then(ring, ring);
  await bell.rung(signal);
  return promise;
}
