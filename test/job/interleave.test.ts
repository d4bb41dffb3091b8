/**
 * Random verbs at random times on random groups of small jobs, replayable from a seed. Whatever
 * happens: only legal moves, every ending exactly once, groups of one mind, no work under a drain,
 * refusals only where the rules say so, and nobody waits for ever.
 */

import { expect, it } from "vitest";
import { sleep } from "../../src/base/clock.ts";
import { assert, BlockError } from "../../src/base/errors.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import { VirtualClock } from "../../src/base/virtual-clock.ts";
import type { JobDriver } from "../../src/job/driver.ts";
import { Job } from "../../src/job/job.ts";
import { JobList } from "../../src/job/list.ts";
import { type JobStatus, mayApply, mayMove } from "../../src/job/status.ts";
import { JobTxn } from "../../src/job/txn.ts";
import { verbs } from "../../src/job/verbs.ts";

const SEEDS = 150;
const STEPS = 60;
const FIRST_SEED = 1;

it(`keeps its promises over ${SEEDS * STEPS} random steps`, async () => {
  const endings = new Map<string, number>();
  for (let seed = FIRST_SEED; seed < FIRST_SEED + SEEDS; seed++) {
    const chaos = new Chaos(seededRandom(seed));
    try {
      await chaos.run();
    } catch (reason) {
      throw new Error(`seed ${seed}: ${reason}\n${chaos.log.join("\n")}`, { cause: reason });
    }
    for (const life of chaos.lives) endings.set(life.end, (endings.get(life.end) ?? 0) + 1);
  }
  // A run that never gets anywhere proves nothing: each way to end has been gone many times.
  for (const end of ["success", "failed", "cancelled", "never started", "never set up"]) {
    expect(endings.get(end) ?? 0, `${end} in ${[...endings]}`).toBeGreaterThan(10);
  }
}, 120_000);

/** One job, as its driver and its listeners see it. */
class Life {
  status: JobStatus = "undefined";
  calls = "";
  hooks = "";
  atWork = false;
  /** Drains that have been told it is quiet. */
  drains = 0;
  pauses = 0;
  done = false;
  job!: Job;

  get end(): string {
    if (this.calls === "free") return "never set up";
    if (!this.job.started) return "never started";
    if (this.job.cancelled) return "cancelled";
    return this.job.error ? "failed" : "success";
  }
}

