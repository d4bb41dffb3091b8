/**
 * Many clients on many domains at random, on a clock of their own, all from one seed. Nobody may wait
 * for ever, for nothing, or out of turn; at the end nothing may be left.
 */

import { type Random, seededRandom } from "../../../src/base/random.ts";
import type { Ctx } from "../../../src/domain/locks/ctx.ts";
import { DomainObject, DriverObject } from "../../../src/domain/locks/domain-object.ts";
import { EventQueue } from "../../../src/domain/locks/event-queue.ts";
import { endAsyncJob } from "../../../src/domain/locks/with-job.ts";
import { Client } from "./client.ts";
import {
  Broken,
  type Event,
  type Handle,
  must,
  type Place,
  WAIT_MS,
  Watch,
  WatchedClock,
} from "./watch.ts";

export const OPERATIONS_PER_RUN = 400;
const LINES = 60;
/** Timers of one run: far more than any has. */
const STEPS = 60_000;

export interface Run {
  readonly seed: number;
  readonly trace?: ((line: string) => void) | undefined;
}

/** What is wrong, and what happened last. */
export class ExplorationError extends Error {
  readonly lines: readonly string[];

  constructor(seed: number, cause: unknown, lines: readonly string[]) {
    super(`seed ${seed}: ${cause instanceof Error ? cause.message : cause}`, { cause });
    this.lines = lines;
  }
}

/** How often something came to be, by name: that the run is about anything. */
export type Counts = Map<string, number>;

/** @throws ExplorationError */
export async function explore({ seed, trace }: Run, counts: Counts = new Map()): Promise<void> {
  const world = new World(seededRandom(seed), counts, trace);
  try {
    await world.run();
  } catch (error) {
    throw new ExplorationError(seed, error, world.lines());
  }
}

export class World {
  readonly random: Random;
  readonly clock = new WatchedClock();
  readonly driver: DriverObject;
  readonly watch: Watch;
  readonly places: Place[] = [];
  readonly counts: Counts;
  /** Calls off a call, by its name. */
  readonly aborts = new Map<string, () => void>();
  /** Operations that are left. */
  budget = OPERATIONS_PER_RUN;
  readonly #trace: Run["trace"];
  readonly #last: (readonly [number, string, string, string])[] = [];
  #failed: (error: unknown) => void = () => {};
  #lastId = 0;
  readonly #objects: DomainObject<Handle>[] = [];
  readonly #disposed = new Set<DomainObject<Handle>>();
  readonly #lockedMs = new Map<string, number>();

  constructor(random: Random, counts: Counts, trace: Run["trace"]) {
    this.random = random;
    this.counts = counts;
    this.#trace = trace;
    const maxQueued = random.below(4) === 0 ? 2 + random.below(5) : 0;
    const onStep = (step: string, ctx: Ctx, name: string) => this.#step(step, ctx, name);
    this.driver = new DriverObject(this.clock, { jobWaitMs: WAIT_MS, maxQueued, onStep });
    this.watch = new Watch(this.clock, maxQueued);
    for (let i = 0; i < 2 + random.below(3); i++) this.places.push(this.#makePlace(`d${i}`));
  }

  async run(): Promise<void> {
    const failed = new Promise<never>((_resolve, reject) => {
      this.#failed = reject;
    });
    const clients = Array.from({ length: 5 + this.random.below(8) }, () => new Client(this).run());
    const all = Promise.all(clients).then(() => this.#rest());
    await this.clock.runUntil(Promise.race([all, failed]), STEPS);
    this.#checkEnd();
  }

  nextId(): number {
    return ++this.#lastId;
  }

  /** A name that no other call has. */
  name(api: string): string {
    return `${api}#${this.nextId()}`;
  }

  fail(error: unknown): void {
    this.#failed(error);
  }

  abortOne(): void {
    [...this.aborts.values()][this.random.below(this.aborts.size)]?.();
  }

  count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  note(who: string, what: string, name = ""): void {
    const line = [this.clock.now(), who, what, name] as const;
    this.#last.push(line);
    if (this.#last.length > 2 * LINES) this.#last.splice(0, LINES);
    this.#trace?.(textOf(line));
  }

  lines(): string[] {
    return this.#last.slice(-LINES).map(textOf);
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => void this.clock.setTimer(ms, resolve));
  }

  /** A new domain in the place of one that is gone. */
  renew(place: Place): void {
    must(place.object.isRemoved, "a place has one domain at a time");
    Object.assign(place, this.#makeDomain(place.object.name, place));
  }

  #makePlace(name: string): Place {
    const place = {
      disks: new Map([0, 1].map((target) => [`vd${target}`, { replaced: false }])),
      blockJobs: new Set<number>(),
      commands: new Set<() => void>(),
    } as unknown as Place;
    return Object.assign(place, this.#makeDomain(name, place));
  }

  #makeDomain(name: string, place: Place) {
    const object = new DomainObject<Handle>(this.driver, name, () => {
      must(object.isRemoved && !this.#disposed.has(object), `${name} is disposed of once`);
      this.#disposed.add(object);
    });
    this.#objects.push(object);
    const api = this.name(`event of ${name}`);
    this.watch.others.add(api);
    const events = new EventQueue<Event>(object, api, async (ctx, event) => {
      this.count("event");
      this.note(api, event.kind);
      if (event.kind === "backup") {
        await endAsyncJob(ctx, object, event.job);
        this.watch.asyncs.delete(object);
      } else {
        must(place.blockJobs.delete(event.id), "a block job ends once");
        object.changed();
      }
    });
    return { object, events };
  }

  /** Block jobs and backups that were left to themselves end within seconds, and are told of. */
  async #rest(): Promise<void> {
    while (this.places.some(({ object, events }) => events.size > 0 || object.job.queued > 0))
      await this.sleep(1000);
    // Timers of what ends late.
    await this.sleep(60_000);
  }

  #checkEnd(): void {
    const { driver, clock } = this;
    must(driver.lock.holder === null, "the list of domains is free at the end");
    must(clock.timerCount === 0, `no timer is left: ${clock.timerCount}`);
    for (const object of this.#objects) {
      const { name, lock, job, changes, reference, isRemoved } = object;
      must(lock.holder === null, `${name} is not locked at the end`);
      must(job.queued === 0, `${name} has nobody in its queue at the end: ${job.queued}`);
      must(job.condition.size + changes.size === 0, `nobody waits for ${name} at the end`);
      const count = isRemoved ? 0 : 1;
      must(reference.count === count, `${name} has ${reference.count} references, not ${count}`);
      must(this.#disposed.has(object) === isRemoved, `${name} is disposed of when it is removed`);
    }
    must(this.watch.calls.size === 0, "no call is left");
  }

  #step(step: string, ctx: Ctx, name: string): void {
    const nowMs = this.clock.now();
    if (step === "domain-lock") this.#lockedMs.set(name, nowMs);
    if (step === "domain-unlock" && this.#lockedMs.get(name) !== nowMs)
      this.fail(new Broken(`${ctx.api} has waited with ${name} in hand`));
    this.note(ctx.api, step, name);
  }
}

function textOf([ms, who, what, name]: readonly [number, string, string, string]): string {
  return `${String(ms).padStart(8)} ms  ${who}: ${what}${name && ` (${name})`}`;
}
