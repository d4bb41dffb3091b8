/**
 * What a monitor tells of a domain, and the work that follows from it. Telling takes no lock and no
 * time: it is done in the middle of a command, by whoever reads the monitor. The work is a call of its
 * own, with a job, one event after the other; so it comes after the command that is under way, and
 * before the next call that waits.
 *
 * An event is work until it is done: one that does not get its turn in time waits again. Each domain
 * has its own queue, and a domain that is stuck holds up no other.
 */

import type { Ctx } from "./ctx.ts";
import type { DomainObject } from "./domain-object.ts";
import type { JobWish } from "./job-classes.ts";
import { JobError } from "./job-error.ts";
import { withJob } from "./with-job.ts";

export class EventQueue<Event> {
  readonly #object: DomainObject;
  readonly #api: string;
  readonly #wish: JobWish;
  readonly #handle: (ctx: Ctx, event: Event) => Promise<void>;
  readonly #events: Event[] = [];
  #busy = false;

  /**
   * @param api what errors of others call it
   * @param handle runs with the job and the domain locked, also when the domain does not run any more.
   *   Must not throw for anything that the world may do
   */
  constructor(
    object: DomainObject,
    api: string,
    handle: (ctx: Ctx, event: Event) => Promise<void>,
    wish: JobWish = { class: "modify" },
  ) {
    this.#object = object;
    this.#api = api;
    this.#handle = handle;
    this.#wish = wish;
  }

  /** How many are not done yet. */
  get size(): number {
    return this.#events.length;
  }

  push(event: Event): void {
    this.#events.push(event);
    if (!this.#busy) void this.#work();
  }

  async #work(): Promise<void> {
    this.#busy = true;
    while (this.#events.length > 0) {
      const isDone = await this.#object.driver.call(this.#api, (ctx) => this.#next(ctx));
      if (isDone) this.#events.shift();
    }
    this.#busy = false;
  }

  /** @returns whether the first event is done; with its domain gone there is nothing left to do */
  async #next(ctx: Ctx): Promise<boolean> {
    let begun = false;
    const options = { ...this.#wish, urgent: true, offline: true };
    try {
      await withJob(ctx, this.#object, options, () => {
        begun = true;
        return this.#handle(ctx, this.#events[0]!);
      });
      return true;
    } catch (error) {
      if (begun || !(error instanceof JobError)) throw error;
      return error.reason === "gone";
    }
  }
}
