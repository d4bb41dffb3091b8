/**
 * Time, as a parameter.
 *
 * Nothing above this floor reads a clock or sets a timer on its own: it is handed a Clock. With the
 * VirtualClock a test decides when time passes, and a run can be replayed from its seed.
 */

import { BlockError } from "./errors.ts";

export interface Timer {
  /** Forgets the callback. Harmless when it has already run. */
  cancel(): void;
}

export interface Clock {
  /** Milliseconds since some fixed moment; never goes back. Fractions are allowed. */
  now(): number;
  /** Wall time for people and for QMP events. May jump. */
  timestamp(): { readonly seconds: number; readonly microseconds: number };
  /** Calls back once, `ms` >= 0 milliseconds from now, never before setTimer() has returned. */
  setTimer(ms: number, callback: () => void): Timer;
  /** Lets messages and other tasks run, then resolves. Long loops call it every 5 to 20 ms. */
  yield(): Promise<void>;
}

/**
 * Resolves after `ms` milliseconds.
 *
 * @throws BlockError ECANCELED as soon as the signal is raised
 */
export function sleep(clock: Clock, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      timer.cancel();
      reject(new BlockError("ECANCELED", "Operation canceled"));
    };
    const timer = clock.setTimer(ms, () => {
      signal?.removeEventListener("abort", stop);
      resolve();
    });
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}

/** 25 days. What is longer setTimeout() takes for no time at all. */
const TIMEOUT_MS_MAX = 2 ** 31 - 1;

/** Node's; browsers have none. */
const { setImmediate } = globalThis as { readonly setImmediate?: (callback: () => void) => void };

/** The machine's own clock: one per engine. */
export class SystemClock implements Clock {
  readonly #channel = setImmediate ? null : new MessageChannel();
  readonly #waiting: (() => void)[] = [];

  constructor() {
    if (this.#channel) this.#channel.port1.onmessage = () => this.#waiting.shift()?.();
  }

  now(): number {
    return performance.now();
  }

  timestamp(): { seconds: number; microseconds: number } {
    const ms = Date.now();
    return { seconds: Math.floor(ms / 1000), microseconds: (ms % 1000) * 1000 };
  }

  setTimer(ms: number, callback: () => void): Timer {
    let left = ms;
    let handle: ReturnType<typeof setTimeout>;
    const wait = () => {
      const stage = Math.min(left, TIMEOUT_MS_MAX);
      left -= stage;
      handle = setTimeout(left > 0 ? wait : callback, stage);
    };
    wait();
    return { cancel: () => clearTimeout(handle) };
  }

  /**
   * In browsers a posted message comes back in microseconds, where setTimeout(0) is clamped to 4 ms. On
   * Node messages would not do: a port takes up to a thousand of them in a row before timers and sockets
   * have their turn.
   */
  yield(): Promise<void> {
    return new Promise<void>((resolve) => {
      if (setImmediate) return void setImmediate(resolve);
      this.#waiting.push(resolve);
      this.#channel?.port2.postMessage(null);
    });
  }
}
