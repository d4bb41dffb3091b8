/**
 * A world of random jobs in random groups, with impatient users: several clients, each with one
 * command at a time, drains, listeners that ask for things in the middle of an event, callbacks that
 * fail or have bugs, and now and then a shutdown. All of it follows from one seed.
 */

import { expect } from "vitest";
import { assert } from "../../src/base/errors.ts";
import type { Random } from "../../src/base/random.ts";
import { Job } from "../../src/job/job.ts";
import { JobList } from "../../src/job/list.ts";
import { JobTxn } from "../../src/job/txn.ts";
import { checkGroup, type Group, Life } from "./life.ts";
import { Planned, randomDriver } from "./random-driver.ts";
import { hops, Scheduler, settled } from "./scheduler.ts";
import { Users, type Verb } from "./users.ts";

const STEPS = 100;
const MEMBERS_MAX = 5;
const LIVES_MAX = 8;
/** All the sleeps of a world of eight lives, one after the other, and then some. */
const HOME_MS_MAX = 6000;
/** Force ends all: what is left are requests that nobody can interrupt, and the endings. */
const SHUTDOWN_MS_MAX = 600;
const STEPS_HOME_MAX = 5000;

export class Chaos {
  readonly lives: Life[] = [];
  readonly groups: Group[] = [];
  readonly log: string[] = [];
  readonly #random: Random;
  readonly #clock: Scheduler;
  readonly #bugs: unknown[] = [];
  readonly #list = new JobList({
    onBug: (bug) => {
      if (!(bug instanceof Planned)) this.#bugs.push(bug);
    },
    onStatus: ({ id, status }) => {
      this.#told = `${id} ${status}`;
    },
  });
  readonly #users: Users;
  #told = "";
  #depth = 0;
  #isShutting = false;
  #shutdown: Promise<void> | null = null;
  #shutdownMs = 0;

  constructor(random: Random) {
    this.#random = random;
    this.#clock = new Scheduler(random);
    this.#users = new Users(random, this.#clock, {
      lifeOf: (job) => this.#life(job),
      log: (what, job) => this.#note(what, job),
      onBug: (bug) => this.#bugs.push(bug),
    });
  }

  async run(): Promise<void> {
    const shutdownAt = this.#odds(5) ? this.#random.below(STEPS) : -1;
    for (let step = 0; step < STEPS && !this.#shutdown; step++) {
      if (step === shutdownAt) this.#shutDown();
      else if (this.#odds(3)) this.#act();
      else this.#clock.step();
      await this.#breathe();
    }
    await this.#home();
    for (const life of this.lives) life.checkEnd();
    for (const group of this.groups) checkGroup(group);
    expect(this.#list.all()).toEqual([]);
    expect(this.#clock.timerCount).toBe(0);
  }

  /** The next step comes when all is quiet, or in the middle of what the last one set off. */
  async #breathe(): Promise<void> {
    if (this.#odds(2)) await hops(this.#random.below(12));
    else await settled();
    this.#check();
  }

  /** Users and drains come to an end: now everybody must get home, in bounded time. */
  async #home(): Promise<void> {
    this.log.push("home");
    const startMs = this.#shutdown ? this.#shutdownMs : this.#clock.now();
    for (let step = 0; this.#list.all().length > 0 || this.#users.waiting > 0; step++) {
      assert(step < STEPS_HOME_MAX, `all get home; left: ${this.#left()}`);
      await settled();
      const acted = this.#shutdown ? false : this.#nudgeAll();
      const moved = this.#clock.step();
      await this.#breathe();
      if (acted || moved) continue;
      await settled();
      const over = this.#list.all().length === 0 && this.#users.waiting === 0;
      const stuck = !over && this.#clock.choices === 0 && !this.#nudgeable();
      assert(!stuck, `nobody waits for ever; left: ${this.#left()}`);
    }
    const spentMs = this.#clock.now() - startMs;
    const boundMs = this.#shutdown ? SHUTDOWN_MS_MAX : HOME_MS_MAX;
    assert(spentMs <= boundMs, `home in ${boundMs} ms, not ${spentMs}`);
    await this.#shutdown;
    while (this.#clock.step()) await settled();
    this.#check();
  }

  #nudgeable(): boolean {
    return !this.#shutdown && this.#list.all().some((job) => nextVerb(job) !== null);
  }

  #nudgeAll(): boolean {
    let acted = false;
    for (const job of this.#list.all()) {
      const verb = nextVerb(job);
      if (verb === null) continue;
      acted = true;
      if (verb === "start") job.start();
      else this.#users.ask(verb, job);
    }
    return acted;
  }

  #left(): string {
    return `${JSON.stringify(this.#list.query())}, ${this.#users.waiting} waiting`;
  }

  #shutDown(): void {
    this.log.push("shutdown");
    this.#isShutting = true;
    this.#shutdownMs = this.#clock.now();
    for (const life of this.lives) life.nudges++;
    const open = this.groups.filter(({ txn }) => txn.phase === "open" && txn.members.length > 0);
    this.#shutdown = this.#list.cancelAll();
    // Unless a listener was quicker, and has finalized.
    for (const group of open) if (group.txn.phase !== "finalizing") group.spoilt = true;
  }

  #act(): void {
    const jobs = this.#list.all();
    if (jobs.length === 0 || this.#odds(5)) {
      if (this.lives.length < LIVES_MAX && !this.#isShutting) this.#create();
      return;
    }
    const job = jobs[this.#random.below(jobs.length)]!;
    const life = this.#life(job);
    const act = this.#random.below(17);
    if (job.status === "created" && act < 9) {
      this.#note("start", job);
      if (!this.#odds(12)) job.start();
      else if (!job.cancelled) job.earlyFail();
    } else if (act < 3) this.#users.client("pause", job);
    else if (act < 6) this.#users.client("resume", job);
    else if (act === 6 && this.#odds(2)) this.#users.client("cancel", job, this.#odds(2));
    else if (act < 9) this.#users.client("complete", job);
    else if (act === 9) this.#users.client("finalize", job);
    else if (act === 10) this.#users.client("dismiss", job);
    else if (act === 11) this.#users.nudge(life);
    else if (act === 12) this.#users.awaitEnd(life);
    else this.#users.drain(life);
  }

  #create(): void {
    let group = this.groups.at(-1);
    const full = !group || group.lives.length === MEMBERS_MAX;
    const shut = full || group!.txn.phase !== "open" || group!.lives.some((l) => l.job.started);
    if (shut || this.#odds(4)) {
      group = { txn: new JobTxn(), lives: [], spoilt: false, finalizeAllowed: false };
      this.groups.push(group);
    }
    const life = new Life(`j${this.lives.length}`, group!);
    this.lives.push(life);
    const id = this.#odds(6) ? null : life.name;
    const auto = this.#random.below(4);
    life.job = new Job({
      id,
      clock: this.#clock,
      list: this.#list,
      txn: group!.txn,
      autoFinalize: auto > 0 || this.#odds(2),
      autoDismiss: !this.#odds(3),
      driver: randomDriver(life, this.#random, this.#clock),
      cb: () => life.called("cb"),
      onEvent: (event) => {
        const said = event.kind === "status" ? event.status : event.kind;
        this.log.push(`    ${life.name} ${said}`);
        if (event.kind === "status" && id !== null) {
          assert(this.#told === `${id} ${event.status}`, `${id}: the list is told first`);
        }
        try {
          life.moved(event);
        } catch (reason) {
          this.#bugs.push(reason);
        }
        // Some listeners cannot keep to themselves.
        if (life.job && this.#depth < 2 && this.#odds(20)) this.#interrupt();
      },
    });
    this.#note(`created in a group of ${group!.lives.length}`, life.job);
  }

  #interrupt(): void {
    this.#depth++;
    this.log.push("  from within an event:");
    try {
      this.#act();
    } catch (reason) {
      this.#bugs.push(reason);
    }
    this.#depth--;
  }

  #check(): void {
    if (this.#bugs.length > 0) throw this.#bugs[0];
    for (const life of this.lives) life.check();
    const alive = this.lives.filter((life) => life.status !== "null").reverse();
    assert(
      alive.map((life) => life.job).every((job, i) => this.#list.all()[i] === job),
      "the list is what lives, newest first",
    );
    assert(this.#list.all().length === alive.length, "nobody else is in the list");
    const shown = alive.filter((life) => !life.job.internal);
    const ids = this.#list.query().map(({ id, status }) => `${id} ${status}`);
    assert(ids.join() === shown.map((l) => `${l.name} ${l.status}`).join(), "query tells the same");
  }

  #life(job: Job): Life {
    return this.lives.find((life) => life.job === job)!;
  }

  #note(what: string, job: Job): void {
    this.log.push(`${this.#clock.now()} ms: ${what} ${this.#life(job).name} (${job.status})`);
  }

  /** True once in `n` times. */
  #odds(n: number): boolean {
    return this.#random.below(n) === 0;
  }
}

/** What gets a job on that waits for somebody. */
function nextVerb(job: Job): "start" | Verb | null {
  if (job.status === "created" && !job.cancelled) return "start";
  if (job.userPaused && !job.completed) return "resume";
  if (job.ready && !job.cancelRequested && job.driver.complete && !job.deferred) return "complete";
  const pending = job.txn.members.every((member) => member.status === "pending");
  const manual = job.txn.members.some((member) => !member.autoFinalize);
  if (job.status === "pending" && job.txn.phase === "open" && pending && manual) return "finalize";
  if (job.status === "concluded") return "dismiss";
  return null;
}
