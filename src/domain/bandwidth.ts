/**
 * Bandwidth, in libvirt's units. Calls take MiB/s unless a flag says bytes/s; inside all is bytes/s.
 * 0 is no limit, at the start and in blockJobSetSpeed() alike.
 */

import { MiB } from "../base/bytes.ts";
import { DomainError } from "./errors.ts";

/** What libvirt promises to take at least, and a number holds exactly. */
export const BANDWIDTH_BYTES_MAX = 2 ** 52;

/**
 * @param bandwidth MiB/s, or bytes/s if `isBytes`
 * @returns bytes/s
 * @throws DomainError INVALID_ARG, OVERFLOW
 */
export function toBytesPerSecond(bandwidth: number, isBytes: boolean): number {
  const isWhole = Number.isInteger(bandwidth) && bandwidth >= 0;
  if (!isWhole) {
    throw new DomainError("INVALID_ARG", `bandwidth must be a whole number >= 0, not ${bandwidth}`);
  }
  const bytes = isBytes ? bandwidth : bandwidth * MiB;
  if (bytes <= BANDWIDTH_BYTES_MAX) return bytes;
  const most = isBytes ? BANDWIDTH_BYTES_MAX : BANDWIDTH_BYTES_MAX / MiB;
  throw new DomainError("OVERFLOW", `bandwidth must be at most ${most}, not ${bandwidth}`);
}

/** MiB/s, rounded up so that a limit never looks like none; or bytes/s as they are. */
export function fromBytesPerSecond(bytes: number, isBytes: boolean): number {
  return isBytes ? bytes : Math.ceil(bytes / MiB);
}
