/**
 * What must hold of calls on domains, as somebody sees it who knows only what calls asked for and when
 * they had it. Its tables are written down from libvirt's manner, not from src/.
 */

import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import type { DomainObject } from "../../../src/domain/locks/domain-object.ts";
import type { EventQueue } from "../../../src/domain/locks/event-queue.ts";
import type { AsyncKind } from "../../../src/domain/locks/job-classes.ts";
import { JobError } from "../../../src/domain/locks/job-error.ts";
import type { AsyncJob, WithJobOptions } from "../../../src/domain/locks/with-job.ts";

export const WAIT_MS = 30_000;
/** Sections under the list of domains take at most this, all that wait for it together. */
const DRIVER_MS = 2000;

/** What may begin while an async job goes on. */
const ALLOWED: Record<string, string> = {
  start: "query destroy modify-migration-safe",
  save: "query destroy modify-migration-safe abort",
  snapshot: "query destroy modify-migration-safe abort",
  backup: "query destroy modify-migration-safe abort suspend modify",
};

export interface Call {
  readonly api: string;
  readonly place: Place;
  readonly options: WithJobOptions;
  readonly sinceMs: number;
  readonly object: DomainObject<Handle>;
  state: "waiting" | "inside" | "over";
  abortedMs: number | null;
}

/** A monitor, as its user sees it. */
export interface Handle {
  closed: boolean;
  user: string | null;
}

/** A disk: who looked it up before it was replaced must not use it. */
export interface Disk {
  replaced: boolean;
}

export type Event =
  | { readonly kind: "block-job"; readonly id: number }
  | { readonly kind: "backup"; readonly job: AsyncJob };

/** A domain's place in the list: domains come and go in it. */
export interface Place {
  object: DomainObject<Handle>;
  events: EventQueue<Event>;
  /** Guarded by the job. */
  readonly disks: Map<string, Disk>;
  /** Block jobs that have not ended. */
  readonly blockJobs: Set<number>;
  /** Ends the commands that are under way. */
  readonly commands: Set<() => void>;
}

export class Broken extends Error {}

export function must(condition: unknown, what: string): asserts condition {
  if (!condition) throw new Broken(what);
}

/** Looks at everything each time before time goes on: by then all that could go on has. */
export class WatchedClock extends VirtualClock {
  inspect: () => void = () => {};

  override setTimer(ms: number, callback: () => void) {
    return super.setTimer(ms, () => {
      this.inspect();
      callback();
    });
  }
}

export class Watch {
  readonly clock: WatchedClock;
  readonly maxQueued: number;
  /** All that have not ended. */
  readonly calls = new Set<Call>();
  /** Async jobs that go on, and who began them. */
  readonly asyncs = new Map<DomainObject, { readonly kind: AsyncKind; readonly api: string }>();
  /** Others whose name an error may tell: those who have the list of domains, and handlers of events. */
  readonly others = new Set<string>();
  /** How late everything may be: the machine has been asleep so long. */
  sleptMs = 0;

  constructor(clock: WatchedClock, maxQueued: number) {
    this.clock = clock;
    this.maxQueued = maxQueued;
    clock.inspect = () => this.#inspect();
  }

  begins(api: string, place: Place, options: WithJobOptions): Call {
    const { object } = place;
    const sinceMs = this.clock.now();
    const call: Call = { api, place, options, sinceMs, object, state: "waiting", abortedMs: null };
    this.calls.add(call);
    return call;
  }

