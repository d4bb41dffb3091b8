/**
 * What one chain of calls holds, and whether it may take more. Everything here is an assert(): who
 * breaks a rule has a bug, which must show on the first run and not on the first unlucky one.
 *
 *     R1  locks in the order driver, domain, monitor; one of each
 *     R2  no monitor without a job
 *     R5  no wait for a job with the driver's lock, or inside a monitor
 *     R7  every begin has one end, every enter one exit, in pairs like brackets
 *
 * A chain waits for one thing at a time. Since everybody goes up the ranks, and nobody waits for a job
 * with a lock or another job in hand, nor for a change with any job, no circle of waiters can close.
 */

import { assert } from "../../base/errors.ts";
import type { JobSlot } from "./job-classes.ts";
import type { Lock } from "./lock.ts";

/** Lower first. */
export const RANKS = { driver: 1, domain: 2, monitor: 3 } as const;

export type LockKind = keyof typeof RANKS;

/** Whoever has slots to hold: a DomainJob. */
type SlotOwner = object;

export class RankChecker {
  readonly #api: string;
  readonly #locks: Lock[] = [];
  readonly #slots: { readonly of: SlotOwner; readonly slot: JobSlot }[] = [];
  #waiting = false;

  constructor(api: string) {
    this.#api = api;
  }

  holds(lock: Lock): boolean {
    return this.#locks.includes(lock);
  }

  holdsSlot(of: SlotOwner, slot: JobSlot): boolean {
    return this.#slots.some((held) => held.of === of && held.slot === slot);
  }

  /** Of any domain. */
  get holdsJob(): boolean {
    return this.#slots.length > 0;
  }

  /** Before the chain takes a lock, whether it is free or not (R1). */
  mayTake(lock: Lock): void {
    assert(!this.#waiting, `${this.#api} waits for one thing at a time`);
    for (const held of this.#locks) {
      const rule = `the ${lock.kind} lock is taken before the ${held.kind} lock, and one of each`;
      assert(RANKS[held.kind] < RANKS[lock.kind], `${rule}: ${this.#api} holds ${held.name}`);
    }
  }

  took(lock: Lock): void {
    this.#locks.push(lock);
  }

  gave(lock: Lock): void {
    assert(this.holds(lock), `${this.#api} gives back locks that it holds: ${lock.name}`);
    this.#locks.splice(this.#locks.indexOf(lock), 1);
  }

  /** Before the chain waits for a job of `of` (R5). `inside` its own async job it may. */
  mayBegin(of: SlotOwner, inside: boolean): void {
    for (const { kind } of this.#locks)
      assert(kind === "domain", `${this.#api} waits for a job without the ${kind} lock`);
    for (const held of this.#slots) {
      const isOuter = inside && held.of === of && held.slot === "async";
      assert(isOuter, `${this.#api} holds one job at a time, and has one`);
    }
  }

  /** The slot may have been taken by a chain before this one: an async job outlives its call. */
  tookSlot(of: SlotOwner, slot: JobSlot): void {
    this.#slots.push({ of, slot });
  }

  gaveSlot(of: SlotOwner, slot: JobSlot): void {
    const at = this.#slots.findIndex((held) => held.of === of && held.slot === slot);
    assert(at >= 0, `${this.#api} ends jobs that it has begun`);
    this.#slots.splice(at, 1);
  }

  /** While a promise is awaited that makes the chain wait. */
  async during<T>(wait: Promise<T>): Promise<T> {
    assert(!this.#waiting, `${this.#api} waits for one thing at a time`);
    this.#waiting = true;
    try {
      return await wait;
    } finally {
      this.#waiting = false;
    }
  }

  /** At the end of the chain (R7). */
  nothingLeft(): void {
    assert(this.#locks.length === 0, `${this.#api} gives back its locks: ${this.#locks[0]?.name}`);
    assert(this.#slots.length === 0, `${this.#api} ends its jobs`);
  }
}
