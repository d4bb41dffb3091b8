/**
 * What the locks know of a domain (libvirt: virDomainObj): its lock, its job, its monitor, and how long
 * it lives. And of the driver that has the domains: one lock, and what all calls have in common.
 *
 *     driver's lock ──▶ domain's lock ──▶ monitor's lock          the order in which they are taken
 *                            │
 *                         the job        to be waited for with the domain's lock, which the wait drops
 */

import type { Clock } from "../../base/clock.ts";
import { assert, BlockError } from "../../base/errors.ts";
import { Condition } from "./condition.ts";
import { Ctx } from "./ctx.ts";
import { DomainJob } from "./domain-job.ts";
import { JobError } from "./job-error.ts";
import { Lock, type LockWorld } from "./lock.ts";
import { Reference } from "./reference.ts";

/** libvirt's QEMU_JOB_WAIT_TIME. */
const JOB_WAIT_MS = 30_000;

export interface DriverOptions {
  /** How long a call waits for its turn. */
  readonly jobWaitMs?: number;
  /** How many calls may have or wait for the job of one domain, whoever has it counted; 0: any number. */
  readonly maxQueued?: number;
  readonly onStep?: LockWorld["onStep"];
}

export class DriverObject implements LockWorld {
  readonly clock: Clock;
  readonly onStep: LockWorld["onStep"];
  readonly jobWaitMs: number;
  readonly maxQueued: number;
  readonly lock: Lock;

  constructor(clock: Clock, options: DriverOptions = {}) {
    this.clock = clock;
    this.onStep = options.onStep;
    this.jobWaitMs = options.jobWaitMs ?? JOB_WAIT_MS;
    this.maxQueued = options.maxQueued ?? 0;
    this.lock = new Lock(this, "driver", "the list of domains");
  }

  /**
   * Runs one call that has come in, as a chain of its own.
   *
   * @param api the name that clients know it by
   */
  async call<T>(api: string, work: (ctx: Ctx) => Promise<T>, signal?: AbortSignal): Promise<T> {
    const ctx = new Ctx(api, signal);
    let result: T;
    try {
      result = await work(ctx);
    } catch (error) {
      // After a bug there may well be something left, but it is not what went wrong first.
      if (error instanceof BlockError) ctx.held.nothingLeft();
      throw error;
    }
    ctx.held.nothingLeft();
    return result;
  }
}

/** A monitor, kept until the last command in it has come back. */
export interface AttachedMonitor<Monitor> {
  readonly handle: Monitor;
  readonly lock: Lock;
  readonly reference: Reference;
}

export class DomainObject<Monitor = unknown> {
  readonly driver: DriverObject;
  readonly name: string;
  readonly lock: Lock;
  readonly job: DomainJob;
  /** The maker's reference is given back with remove(). */
  readonly reference: Reference;
  /** Rung when something has changed that a call may wait for without a job (waitFor()). */
  readonly changes: Condition;
  #running = false;
  #removed = false;
  #monitor: AttachedMonitor<Monitor> | null = null;

  /** @param dispose runs once nobody uses the domain any more, after its removal */
  constructor(driver: DriverObject, name: string, dispose: () => void = () => {}) {
    this.driver = driver;
    this.name = name;
    this.lock = new Lock(driver, "domain", `the lock of domain '${name}'`);
    this.job = new DomainJob(this.lock, driver.clock);
    this.changes = new Condition(this.lock, driver.clock);
    this.reference = new Reference(`domain '${name}'`, () => {
      assert(this.lock.holder === null, `domain '${name}' is not locked at its end`);
      assert(this.job.queued === 0, `domain '${name}' has no job at its end`);
      this.detachMonitor();
      dispose();
    });
  }

  get isRunning(): boolean {
    return this.#running;
  }

  get isRemoved(): boolean {
    return this.#removed;
  }

  get monitor(): AttachedMonitor<Monitor> | null {
    return this.#monitor;
  }

  /** Its disks, jobs or state have changed: whoever waits looks again. */
  changed(): void {
    this.changes.broadcast();
  }

  /**
   * It runs, or stands still. Whoever waits for its job and needs it running learns of it now: to end a
   * domain, set this first and then begin the job destroy.
   */
  setRunning(running: boolean): void {
    this.#running = running;
    this.changed();
    this.job.condition.broadcast();
  }

  /** @param dispose runs when it is detached and the last command has come back */
  attachMonitor(handle: Monitor, dispose: () => void = () => {}): void {
    assert(this.#monitor === null, `domain '${this.name}' has one monitor`);
    const name = `the monitor of domain '${this.name}'`;
    const lock = new Lock(this.driver, "monitor", name);
    this.#monitor = { handle, lock, reference: new Reference(name, dispose) };
  }

  /** No new command goes in. Harmless when there is none. */
  detachMonitor(): void {
    const monitor = this.#monitor;
    this.#monitor = null;
    monitor?.reference.release();
  }

  /**
   * It is in no list any more. Calls that wait for it fail, the one that has its job ends first: this is
   * the last that anybody does with a domain.
   */
  remove(): void {
    assert(!this.#removed, `domain '${this.name}' is removed once`);
    this.#removed = true;
    this.setRunning(false);
    this.reference.release();
  }

  /** @throws JobError gone, if it has been removed or, for who needs that, does not run */
  mustBeThere(ctx: Ctx, running: boolean): void {
    const gone = this.#removed ? "removed" : running && !this.#running ? "not-running" : null;
    if (gone) throw new JobError("gone", `domain '${this.name}'`, ctx.api, null, gone);
  }
}
