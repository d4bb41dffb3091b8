/**
 * Time that moves only when told to: an hour of a rate-limited job runs in a millisecond, and the
 * same seed gives the same run.
 *
 * Before time moves, and between any two timers, everything that can go on without time does:
 * promises settle, and those who wait in yield() get their turns.
 */

import { type Clock, SystemClock, type Timer } from "./clock.ts";
import { assert } from "./errors.ts";

/** Turns of the event loop given away before time moves on, so that polling loops end too. */
const TURNS_PER_MOMENT = 1000;

/** 2020-01-01, so that wall times look like wall times. */
const WALL_START_SECONDS = 1_577_836_800;

interface Alarm {
  readonly dueMs: number;
  readonly callback: () => void;
}

/** Gives virtual clocks real turns of the event loop; one for all, as it holds a message port. */
let eventLoop: SystemClock | null = null;

export class VirtualClock implements Clock {
  #nowMs: number;
  /** By time; of equal times the one set first is first. */
  readonly #alarms: Alarm[] = [];
  /** How many are waiting in yield(). */
  #yielding = 0;
  #moving = false;

  constructor(startMs = 0) {
    this.#nowMs = startMs;
  }

  now(): number {
    return this.#nowMs;
  }

  timestamp(): { seconds: number; microseconds: number } {
    const microseconds = Math.floor(this.#nowMs * 1000);
    return {
      seconds: WALL_START_SECONDS + Math.floor(microseconds / 1e6),
      microseconds: microseconds % 1e6,
    };
  }

  /** How many timers are set and have not run. */
  get timerCount(): number {
    return this.#alarms.length;
  }

  setTimer(ms: number, callback: () => void): Timer {
    assert(ms >= 0, "a timer is set 0 or more milliseconds ahead");
    const alarm = { dueMs: this.#nowMs + ms, callback };
    const later = this.#alarms.findIndex((other) => other.dueMs > alarm.dueMs);
    this.#alarms.splice(later === -1 ? this.#alarms.length : later, 0, alarm);
    return {
      cancel: () => {
        const at = this.#alarms.indexOf(alarm);
        if (at !== -1) this.#alarms.splice(at, 1);
      },
    };
  }

  /** A real turn of the event loop; time stands still. */
  async yield(): Promise<void> {
    this.#yielding++;
    await turn();
    this.#yielding--;
  }

  /**
   * Moves time on by `ms` >= 0 and runs the timers that fall due, in order, those that they set
   * included. What a timer throws rejects the promise.
   */
  async advance(ms: number): Promise<void> {
    assert(ms >= 0, "time does not go back");
    await this.#move(async () => {
      const endMs = this.#nowMs + ms;
      await this.#settle();
      while (this.#alarms.length > 0 && this.#alarms[0]!.dueMs <= endMs) {
        this.#ring();
        await this.#settle();
      }
      this.#nowMs = endMs;
    });
  }

  /** The machine is asleep: time passes, and no timer runs. After that all that fell due are late. */
  sleepMachine(ms: number): void {
    assert(ms >= 0 && !this.#moving, "a machine goes to sleep while nothing runs");
    this.#nowMs += ms;
  }

  /**
   * Moves time on from timer to timer until the promise settles, and settles like it. Without a
   * timer it waits in real turns, for work that is not on this clock.
   *
   * @param stepCount how many timers or turns it may take; after that it throws, naming what it saw
   */
  async runUntil<T>(promise: Promise<T>, stepCount = 100_000): Promise<T> {
    let settled = false;
    const done = () => {
      settled = true;
    };
    promise.then(done, done);
    await this.#move(async () => {
      await this.#settle();
      for (let step = 0; !settled; step++) {
        assert(
          step < stepCount,
          `the promise settles within ${stepCount} steps (now ${this.#nowMs} ms, ` +
            `${this.#alarms.length} timers set)`,
        );
        if (this.#alarms.length > 0) this.#ring();
        await this.#settle();
      }
    });
    return promise;
  }

  /** Goes to the next timer and runs it. */
  #ring(): void {
    const alarm = this.#alarms.shift()!;
    this.#nowMs = Math.max(this.#nowMs, alarm.dueMs);
    alarm.callback();
  }

  /** Lets everything go on that needs no time. */
  async #settle(): Promise<void> {
    await turn();
    for (let i = 0; this.#yielding > 0 && i < TURNS_PER_MOMENT; i++) await turn();
  }

  async #move(body: () => Promise<void>): Promise<void> {
    assert(!this.#moving, "one caller at a time moves the clock");
    this.#moving = true;
    try {
      await body();
    } finally {
      this.#moving = false;
    }
  }
}

/** The end of the current task: all promises that can settle have. */
function turn(): Promise<void> {
  eventLoop ??= new SystemClock();
  return eventLoop.yield();
}
