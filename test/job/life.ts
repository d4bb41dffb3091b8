/**
 * One job of a random world, as its driver and its listeners see it: what it was asked to do, what
 * it did, and what must hold of it at any moment and at its end. The rules are told here once more,
 * in other words than in src/job/.
 */

import { assert } from "../../src/base/errors.ts";
import type { JobEvent } from "../../src/job/driver.ts";
import type { Job } from "../../src/job/job.ts";
import type { JobStatus } from "../../src/job/status.ts";
import type { JobTxn } from "../../src/job/txn.ts";

const ARROWS =
  "undefined>created created>running created>aborting created>null running>paused running>ready " +
  "running>waiting running>aborting paused>running ready>standby ready>waiting ready>aborting " +
  "standby>ready waiting>pending waiting>aborting pending>aborting pending>concluded " +
  "aborting>concluded concluded>null";

/** What the members of one group share. */
export interface Group {
  readonly txn: JobTxn;
  readonly lives: Life[];
  /** Somebody has failed, was cancelled, or was told to end: not all is well any more. */
  spoilt: boolean;
  finalizeAllowed: boolean;
}

export class Life {
  readonly name: string;
  readonly group: Group;
  job!: Job;
  status: JobStatus = "undefined";
  calls = "";
  hooks = "";
  /** A request is in flight. */
  atWork = false;
  /** One of run, prepare, commit, abort, clean is under way. */
  step: string | null = null;
  prepared = false;
  wasPending = false;
  /** What run or prepare threw. */
  threw: string | null = null;
  /** Calls of pause() not yet taken back. */
  pauses = 0;
  /** Drains that have been told it is quiet. */
  drains = 0;
  /** Anything that may end a sleep early. */
  nudges = 0;
  quiesced = 0;
  /** Which soft cancels its driver leaves soft. */
  soft: "none" | "ready" | "all" = "none";
  buggy = false;

  constructor(name: string, group: Group) {
    this.name = name;
    this.group = group;
    group.lives.unshift(this);
  }

  get committed(): boolean {
    return this.calls.includes("commit");
  }

  get end(): string {
    if (this.calls === "free") return "never set up";
    if (!this.job.started) return "never started";
    if (this.job.cancelled) return "cancelled";
    return this.committed ? "success" : "failed";
  }

  called(call: string): void {
    this.calls += this.calls === "" ? call : ` ${call}`;
  }

  /** A step of the driver begins: at most one at a time, prepare and the ends in their order. */
  begins(step: string): void {
    this.called(step);
    assert(this.step === null, `${this.name}: ${step} begins after ${this.step} has ended`);
    this.step = step;
    const { lives, txn, finalizeAllowed } = this.group;
    if (step === "run") assert(!this.job.cancelled, `${this.name}: no run after a force cancel`);
    const members = lives.filter((life) => txn.members.includes(life.job));
    if (step === "prepare" || step === "commit") {
      const pending = members.every((life) => life.status === "pending");
      assert(pending, `${this.name}: all are pending at ${step}`);
      const auto = members.every((life) => life.job.autoFinalize);
      assert(auto || finalizeAllowed, `${this.name}: the user has allowed ${step}`);
    }
    if (step === "commit") {
      assert(
        members.every((life) => life.prepared),
        `${this.name}: all are prepared at commit`,
      );
    }
    if (step === "commit" || step === "abort") {
      assert(members[0] === this, `${this.name}: the newest member is the first to ${step}`);
      const rest = members.filter((life) => life.job.started && !life.job.deferred);
      const alone = this.job.started ? !rest.includes(this) : true;
      assert(alone, `${this.name}: its run is over at ${step}`);
    }
    if (step === "clean") assert(/(commit|abort) clean$/.test(this.calls), "clean comes after");
  }

  ended(): void {
    this.step = null;
  }

  moved(event: JobEvent): void {
    if (event.kind !== "status") {
      if (event.kind !== "idle") this.hooks += `${event.kind} `;
      this.#checkHook(event.kind);
      return;
    }
    const { status } = event;
    assert(` ${ARROWS} `.includes(` ${this.status}>${status} `), `${this.status} > ${status}`);
    if (status === "paused" || status === "standby") {
      assert(!this.atWork, `${this.name}: nothing is in flight when it says that it is paused`);
    }
    this.status = status;
    this.wasPending ||= status === "pending";
  }