class Chaos {
  readonly clock = new VirtualClock();
  readonly lives: Life[] = [];
  readonly log: string[] = [];
  readonly #random: Random;
  readonly #bugs: unknown[] = [];
  readonly #asked: Promise<void>[] = [];
  #txn = new JobTxn();
  readonly #list = new JobList({
    onBug: (bug) => this.#bugs.push(bug),
    onStatus: ({ id, status }) => this.#moved(this.#life(id), status),
  });

  constructor(random: Random) {
    this.#random = random;
  }

  async run(): Promise<void> {
    for (let step = 0; step < STEPS; step++) {
      this.#act();
      await this.clock.advance(this.#odds(3) ? 0 : this.#random.below(9));
      this.#check();
    }
    await this.#wrapUp();
    for (const life of this.lives) this.#checkEnd(life);
  }

  /** The users and drains come to an end: now everybody must get home. */
  async #wrapUp(): Promise<void> {
    this.log.push("wrapping up");
    if (this.#odds(4)) this.#asked.push(this.#list.cancelAll());
    for (let round = 0; this.#list.all().length > 0; round++) {
      assert(round < 200, `all get home; left: ${JSON.stringify(this.#list.query())}`);
      for (const job of this.#list.all()) {
        if (job.status === "created") job.start();
        if (job.userPaused && !job.completed) this.#ask("resume", job);
        if (job.ready && !job.cancelRequested) this.#ask("complete", job);
        if (job.status === "pending" && !job.autoFinalize) this.#ask("finalize", job);
        if (job.status === "concluded") job.dismiss();
      }
      await this.clock.advance(100);
      this.#check();
    }
    await this.clock.runUntil(
      Promise.all([...this.#asked, ...this.lives.map((l) => l.job.finished)]),
    );
    this.#check();
    expect(this.clock.timerCount).toBe(0);
  }

  #act(): void {
    const jobs = this.#list.all();
    if (jobs.length === 0 || this.#odds(6)) {
      this.#create();
      return;
    }
    const job = jobs[this.#random.below(jobs.length)]!;
    const act = this.#random.below(13);
    if (job.status === "created" && act < 7) {
      this.#note("start", job);
      if (this.#odds(15)) job.earlyFail();
      else job.start();
    } else if (act < 3) this.#ask("pause", job);
    else if (act < 6) this.#ask("resume", job);
    else if (act === 6 && this.#odds(2)) this.#ask("cancel", job, this.#odds(2));
    else if (act === 7) this.#ask("complete", job);
    else if (act === 8) this.#ask("finalize", job);
    else if (act === 9) this.#ask("dismiss", job);
    else if (act === 10) job.endSleep();
    else this.#asked.push(this.#drain(job));
  }

  /** Asks, and holds the answer against the rules, told once more in other words. */
  #ask(
    verb: "pause" | "resume" | "cancel" | "complete" | "finalize" | "dismiss",
    job: Job,
    force = true,
  ) {
    const { phase } = job.txn;
    const wanted =
      mayApply(verb, job.status) &&
      (verb !== "pause" || !job.userPaused) &&
      (verb !== "resume" || job.userPaused) &&
      (verb !== "cancel" || ((force || !job.userPaused) && phase !== "finalizing")) &&
      (verb !== "complete" || !job.cancelRequested) &&
      (verb !== "finalize" || phase === "open");
    this.#note(`${verb}${verb === "cancel" && !force ? " softly" : ""}`, job);
    const answer = verb === "cancel" ? verbs.cancel(job, force) : verbs[verb](job);
    const right = (ok: boolean) => {
      if (ok !== wanted) this.#bugs.push(new Error(`${verb} of ${job.id} gave ${ok}`));
    };
    this.#asked.push(
      answer.then(
        () => right(true),
        (reason) => {
          if (reason instanceof BlockError && reason.errno === "EPERM") right(false);
          else this.#bugs.push(reason);
        },
      ),
    );
  }

  async #drain(job: Job): Promise<void> {
    const life = this.#life(job.id!);
    const ms = this.#random.below(40);
    this.#note(`drain for ${ms} ms`, job);
    job.pause();
    await job.quiet();
    life.drains++;
    await sleep(this.clock, ms);
    life.drains--;
    job.resume();
  }

  #create(): void {
    const closed = this.#txn.phase !== "open" || this.#txn.members.some((job) => job.started);
    if (closed || this.#odds(3)) this.#txn = new JobTxn();
    const life = new Life();
    const id = `j${this.lives.length}`;
    this.lives.push(life);
    life.job = new Job({
      id,
      clock: this.clock,
      list: this.#list,
      txn: this.#txn,
      autoFinalize: !this.#odds(3),
      autoDismiss: !this.#odds(3),
      driver: this.#driver(life),
      cb: () => this.#called(life, "cb"),
      onEvent: ({ kind }) => {
        if (kind.startsWith("finalize")) life.hooks += kind;
      },
    });
    this.#note(`created in a group of ${this.#txn.members.length}`, life.job);
  }

  #driver(life: Life): JobDriver {
    const [steps, quiesces, soft, converges] = [
      this.#random.below(6),
      this.#odds(3),
      this.#odds(3),
      this.#odds(3),
    ];
    const failAt = this.#odds(4) ? this.#random.below(8) : -1;
    let complete = false;
    const step = (call: string) => () => {
      this.#called(life, call);
      return this.#odds(2) ? undefined : sleep(this.clock, this.#random.below(10));
    };
    return {
      type: "test",
      run: async (job) => {
        this.#called(life, "run");
        for (let i = 0; i < steps && !job.cancelled; i++) {
          if (i === failAt) throw new BlockError("EIO", "Input/output error");
          await this.#work(life);
        }
        if (!converges || job.cancelled) return;
        job.becomeReady();
        while (!complete && !job.cancelRequested) await job.yield();
      },
      ...(quiesces && {
        pause: async () => {
          life.pauses++;
          await sleep(this.clock, this.#random.below(5));
        },
        resume: async () => {
          life.pauses--;
        },
      }),
      complete: (job) => {
        complete = true;
        job.enter();
      },
      ...(soft && { cancel: (job, force) => force || !job.ready }),
      prepare: async () => {
        await step("prepare")();
        if (failAt > steps) throw new BlockError("ENOSPC", "No space left on device");
      },
      commit: step("commit"),
      abort: step("abort"),
      clean: step("clean"),
      free: () => this.#called(life, "free"),
    };
  }

  /** One step of a run: a sleep, a pause of its own (as by on-error=stop), or a request. */
  async #work(life: Life): Promise<void> {
    const { job } = life;
    const ms = this.#random.below(30);
    if (this.#odds(2)) return job.sleep(ms);
    if (this.#odds(8)) job.userPause();
    await job.pausePoint();
    if (job.cancelled) return;
    assert(life.drains === 0, `${job.id} sends no request while it is drained`);
    life.atWork = true;
    try {
      await sleep(this.clock, ms, this.#odds(2) ? job.signal : undefined);
    } finally {
      life.atWork = false;
    }
  }

  #moved(life: Life, to: JobStatus): void {
    this.log.push(`  ${this.lives.indexOf(life)} ${to}`);
    if (!mayMove(life.status, to)) this.#bugs.push(new Error(`${life.status} to ${to}`));
    if (to === "paused" || to === "standby") {
      assert(!life.atWork, "nothing is in flight when a job says that it is paused");
    }
    life.status = to;
  }

  #called(life: Life, call: string): void {
    life.calls += life.calls === "" ? call : ` ${call}`;
  }

  #check(): void {
    if (this.#bugs.length > 0) throw this.#bugs[0];
  }

  #checkEnd(life: Life): void {
    const { job, calls } = life;
    const told = `${job.id} ${life.end}: ${calls}; ${life.hooks}`;
    expect(life.status, told).toBe("null");
    expect(calls, told).toMatch(
      /^(free|((run )?(prepare )?abort|run prepare commit) clean cb free)$/,
    );
    expect(calls.includes("commit"), told).toBe(life.end === "success");
    const hook = job.cancelled ? "finalize-cancelled" : "finalize-completed";
    expect(life.hooks, told).toBe(job.started ? hook : "");
    expect([life.drains, life.pauses, life.atWork], told).toEqual([0, 0, false]);
    const mates = this.lives.filter((l) => l.job.txn === job.txn && l.end !== "never set up");
    const committed = mates.filter((mate) => mate.calls.includes("commit"));
    expect([0, mates.length], `${told}: all commit or none`).toContain(committed.length);
  }

  #life(id: string): Life {
    return this.lives[Number(id.slice(1))]!;
  }

  #note(what: string, job: Job): void {
    this.log.push(`${this.clock.now()} ms: ${what} ${job.id} (${job.status})`);
  }

  /** True once in `n` times. */
  #odds(n: number): boolean {
    return this.#random.below(n) === 0;
  }
}
