/**
 * A mutex with a rank, a holder that has a name, and a queue in the order of arrival.
 *
 * Between two awaits nobody else runs, so what a mutex is for in libvirt comes for free here. What
 * stays is what it is for across an await: nobody changes the list of domains while its record is
 * being written, one command at a time goes to a monitor.
 */

import type { Clock } from "../../base/clock.ts";
import { assert } from "../../base/errors.ts";
import type { Ctx } from "./ctx.ts";
import { JobError } from "./job-error.ts";
import type { LockKind } from "./rank-checker.ts";
import { type Limit, WaitList } from "./wait-list.ts";

/** What all locks of a driver share. */
export interface LockWorld {
  readonly clock: Clock;
  /** Told of every step that is taken, as "domain-lock"; for tests and for those who are curious. */
  readonly onStep?: ((step: string, ctx: Ctx, name: string) => void) | undefined;
}

export class Lock {
  readonly kind: LockKind;
  /** For people: "the lock of domain 'a'". */
  readonly name: string;
  readonly #world: LockWorld;
  readonly #waiting: WaitList<Ctx>;
  #holder: Ctx | null = null;
  #sinceMs = 0;

  constructor(world: LockWorld, kind: LockKind, name: string) {
    this.kind = kind;
    this.name = name;
    this.#world = world;
    this.#waiting = new WaitList(world.clock);
  }

  get holder(): Ctx | null {
    return this.#holder;
  }

  isHeldBy(ctx: Ctx): boolean {
    return this.#holder === ctx;
  }

  /** @returns whether the lock was free, and is the caller's now */
  tryLock(ctx: Ctx): boolean {
    ctx.held.mayTake(this);
    if (this.#holder !== null) return false;
    this.#grant(ctx);
    return true;
  }

  /**
   * First come, first served.
   *
   * @param limit none on the way back, after a wait that had dropped the lock: the caller's contract
   *   promises it the lock, and sections under it are short
   * @throws JobError timeout or aborted, which names the holder
   */
  async lock(ctx: Ctx, limit: Limit = {}): Promise<void> {
    if (this.tryLock(ctx)) return;
    const how = await ctx.held.during(this.#waiting.wait(ctx, limit));
    // Granted by whoever held it before: nobody who came later can have slipped in.
    if (how === "woken") return;
    const ageMs = this.#world.clock.now() - this.#sinceMs;
    const holder = this.#holder && { api: this.#holder.api, class: null, ageMs };
    throw new JobError(how, this.name, ctx.api, holder);
  }

  unlock(ctx: Ctx): void {
    assert(this.#holder === ctx, `${this.name} is given back by its holder, not by ${ctx.api}`);
    ctx.held.gave(this);
    this.#holder = null;
    this.#world.onStep?.(`${this.kind}-unlock`, ctx, this.name);
    const next = this.#waiting.wakeFirst();
    if (next) this.#grant(next);
  }

  #grant(ctx: Ctx): void {
    this.#holder = ctx;
    this.#sinceMs = this.#world.clock.now();
    ctx.held.took(this);
    this.#world.onStep?.(`${this.kind}-lock`, ctx, this.name);
  }
}