  #checkHook(kind: string): void {
    const { status, name } = this;
    if (kind === "ready") assert(status === "ready", `${name}: ready is told when ready`);
    if (kind === "pending") {
      assert(status === "pending" && !this.job.autoFinalize, `${name}: asks when pending, manual`);
    }
    if (kind.startsWith("finalize")) {
      assert(/(commit|abort) clean cb$/.test(this.calls), `${name}: the hook comes after cb`);
      const want = this.job.cancelled ? "finalize-cancelled" : "finalize-completed";
      assert(kind === want, `${name}: ${kind}, but ${want} expected`);
    }
    if (kind === "idle") assert(!this.job.busy, `${name}: idle is not busy`);
  }

  /** What holds between any two steps. */
  check(): void {
    const { job, name, status } = this;
    assert(job.status === status, `${name}: every move is told: ${job.status}, ${status}`);
    const count = (job.started ? 0 : 1) + (job.userPaused ? 1 : 0) + this.pauses;
    assert(job.pauseCount === count, `${name}: ${job.pauseCount} pauses, ${count} expected`);
    if (job.parked) assert(!job.busy && !this.atWork, `${name}: parked is at rest`);
    if (status === "paused" || status === "standby") {
      assert(job.parked && job.pauseCount > 0, `${name}: ${status} is parked, and for a reason`);
      assert(!job.cancelled, `${name}: no pause holds a job that is cancelled by force`);
    }
    if (this.drains > 0) assert(!this.atWork, `${name}: no request in flight while drained`);
    assert(job.cancelled === job.signal.aborted, `${name}: the signal tells of a force cancel`);
    if (job.cancelled) assert(job.cancelRequested, `${name}: force implies a request`);
    if (this.committed) assert(!job.cancelled, `${name}: no commit after a force cancel`);
    if (job.started && !job.deferred && !job.busy && job.pauseCount > 0 && !job.cancelled) {
      assert(job.parked, `${name}: a pause parks it where it waits`);
    }
    if (!job.started) assert(status !== "concluded", `${name}: nobody dismisses what never ran`);
    if (job.started) assert(status !== "created", `${name}: a started job has moved`);
    if (status === "concluded" || status === "null") {
      assert(/(^|cb )free$|cb$/.test(this.calls), `${name}: ${status} after "${this.calls}"`);
    }
  }

  /** What holds when all is over. */
  checkEnd(): void {
    const { job, calls, name, end } = this;
    const holds = (what: unknown, rule: string) =>
      assert(what, `${rule}; ${name} ${end}: ${calls}; ${this.hooks}; ${job.error?.errno}`);
    holds(this.status === "null", "gone");
    const order = /^(free|((run )?(prepare )?abort|run prepare commit) clean cb free)$/;
    holds(order.test(calls), "every step once, in order");
    const finalize = job.cancelled ? "finalize-cancelled " : "finalize-completed ";
    const hooks = this.hooks.replace(/^(ready )?(pending )?/, "");
    holds(hooks === (job.started ? finalize : ""), "every hook once, in order");
    holds(this.drains + this.pauses + this.quiesced === 0 && !this.atWork, "all came in pairs");
    if (this.buggy) return;
    const isSetUp = end !== "never set up";
    const errno = this.threw ?? (job.cancelled ? "ECANCELED" : null);
    holds((job.error?.errno ?? null) === (isSetUp ? errno : null), `the error is ${errno}`);
    holds(this.committed === (job.error === null && isSetUp), "commits if there is no error");
  }
}

/** All of a group commit, or none does; and none ends badly without a reason. */
export function checkGroup({ lives, spoilt }: Group): void {
  const real = lives.filter((life) => life.end !== "never set up");
  const told = real.map((life) => `${life.name}: ${life.calls}`).join("; ");
  const committed = real.filter((life) => life.committed).length;
  const expected = spoilt ? 0 : real.length;
  assert(committed === expected, `${expected} of the group commit, not ${committed}: ${told}`);
}
