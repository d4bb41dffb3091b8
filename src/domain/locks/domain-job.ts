/**
 * Who has the job of a domain, and who waits for it. A table: it waits for nobody itself (begin-job.ts
 * does that), so what it says is true until the next await.
 *
 *     waiting   [destroy] [event handlers] [the others]    each in the order of arrival
 *                   │
 *                   ▼   the first whose class the async job's mask allows, and whose slot is free;
 *     slots     normal  agent  async        those whose class it does not allow are passed over
 *
 * Every change wakes all who wait. Also one that only makes the queue shorter: who goes on into the
 * async slot, or gives up, may have been all that the next one waited for.
 */

import type { Clock } from "../../base/clock.ts";
import { assert } from "../../base/errors.ts";
import { Condition } from "./condition.ts";
import type { Ctx } from "./ctx.ts";
import {
  type AsyncKind,
  describeWish,
  isExempt,
  type JobSlot,
  type JobWish,
  MASKS,
  slotOf,
} from "./job-classes.ts";
import type { Blocker } from "./job-error.ts";
import type { Lock } from "./lock.ts";

/** One call's wish for the job, from its arrival until its end. */
export interface JobRequest {
  /** Null once an async job goes on without the call that has begun it. */
  ctx: Ctx | null;
  readonly api: string;
  readonly wish: JobWish;
  readonly slot: JobSlot;
  readonly place: number;
  /** It goes on when the domain does not run. */
  readonly offline: boolean;
  /** Of its arrival; then of its turn. */
  sinceMs: number;
}

/** A line of "what holds this domain". */
export interface JobInfo extends Blocker {
  /** Null: it waits. */
  readonly slot: JobSlot | null;
}

/** Places in the queue, first to last. */
const DESTROY = 0;
const URGENT = 1;
const USUAL = 2;

export class DomainJob {
  readonly condition: Condition;
  readonly #clock: Clock;
  readonly #slots: Record<JobSlot, JobRequest | null> = { normal: null, agent: null, async: null };
  readonly #waiting: JobRequest[] = [];
  #queued = 0;

  /** @param lock the domain's, which guards all of this */
  constructor(lock: Lock, clock: Clock) {
    this.condition = new Condition(lock, clock);
    this.#clock = clock;
  }

  /** Those who wait and those who have a slot. */
  get queued(): number {
    return this.#queued;
  }

  get asyncKind(): AsyncKind | null {
    const wish = this.#slots.async?.wish;
    return wish && "kind" in wish ? wish.kind : null;
  }

  holder(slot: JobSlot): JobRequest | null {
    return this.#slots[slot];
  }

  /** Puts a call into the queue. It leaves with give() or, from its slot, with end(). */
  want(ctx: Ctx, wish: JobWish, { urgent = false, offline = false }): JobRequest {
    const isDestroy = "class" in wish && wish.class === "destroy";
    const place = isDestroy ? DESTROY : urgent ? URGENT : USUAL;
    const { api } = ctx;
    const slot = slotOf(wish);
    const request = { ctx, api, wish, slot, place, offline, sinceMs: this.#clock.now() };
    const behind = this.#waiting.findIndex((other) => other.place > place);
    this.#waiting.splice(behind < 0 ? this.#waiting.length : behind, 0, request);
    this.#queued++;
    return request;
  }

  /** @param limit how many may wait or hold; 0 for any number. What is urgent cannot come later. */
  isOneTooMany({ wish, place }: JobRequest, limit: number): boolean {
    return limit > 0 && this.#queued > limit && !isExempt(wish) && place !== URGENT;
  }

  /** Who is in the way of a call that waits; null if nobody is, and it may take its slot. */
  blockerOf(request: JobRequest): Blocker | null {
    const inTheWay = this.#mask(request) ?? this.#occupant(request) ?? this.#ahead(request);
    return inTheWay && this.#describe(inTheWay);
  }

  take(request: JobRequest): void {
    assert(this.blockerOf(request) === null, "a slot is taken by the one whose turn it is");
    this.#leave(request);
    this.#slots[request.slot] = request;
    request.sinceMs = this.#clock.now();
    this.condition.broadcast();
  }

  /** Leaves the queue without having had its turn. */
  give(request: JobRequest): void {
    this.#leave(request);
    this.#queued--;
    this.condition.broadcast();
  }

  end(request: JobRequest): void {
    assert(this.#slots[request.slot] === request, `the job of ${request.api} ends once`);
    this.#slots[request.slot] = null;
    this.#queued--;
    this.condition.broadcast();
  }

  /** For people: who has a slot, then who waits, in order. */
  describe(): JobInfo[] {
    const held = Object.values(this.#slots).filter((request) => request !== null);
    return [
      ...held.map((request) => ({ slot: request.slot, ...this.#describe(request) })),
      ...this.#waiting.map((request) => ({ slot: null, ...this.#describe(request) })),
    ];
  }

  /** The async job that does not let it pass. */
  #mask({ wish }: JobRequest): JobRequest | null {
    const { async } = this.#slots;
    const kind = this.asyncKind;
    if (kind === null || "agent" in wish || wish.class === "async-nested") return null;
    return wish.class !== "async" && MASKS[kind].includes(wish.class) ? null : async;
  }

  /** Who has the slot. An async job begins in a moment in which nobody changes the domain. */
  #occupant({ slot }: JobRequest): JobRequest | null {
    return this.#slots[slot === "agent" ? "agent" : "normal"];
  }

  /** Who waits for the same slot, came before, and could go on. */
  #ahead(request: JobRequest): JobRequest | null {
    for (const other of this.#waiting) {
      if (other === request) return null;
      const isRival = (other.slot === "agent") === (request.slot === "agent");
      if (isRival && this.#mask(other) === null) return other;
    }
    return null;
  }

  #leave(request: JobRequest): void {
    const at = this.#waiting.indexOf(request);
    assert(at >= 0, `${request.api} waits in the queue`);
    this.#waiting.splice(at, 1);
  }

  #describe({ api, wish, sinceMs }: JobRequest): Blocker {
    return { api, class: describeWish(wish), ageMs: this.#clock.now() - sinceMs };
  }
}