  /** The call has its turn. */
  enters(call: Call): void {
    const { object, options } = call;
    for (const other of this.calls) {
      if (other.object !== object || other === call) continue;
      if (other.state === "inside")
        must(slotOf(other) !== slotOf(call), `${call.api} and ${other.api} have one slot`);
      else if (other.state === "waiting" && other.sinceMs < call.sinceMs)
        must(
          !this.#isPassedOver(other, call),
          `${call.api} has passed ${other.api}, which came before`,
        );
    }
    must(!this.#isMasked(call), `${call.api} began during ${this.asyncs.get(object)?.kind}`);
    must(!object.isRemoved, `${call.api} began on a domain that is gone`);
    must(options.offline || object.isRunning, `${call.api} began on a domain that stands still`);
    must(!options.nowait || this.clock.now() === call.sinceMs, `${call.api} has waited`);
    if ("kind" in options && options.class === "async")
      this.asyncs.set(object, { kind: options.kind, api: call.api });
    call.state = "inside";
  }

  leaves(call: Call): void {
    call.state = "over";
  }

  /** The call failed before or after its turn. @throws Broken if it had no reason to */
  failed(call: Call, error: unknown): void {
    if (!(error instanceof JobError)) throw error;
    const { api, object, options } = call;
    const waitedMs = this.clock.now() - call.sinceMs;
    const { blocker } = error;
    switch (error.reason) {
      case "timeout":
        must(waitedMs >= WAIT_MS, `${api} timed out after ${waitedMs} ms`);
        must(waitedMs <= WAIT_MS + this.sleptMs + DRIVER_MS, `${api} waited ${waitedMs} ms`);
        must(blocker !== null, `${api} timed out with nobody named`);
        must(this.#isThere(blocker.api), `${api} timed out because of ${blocker.api}, who is gone`);
        must(blocker.api !== api, `${api} timed out because of itself`);
        break;
      case "queue-limit": {
        const others = [...this.calls].filter((other) => other.object === object).length;
        // An event and an async job have no call here; one call may have ended in this very turn.
        const count = others + 2 + (this.asyncs.has(object) ? 1 : 0);
        must(this.maxQueued > 0, `${api} was refused by a limit that is off`);
        must(count > this.maxQueued, `${api} was one of ${others}`);
        must(!/destroy|async/.test(kindOf(call)), `${api} is let in whatever the limit`);
        must(blocker !== null && blocker.api !== api, `${api} was refused, with nobody named`);
        break;
      }
      case "nowait":
        must(options.nowait && waitedMs === 0, `${api} was refused, but would have waited`);
        must(blocker !== null && this.#isThere(blocker.api), `${api} would wait for nobody`);
        break;
      case "aborted":
        must(call.abortedMs !== null, `${api} was called off by nobody`);
        break;
      case "gone": {
        // Whoever has waited for the driver's lock since may find it there again.
        const isBack = options.driver === true || kindOf(call) === "async-nested";
        const isGone = object.isRemoved || !object.isRunning;
        must(isGone || isBack, `${api} finds its domain gone: it is there`);
      }
    }
  }

  ends(call: Call): void {
    call.state = "over";
    this.calls.delete(call);
  }

  #isThere(api: string): boolean {
    const named = [...this.calls, ...this.asyncs.values()].some((call) => call.api === api);
    return named || this.others.has(api);
  }

  #isMasked(call: Call): boolean {
    const kind = this.asyncs.get(call.object)?.kind ?? null;
    const wish = kindOf(call);
    if (kind === null || wish === "agent" || wish === "async-nested") return false;
    return !ALLOWED[kind]!.split(" ").includes(wish);
  }

  /** Whether somebody who came first and could go on is left behind. */
  #isPassedOver(earlier: Call, later: Call): boolean {
    const { object, options } = earlier;
    const isRival = (slotOf(earlier) === "agent") === (slotOf(later) === "agent");
    if (!isRival || kindOf(later) === "destroy" || this.#isMasked(earlier)) return false;
    // Those wait for the list of domains first.
    if (options.driver || later.options.driver) return false;
    // Something else ends its wait.
    if (earlier.abortedMs !== null || this.clock.now() - earlier.sinceMs >= WAIT_MS) return false;
    return !object.isRemoved && (object.isRunning || options.offline === true);
  }

  /** Everything that could go on has gone on. */
  #inspect(): void {
    const nowMs = this.clock.now();
    for (const call of this.calls) {
      if (call.state !== "waiting") continue;
      const { api, object, options } = call;
      const slackMs = options.driver ? DRIVER_MS : 0;
      const waitedMs = nowMs - call.sinceMs;
      must(waitedMs <= WAIT_MS + this.sleptMs + slackMs, `${api} waits without an end`);
      if (options.driver) continue;
      must(object.lock.holder === null, `${object.name} is locked while nothing goes on`);
      must(call.abortedMs === null || call.abortedMs === nowMs, `${api} does not hear an abort`);
      must(options.offline || object.isRunning, `${api} waits for a domain that stands still`);
      const slot = slotOf(call) === "agent" ? "agent" : "normal";
      const isFree = object.job.holder(slot) === null && !this.#isMasked(call);
      must(!isFree, `${api} waits, and nobody is in its way`);
    }
  }
}

export function kindOf({ options }: Call): string {
  return "agent" in options ? "agent" : options.class;
}

function slotOf(call: Call): string {
  const kind = kindOf(call);
  return kind === "agent" || kind === "async" ? kind : "normal";
}
