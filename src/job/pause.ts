/**
 * Where a job stands still, and what makes it go on.
 *
 * A job is at work (busy), or it waits in exactly one place: asleep with a timer, yielded without
 * one, or parked at a pause point. There is one way on, enter(). Requests to pause are counted: each
 * drain of a node counts one, and the user counts one at most, however often asked.
 *
 *            sleep, yield                 a pause is wanted
 *   busy ───────────────────▶ waiting ────────────────────▶ parked (paused, standby)
 *    ▲                           │ enter(): timer, cancel,    │ enter(): the last resume,
 *    └───────────────────────────┴────────────────────────────┘ force cancel
 *
 * A job that is asleep has nothing in flight, so a pause parks it on the spot, and a resume tells of
 * it before it returns: that is what puts events before the reply to the command.
 * (QEMU: job_pause_point, job_do_yield, job_enter_cond in job.c.)
 */

import type { Clock, Timer } from "../base/clock.ts";
import { assert } from "../base/errors.ts";

/** The gate's view of its job. */
export interface GateOwner {
  readonly clock: Clock;
  /** Force-cancelled: no pause holds it any more. */
  isCancelled(): boolean;
  /** Set if the driver wants to be told of pauses; then only a pause point can park the job. */
  readonly quiesce: (() => void | Promise<void>) | undefined;
  readonly restart: (() => void | Promise<void>) | undefined;
  /** running → paused, ready → standby. */
  parked(): void;
  /** paused → running, standby → ready. */
  unparked(): void;
  /** The job has stopped working. */
  idle(): void;
}

export class PauseGate {
  readonly #owner: GateOwner;
  /** A job is born parked; its start takes this one back. */
  #count = 1;
  #userPaused = false;
  #busy = false;
  #parked = true;
  #timer: Timer | null = null;
  /** Lets the waiting job go on. Null while it is at work, before its start and after its end. */
  #wake: (() => void) | null = null;

  constructor(owner: GateOwner) {
    this.#owner = owner;
  }

  /** More than 0: somebody wants the job to stand still. */
  get count(): number {
    return this.#count;
  }

  /** The user's pause: contributes exactly one to the count. */
  get userPaused(): boolean {
    return this.#userPaused;
  }

  get parked(): boolean {
    return this.#parked;
  }

  /** At work, or on its way without having to be entered. */
  get busy(): boolean {
    return this.#busy;
  }

  /** The job starts. What was asked for before parks it at its first pause point. */
  open(): void {
    this.#count--;
    this.#busy = true;
    this.#parked = false;
  }

  /**
   * run() is over; nothing enters the job any more.
   *
   * @returns false if run() left a sleep, yield or pause point behind that it did not await: a bug,
   *   but nobody shall wait for ever
   */
  close(): boolean {
    const clean = this.#wake === null;
    if (!clean) this.#goOn();
    this.#busy = false;
    this.#owner.idle();
    return clean;
  }

  pause(): void {
    this.#count++;
    if (!this.#parked) this.enter();
  }

  /** Takes one pause back. The last one lets a parked job go on; it never cuts a sleep short. */
  resume(): void {
    assert(this.#count > 0, "each resume follows a pause of its own");
    this.#count--;
    if (this.#parked) this.enter();
  }

  /** A second user pause adds nothing. */
  userPause(): void {
    if (this.#userPaused) return;
    this.#userPaused = true;
    this.pause();
  }

  /** Takes the user's pause back without waking the job: the caller goes on with enter(). */
  dropUserPause(): void {
    assert(this.#userPaused && this.#count > 0, "the user's pause counts one");
    this.#userPaused = false;
    this.#count--;
  }

  userResume(): void {
    assert(this.#userPaused, "the user's pause is there to be taken back");
    this.#userPaused = false;
    this.resume();
  }

  /** Makes a waiting job look around: it goes on, or parks if a pause is wanted. */
  enter(): void {
    if (this.#wake === null) return;
    this.#stopTimer();
    if (this.#wanted) {
      if (this.#parked) return;
      if (!this.#owner.quiesce && !this.#owner.restart) {
        this.#park();
        return;
      }
    }
    this.#goOn();
  }

  /** Ends a sleep early; leaves a job alone that waits for anything else. */
  endSleep(): void {
    if (this.#timer !== null) this.enter();
  }

  /** See Job.pausePoint(). */
  async pausePoint(): Promise<void> {
    assert(this.#busy, "only the running job itself comes to a pause point");
    while (this.#wanted) {
      // Without one the job parks before pausePoint() returns, and start() with it.
      if (this.#owner.quiesce) await this.#owner.quiesce();
      // Only now is the job quiet; whoever wanted that may have changed their mind.
      if (this.#wanted) await this.#wait(() => this.#park());
      if (this.#owner.restart) await this.#owner.restart();
    }
  }

  /** See Job.sleep(). */
  async sleep(ms: number): Promise<void> {
    assert(this.#busy, "only the running job itself sleeps");
    if (this.#owner.isCancelled()) return;
    if (!this.#wanted) await this.#wait((wake) => this.#setTimer(ms, wake));
    await this.pausePoint();
  }

  /** See Job.yield(). */
  async yield(): Promise<void> {
    assert(this.#busy, "only the running job itself yields");
    if (this.#owner.isCancelled()) return;
    if (!this.#wanted) await this.#wait(() => {});
    await this.pausePoint();
  }

  get #wanted(): boolean {
    return this.#count > 0 && !this.#owner.isCancelled();
  }

  /** @param begin runs when enter() already works, as its events may lead to one */
  #wait(begin: (wake: () => void) => void): Promise<void> {
    assert(this.#wake === null, "a job waits in one place at a time");
    return new Promise((resolve) => {
      this.#wake = resolve;
      this.#busy = false;
      begin(resolve);
      if (!this.#busy) this.#owner.idle();
    });
  }

  #goOn(): void {
    const wake = this.#wake!;
    this.#stopTimer();
    this.#wake = null;
    this.#busy = true;
    if (this.#parked) {
      this.#parked = false;
      this.#owner.unparked();
    }
    wake();
  }

  #park(): void {
    this.#parked = true;
    this.#owner.parked();
  }

  #stopTimer(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  #setTimer(ms: number, wake: () => void): void {
    if (ms > 0) {
      this.#timer = this.#owner.clock.setTimer(ms, () => this.enter());
      return;
    }
    // One turn for the others. A timer of 0 ms would be one of 4 ms in a browser.
    void this.#owner.clock.yield().then(() => {
      if (this.#wake === wake) this.enter();
    });
  }
}
