/**
 * Who is at which bytes of one node: many readers or one writer at any byte, first come first
 * served (QEMU: tracked requests and bdrv_wait_serialising_requests() in block/io.c).
 *
 * A request takes one range and gives it back; it never asks for a second range of the same node
 * while it holds one, and nodes are taken from the top of the graph down. So there are no circles.
 */

import { BlockError } from "../base/errors.ts";

export interface HeldRange {
  readonly offset: number;
  readonly end: number;
  readonly exclusive: boolean;
  /** Wakes the request once nothing before it stands in its way. */
  granted?: () => void;
}

export class RangeLock {
  /** In order of arrival; those with `granted` still wait. A few dozen at most. */
  readonly #ranges: HeldRange[] = [];

  get idle(): boolean {
    return this.#ranges.length === 0;
  }

  /**
   * Takes [offset, offset + bytes); give it back with release().
   *
   * @param bytes may be Infinity
   * @throws BlockError ECANCELED if the signal is raised while waiting
   */
  async acquire(
    offset: number,
    bytes: number,
    exclusive: boolean,
    signal?: AbortSignal,
  ): Promise<HeldRange> {
    const range: HeldRange = { offset, end: offset + bytes, exclusive };
    this.#ranges.push(range);
    if (this.#isBlocked(range)) await this.#granted(range, signal);
    return range;
  }

  /** The same where there is nothing to wait for, as there mostly is not; else null. */
  tryAcquire(offset: number, bytes: number, exclusive: boolean): HeldRange | null {
    const range: HeldRange = { offset, end: offset + bytes, exclusive };
    if (this.#isBlocked(range)) return null;
    this.#ranges.push(range);
    return range;
  }

  /** Whether somebody has a part of it, or waits for one. */
  isTaken(offset: number, bytes: number): boolean {
    return this.#ranges.some((other) => other.offset < offset + bytes && offset < other.end);
  }

  release(range: HeldRange): void {
    this.#ranges.splice(this.#ranges.indexOf(range), 1);
    for (const waiter of this.#ranges) {
      if (waiter.granted && !this.#isBlocked(waiter)) {
        const { granted } = waiter;
        delete waiter.granted;
        granted();
      }
    }
  }

  /** True if a range that came before this one, held or waiting, must be gone first. */
  #isBlocked(range: HeldRange): boolean {
    for (const other of this.#ranges) {
      if (other === range) return false;
      const overlaps = other.offset < range.end && range.offset < other.end;
      if (overlaps && (other.exclusive || range.exclusive)) return true;
    }
    return false;
  }

  #granted(range: HeldRange, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const stop = () => {
        if (range.granted === undefined) return; // Granted in the same turn: the holder releases.
        this.release(range);
        reject(new BlockError("ECANCELED", "Operation canceled"));
      };
      range.granted = () => {
        signal?.removeEventListener("abort", stop);
        resolve();
      };
      if (signal?.aborted) stop();
      else signal?.addEventListener("abort", stop, { once: true });
    });
  }
}
