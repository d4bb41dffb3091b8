/**
 * A job: one long operation, and what may be asked of it.
 *
 * Requests from outside (pause, cancel, complete) set a flag and wake the job if it is waiting; the
 * job obeys at its next pause point, with nothing in flight. The one thing that reaches into running
 * I/O is `signal`, raised by a force cancel: QEMU has no such thing, but a browser's retries over
 * HTTP would keep a cancelled job alive for minutes.
 *
 * This file is a job's own life. state.ts is what can be seen of it, pause.ts how it stands still,
 * txn.ts how it ends with others, verbs.ts what users may do. (QEMU: job.c, include/qemu/job.h.)
 */

import { Bell } from "../base/bell.ts";
import { assert } from "../base/errors.ts";
import { PauseGate } from "./pause.ts";
import { type JobOptions, JobState } from "./state.ts";

export class Job extends JobState {
  /** Settles when the job is concluded, or null at once; never rejects. */
  readonly finished: Promise<void>;
  /** For JobTxn: settles when run() is over and its result settled. */
  readonly runEnded: Promise<void>;
  protected readonly self = this;

  readonly #gate: PauseGate;
  readonly #idle = new Bell();
  #tellFinished!: () => void;
  #tellRunEnded!: () => void;
  #ended = false;

  /**
   * Makes the job, created, and puts it at the head of its list and group. Whoever makes a job
   * starts it, or ends it with earlyFail() or cancel(): all others of its group wait for it.
   *
   * @throws BlockError EINVAL or EEXIST for a bad or taken id, ECANCELED if the group has ended
   */
  constructor(options: JobOptions) {
    super(options);
    const { driver, list } = options;
    this.finished = new Promise((resolve) => {
      this.#tellFinished = resolve;
    });
    this.runEnded = new Promise((resolve) => {
      this.#tellRunEnded = resolve;
    });
    this.#gate = new PauseGate({
      clock: options.clock,
      isCancelled: () => this.cancelled,
      quiesce: driver.pause && (() => driver.pause?.(this)),
      restart: driver.resume && (() => driver.resume?.(this)),
      parked: () => this.move(this.ready ? "standby" : "paused"),
      unparked: () => this.move(this.ready ? "ready" : "running"),
      idle: () => {
        this.tell({ kind: "idle" });
        this.#idle.ring();
      },
    });
    this.txn.checkOpen();
    list.add(this);
    this.txn.add(this);
    this.move("created");
  }

  /** At work. Not busy means: nothing in flight, and a pause would park it before any more work. */
  get busy(): boolean {
    return this.#gate.busy;
  }

  /** Parked at a pause point, or not yet started: no requests in flight, no timer set. */
  get parked(): boolean {
    return this.#gate.parked;
  }

  /** How many want the job to stand still; 1 before its start. */
  get pauseCount(): number {
    return this.#gate.count;
  }

  get userPaused(): boolean {
    return this.#gate.userPaused;
  }

  // For the creator

  /**
   * created → running, told before it returns; the driver's run() begins right after. Does nothing
   * if the job was cancelled before it could start: its end is told already, or on its way.
   */
  start(): void {
    if (this.cancelled) return;
    assert(this.status === "created", "a job is started once");
    this.wasStarted = true;
    this.#gate.open();
    this.move("running");
    this.#watch(this.#live());
  }

  /**
   * It could not be set up: created → null, without any of the driver's endings but free. Leaves a
   * job alone that was cancelled meanwhile, as that one ends by itself.
   */
  earlyFail(): void {
    if (this.cancelled) return;
    assert(this.status === "created", "only a job that never started fails early");
    this.txn.remove(this);
    this.#vanish();
    this.#watch(this.txn.withdrawn());
  }

  // For drivers, from within run()

  /**
   * The only place where a running job stops for a pause: call it between requests. Returns at once
   * unless a pause is wanted. A force cancel ends the pause: look at `cancelled` afterwards.
   */
  pausePoint(): Promise<void> {
    return this.#gate.pausePoint();
  }

  /**
   * Waits `ms` >= 0 milliseconds (0: one turn for others), then comes to a pause point. Pauses,
   * cancels and enter() end the wait early, so who needs the whole time asks its own clock.
   */
  sleep(ms: number): Promise<void> {
    return this.#gate.sleep(ms);
  }

  /** Waits until somebody calls enter(), then comes to a pause point. */
  yield(): Promise<void> {
    return this.#gate.yield();
  }

  /** running → ready. Once, from run(). */
  becomeReady(): void {
    this.move("ready");
    if (this.ready) this.tell({ kind: "ready" });
  }

  // For anybody below the user

  /** Ends a sleep or yield; does not end a pause. */
  enter(): void {
    this.#gate.enter();
  }

  /** Ends a sleep, for example because the speed was raised; leaves a yield alone. */
  endSleep(): void {
    this.#gate.endSleep();
  }

  /** One more wants the job to stand still: a drain. Wait for quiet() to see it obeyed. */
  pause(): void {
    this.#gate.pause();
  }

  /** Takes one pause() back. */
  resume(): void {
    this.#gate.resume();
  }

  /** Until the job is not busy or completed. @throws BlockError ECANCELED if the signal is raised */
  async quiet(signal?: AbortSignal): Promise<void> {
    while (this.busy && !this.completed) await this.#idle.rung(signal);
  }

  /** The pause that job-resume ends; also the on-error policy stop. A second one adds nothing. */
  userPause(): void {
    this.#gate.userPause();
  }

  /** Ends the user's pause, which there must be. */
  userResume(): void {
    this.guard(() => this.driver.userResume?.(this));
    if (this.userPaused) this.#gate.userResume();
  }

  /**
   * Asks the job to end, whatever its status; `finished` tells when it has.
   *
   *   never started                        the group is aborted
   *   at work                              it is woken and ends at its next look at `cancelled`
   *   its run is over: waiting, pending    by force the group is aborted, else ignored
   *   being finalized or aborting          too late, ignored
   *   concluded                            dismissed
   */
  cancel(force: boolean): void {
    if (this.status === "concluded") this.dismiss();
    const late = this.status === "aborting" || this.status === "null";
    if (late || this.txn.phase === "finalizing") return;
    this.requestCancel(force);
    if (this.started && !this.deferred) this.enter();
    else if (this.cancelled) this.#watch(this.txn.abort(this));
  }

  /** concluded → null. */
  dismiss(): void {
    assert(this.status === "concluded", "only a concluded job is dismissed");
    this.#vanish();
  }

  // For JobTxn

  /** The flags of a cancel, and the end of the user's pause. The caller wakes the job. */
  requestCancel(force: boolean): void {
    let byForce = true;
    this.guard(() => {
      byForce = this.driver.cancel?.(this, force) ?? true;
    });
    // A job that never ran has nothing to bring to a good end.
    byForce ||= force || !this.started;
    if (this.userPaused) {
      this.guard(() => this.driver.userResume?.(this));
      if (this.userPaused) this.#gate.dropUserPause();
    }
    if (!byForce && this.deferred) return;
    this.wasCancelled = true;
    if (byForce) this.forceCancel();
  }

  becomeWaiting(): void {
    this.move("waiting");
  }

  becomePending(): void {
    this.move("pending");
    // Unless somebody has heard of it and cancelled.
    if (this.txn.phase === "open" && !this.autoFinalize) this.tell({ kind: "pending" });
  }

  /** The driver's prepare; a failure is in `error` and the status aborting. */
  async prepare(): Promise<void> {
    try {
      await this.driver.prepare?.(this);
    } catch (reason) {
      this.fail(reason);
    }
    this.settle();
  }

  /** From the settled result to concluded: commit or abort, clean, cb, the last event. */
  async end(): Promise<void> {
    assert(!this.#ended, "a job ends once");
    this.#ended = true;
    this.settle();
    if (this.error) await this.mustNotFail(() => this.driver.abort?.(this));
    else await this.mustNotFail(() => this.driver.commit?.(this));
    await this.mustNotFail(() => this.#clean());
    this.settle();
    this.trace?.job_completed?.(this.id ?? "", this.error?.errno ?? "");
    this.guard(() => this.options.cb?.(this.error));
    if (this.started) {
      this.tell({ kind: this.cancelled ? "finalize-cancelled" : "finalize-completed" });
    }
    this.txn.remove(this);
    this.move("concluded");
    this.#tellFinished();
    if (this.status === "concluded" && (this.autoDismiss || !this.started)) this.dismiss();
  }

  // The life

  async #live(): Promise<void> {
    try {
      await this.pausePoint();
      const { beforeRun } = this.options.list.hooks;
      if (beforeRun && !this.internal) await this.#until(beforeRun(this));
      if (!this.cancelled) await this.driver.run(this);
    } catch (reason) {
      this.fail(reason);
    }
    this.runIsOver = true;
    // QEMU ends a job from its main loop: whoever started it is answered before it tells of its end.
    await this.clock.yield();
    if (!this.#gate.close()) this.fail(new Error("run() returned while one of its waits went on"));
    this.settle();
    this.#tellRunEnded();
    if (this.error) await this.txn.abort(this);
    else await this.txn.arrived(this);
  }

  /** As if asleep: a drain of its nodes must not wait for whoever is waited for here. */
  async #until(allowed: Promise<void>): Promise<void> {
    let isAllowed = false;
    this.#watch(
      allowed.then(() => {
        isAllowed = true;
        this.enter();
      }),
    );
    while (!isAllowed && !this.cancelled) await this.yield();
  }

  async #clean(): Promise<void> {
    const { beforeClean } = this.options.list.hooks;
    if (beforeClean && this.hasTakenEffect && !this.internal) await beforeClean(this);
    await this.driver.clean?.(this);
  }

  #vanish(): void {
    this.runIsOver = true;
    this.options.list.remove(this);
    this.move("null");
    this.#tellFinished();
    this.guard(() => this.driver.free?.(this));
  }

  /** For the job's own course, which never rejects unless this floor is wrong. */
  #watch(course: Promise<void>): void {
    course.catch((reason) => this.bug(reason));
  }
}
