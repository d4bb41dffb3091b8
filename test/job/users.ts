/**
 * Those who ask something of random jobs: clients with one command at a time, waiters for the end,
 * drains. Every answer is held against the rules, which are told here once more, in other words.
 */

import { sleep } from "../../src/base/clock.ts";
import { assert, BlockError } from "../../src/base/errors.ts";
import type { Random } from "../../src/base/random.ts";
import type { Job } from "../../src/job/job.ts";
import { cancelSync, completeSync, finishSync } from "../../src/job/sync.ts";
import { verbs } from "../../src/job/verbs.ts";
import type { Life } from "./life.ts";
import type { Scheduler } from "./scheduler.ts";

const CLIENTS = 3;

export type Verb = "pause" | "resume" | "cancel" | "complete" | "finalize" | "dismiss";
const ALIVE = "created running paused ready standby";
const ALLOWED: Record<Verb, string> = {
  cancel: `${ALIVE} waiting pending`,
  pause: ALIVE,
  resume: ALIVE,
  complete: "ready standby",
  finalize: "pending",
  dismiss: "concluded",
};

interface Surroundings {
  lifeOf(job: Job): Life;
  log(what: string, job: Job): void;
  onBug(bug: unknown): void;
}

export class Users {
  /** Questions without an answer. */
  waiting = 0;
  readonly #random: Random;
  readonly #clock: Scheduler;
  readonly #lifeOf: Surroundings["lifeOf"];
  readonly #log: Surroundings["log"];
  readonly #onBug: Surroundings["onBug"];
  #clientsBusy = 0;

  constructor(random: Random, clock: Scheduler, { lifeOf, log, onBug }: Surroundings) {
    this.#random = random;
    this.#clock = clock;
    this.#lifeOf = lifeOf;
    this.#log = log;
    this.#onBug = onBug;
  }

  nudge(life: Life): void {
    life.nudges++;
    if (this.#odds(2)) life.job.enter();
    else life.job.endSleep();
  }

  client(verb: Verb, job: Job, force = true): void {
    if (this.#clientsBusy === CLIENTS) return;
    this.#clientsBusy++;
    void this.ask(verb, job, force).then(() => this.#clientsBusy--);
  }

  /** Asks, and holds the answer against the rules. */
  ask(verb: Verb, job: Job, force = true): Promise<void> {
    const life = this.#lifeOf(job);
    const { phase } = job.txn;
    const { userPaused } = job;
    const wanted =
      ALLOWED[verb].split(" ").includes(job.status) &&
      (verb !== "pause" || !userPaused) &&
      (verb !== "resume" || userPaused) &&
      (verb !== "cancel" || ((force || !userPaused) && phase !== "finalizing")) &&
      (verb !== "complete" || (!job.cancelRequested && job.driver.complete !== undefined)) &&
      (verb !== "finalize" ||
        (phase === "open" && job.txn.members.every((member) => member.status === "pending")));
    this.#log(`${verb}${verb === "cancel" && !force ? " softly" : ""}`, job);
    life.nudges++;
    if (wanted && verb === "finalize") life.group.finalizeAllowed = true;
    if (wanted && verb === "cancel") this.#expectCancel(life, force);
    const before = {
      deferred: job.deferred,
      cancelRequested: job.cancelRequested,
      nudges: life.nudges,
    };
    const answer = verb === "cancel" ? verbs.cancel(job, force) : verbs[verb](job);
    // Unless somebody has heard of it, and has asked for something else.
    if (wanted && verb === "cancel" && life.nudges === before.nudges) {
      assert(!job.userPaused, `${life.name}: a cancel ends the user's pause`);
      const ignored = before.deferred && !job.cancelled;
      assert(
        job.cancelRequested === (ignored ? before.cancelRequested : true),
        `${life.name}: a cancel is noted, unless it is soft and comes too late`,
      );
    }
    return this.#await(
      answer.then(
        () => this.#answered(`${verb} ${job.id}`, true, wanted),
        (reason) => {
          if (reason instanceof BlockError && reason.errno === "EBUSY" && verb === "complete") {
            this.#answered(`${verb} ${job.id}`, true, wanted);
          } else if (reason instanceof BlockError && reason.errno === "EPERM") {
            this.#answered(`${verb} ${job.id}`, false, wanted);
          } else this.#onBug(reason);
        },
      ),
    );
  }

  #answered(what: string, ok: boolean, wanted: boolean): void {
    if (ok !== wanted) this.#onBug(new Error(`${what} gave ${ok}`));
  }

  /** A force cancel that is heard ends the whole group badly. */
  #expectCancel(life: Life, force: boolean): void {
    const { job } = life;
    const late = /aborting|concluded|null/.test(job.status) || job.txn.phase === "finalizing";
    if (late) return;
    const isSoft = life.soft === "all" || (life.soft === "ready" && job.ready);
    if (force || !job.started || !isSoft) life.group.spoilt = true;
  }

  #await(promise: Promise<void>): Promise<void> {
    this.waiting++;
    return promise.then(
      () => {
        this.waiting--;
      },
      (reason) => {
        this.waiting--;
        this.#onBug(reason);
      },
    );
  }

  /** Somebody who waits for the end, and asks for it or not. */
  awaitEnd(life: Life): void {
    const { job } = life;
    const how = this.#random.below(8);
    const stop = new AbortController();
    life.nudges++;
    let wait: Promise<BlockError | null>;
    if (how === 0) {
      const force = this.#odds(2);
      this.#log(`cancelSync ${force}`, job);
      this.#expectCancel(life, force);
      wait = cancelSync(job, force, stop.signal);
    } else if (how < 3) {
      this.#log("completeSync", job);
      wait = completeSync(job, stop.signal);
    } else {
      this.#log("finishSync", job);
      wait = finishSync(job, undefined, stop.signal);
    }
    const isStopped = this.#odds(4);
    if (isStopped) void this.#clock.yield().then(() => stop.abort());
    this.#await(
      wait.then(
        (error) => {
          // A job that was at rest in pending may have been woken in the very turn of the answer.
          const rested = life.group.lives.some((mate) => !mate.job.autoFinalize);
          const over = /concluded|null/.test(job.status) || (rested && life.wasPending);
          if (!over && !stop.signal.aborted) {
            this.#onBug(new Error(`${life.name}: the wait ended while ${job.status}`));
          }
          if (error !== job.error) this.#onBug(new Error(`${life.name}: wrong result`));
        },
        (reason) => {
          const fine = reason instanceof BlockError && /EPERM|EBUSY/.test(reason.errno);
          if (!fine && !(isStopped && reason.errno === "ECANCELED")) this.#onBug(reason);
        },
      ),
    );
  }

  drain(life: Life): void {
    const ms = this.#random.below(40);
    this.#log(`drain for ${ms} ms`, life.job);
    const drain = async () => {
      life.pauses++;
      life.nudges++;
      life.job.pause();
      await life.job.quiet();
      life.drains++;
      await sleep(this.#clock, ms);
      life.drains--;
      life.nudges++;
      life.pauses--;
      life.job.resume();
    };
    void this.#await(drain());
  }

  /** True once in `n` times. */
  #odds(n: number): boolean {
    return this.#random.below(n) === 0;
  }
}
