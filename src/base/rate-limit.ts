/**
 * How long to wait so that a mean rate is kept: post-paid, in slices of 100 ms.
 *
 * Work is charged after it was done, so the first chunk of a slice is free and the debt makes the
 * slice longer. What a slice leaves unused is lost: a rest earns no burst. Pure arithmetic on the
 * times it is handed, so the same calls give the same answers.
 *
 *   quota 100     charge 60      charge 90 → wait 50
 *   slice         |‾‾‾‾‾‾‾‾‾‾‾‾‾‾|‾‾‾‾‾‾‾|
 *                 0 ms          100     150 ms   then a new slice may begin
 *
 * Behaviour of QEMU include/qemu/ratelimit.h (version 8.1 and later).
 */

import { assert } from "./errors.ts";

const SLICE_MS = 100;

export class RateLimit {
  #speed = 0;
  /** Bytes per slice; 0 is no limit. */
  #quota = 0;
  #sliceStartMs = 0;
  /** Long ago, so that the first charge opens a slice. */
  #sliceEndMs = Number.NEGATIVE_INFINITY;
  #dispatched = 0;

  /** Bytes per second, as set; 0 is no limit. */
  get speed(): number {
    return this.#speed;
  }

  /**
   * Takes effect with the next delay(). What was charged in the current slice stays charged.
   *
   * @param bytesPerSecond whole number >= 0; 0 is no limit. Kept to multiples of 10, and at least
   *   10: 1 to 19 are all 10.
   */
  setSpeed(bytesPerSecond: number): void {
    assert(bytesPerSecond >= 0, "a speed is 0 or more bytes per second");
    this.#speed = bytesPerSecond;
    this.#quota =
      bytesPerSecond === 0 ? 0 : Math.max(Math.floor((bytesPerSecond * SLICE_MS) / 1000), 1);
  }

  /**
   * Charges `bytes` and tells how long to wait before the next request. Zero bytes only ask.
   *
   * @param nowMs of one clock that never goes back
   * @returns milliseconds >= 0, fractions included. Somebody who wakes early asks again and gets
   *   the rest.
   */
  delay(bytes: number, nowMs: number): number {
    if (this.#quota === 0) return 0;
    if (this.#sliceEndMs < nowMs) {
      this.#sliceStartMs = nowMs;
      this.#sliceEndMs = nowMs + SLICE_MS;
      this.#dispatched = 0;
    }
    this.#dispatched += bytes;
    if (this.#dispatched < this.#quota) return 0;
    this.#sliceEndMs = this.#sliceStartMs + (this.#dispatched / this.#quota) * SLICE_MS;
    // A speed that was raised within the slice may have moved its end into the past.
    return Math.max(this.#sliceEndMs - nowMs, 0);
  }
}

/** Starts that are closer together than this may be counted as one, at the later time. */
const COARSE_MS = 1;
const STARTS_MAX = 1024;

/**
 * What a rate limit leaves open: each slice lets a chunk go free, and a whole batch of small ones.
 * With this beside it, the bytes that start in any second are at most `speed` and one chunk.
 *
 * (Not in QEMU, whose bursts are longer: mirror's as long as its buffer.)
 */
export class BurstCap {
  /** What started within the last second, oldest first. */
  readonly #starts: { atMs: number; bytes: number }[] = [];
  #bytes = 0;

  /** @param bytes that start now */
  record(bytes: number, nowMs: number): void {
    this.#forget(nowMs);
    this.#bytes += bytes;
    const last = this.#starts.at(-1);
    if (last && (last.atMs === nowMs || this.#isCrowded(nowMs - last.atMs))) {
      last.atMs = nowMs;
      last.bytes += bytes;
    } else {
      this.#starts.push({ atMs: nowMs, bytes });
    }
  }

  /** @returns milliseconds >= 0 until one more chunk may start */
  delay(speed: number, nowMs: number): number {
    this.#forget(nowMs);
    let left = this.#bytes;
    for (const { atMs, bytes } of this.#starts) {
      if (left <= speed) break;
      left -= bytes;
      if (left <= speed) return atMs + 1000 - nowMs;
    }
    return 0;
  }

  #isCrowded(gapMs: number): boolean {
    return gapMs < COARSE_MS && this.#starts.length >= STARTS_MAX;
  }

  #forget(nowMs: number): void {
    let old = 0;
    for (const { atMs, bytes } of this.#starts) {
      if (atMs + 1000 > nowMs) break;
      this.#bytes -= bytes;
      old++;
    }
    if (old > 0) this.#starts.splice(0, old);
  }
}
