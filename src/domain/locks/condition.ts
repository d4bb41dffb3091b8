/**
 * Waiting for something to become true that a lock guards. The wait gives the lock back and has it
 * again at its end, so whatever was known before is to be looked at again.
 *
 * It wakes all, and there is no way to wake one: waiters wait for different things, and one who is
 * woken may leave at that very moment. Who cannot go on waits again.
 */

import type { Clock } from "../../base/clock.ts";
import { assert } from "../../base/errors.ts";
import type { Ctx } from "./ctx.ts";
import type { Lock } from "./lock.ts";
import { type Limit, type WaitEnd, WaitList } from "./wait-list.ts";

export class Condition {
  readonly #lock: Lock;
  readonly #waiting: WaitList<Ctx>;

  constructor(lock: Lock, clock: Clock) {
    this.#lock = lock;
    this.#waiting = new WaitList(clock);
  }

  /** How many wait. */
  get size(): number {
    return this.#waiting.size;
  }

  /** The caller holds the lock, before and after, however the wait has ended. */
  async wait(ctx: Ctx, limit: Limit): Promise<WaitEnd> {
    assert(this.#lock.isHeldBy(ctx), `${ctx.api} waits with ${this.#lock.name} in hand`);
    const woken = this.#waiting.wait(ctx, limit);
    this.#lock.unlock(ctx);
    const how = await ctx.held.during(woken);
    await this.#lock.lock(ctx);
    return how;
  }

  broadcast(): void {
    this.#waiting.wakeAll();
  }
}
