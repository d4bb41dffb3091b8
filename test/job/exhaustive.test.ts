/**
 * Small groups, and every order in which things can happen: the run of each member takes a turn,
 * so does every ending, and a client asks for something at any moment. No dice: all of them, once.
 */

import { expect, it } from "vitest";
import { assert, BlockError } from "../../src/base/errors.ts";
import { Job } from "../../src/job/job.ts";
import { JobList } from "../../src/job/list.ts";
import { JobTxn } from "../../src/job/txn.ts";
import { verbs } from "../../src/job/verbs.ts";
import { type Group, Life } from "./life.ts";
import { AllChoices, Scheduler, settled } from "./scheduler.ts";

interface Small {
  readonly list: JobList;
  readonly group: Group;
  readonly jobs: readonly Job[];
}
type Command = (small: Small) => unknown;

const COMMANDS: Record<string, Command> = {
  "force a": ({ jobs }) => verbs.cancel(jobs[0]!, true),
  "soft b": ({ jobs }) => verbs.cancel(jobs[1]!, false),
  "pause a": ({ jobs }) => verbs.pause(jobs[0]!),
  "resume a": ({ jobs }) => verbs.resume(jobs[0]!),
  "finalize b": ({ jobs }) => verbs.finalize(jobs[1]!),
  "drain b": async ({ group, jobs }) => {
    const life = group.lives.find(({ job }) => job === jobs[1])!;
    life.pauses++;
    life.job.pause();
    await life.job.quiet();
    life.pauses--;
    life.job.resume();
  },
  shutdown: ({ list }) => list.cancelAll(),
};
const NAMES = Object.keys(COMMANDS);

it("#32 three jobs and any command, in every order", async () => {
  let orders = 0;
  for (const failing of ["none", "run"]) {
    for (const name of NAMES) orders += await everyOrder(3, failing, [name]);
  }
  expect(orders).toBeGreaterThan(10_000);
}, 120_000);

it("#32 two jobs and any two commands, in every order", async () => {
  let orders = 0;
  for (const failing of ["none", "run", "prepare"]) {
    for (const first of NAMES) {
      for (const second of NAMES) orders += await everyOrder(2, failing, [first, second]);
    }
  }
  expect(orders).toBeGreaterThan(10_000);
}, 120_000);

async function everyOrder(size: number, failing: string, names: string[]): Promise<number> {
  const choices = new AllChoices();
  let orders = 0;
  do {
    orders++;
    try {
      await oneOrder(choices, size, failing, names);
    } catch (reason) {
      const what = `${size} jobs, ${failing} fails, ${names}: ${choices}`;
      throw new Error(`${what}: ${reason}`, { cause: reason });
    }
  } while (choices.next());
  return orders;
}

async function oneOrder(
  choices: AllChoices,
  size: number,
  failing: string,
  names: readonly string[],
): Promise<void> {
  const clock = new Scheduler(choices);
  const bugs: unknown[] = [];
  const list = new JobList({ onBug: (bug) => bugs.push(bug) });
  const group: Group = { txn: new JobTxn(), lives: [], spoilt: false, finalizeAllowed: true };
  const jobs: Job[] = [];
  for (let i = 0; i < size; i++) {
    const life = new Life(`j${i}`, group);
    life.job = member(life, clock, list, i === 1 ? failing : "none", (bug) => bugs.push(bug));
    jobs.push(life.job);
  }
  for (const job of jobs) job.start();

  const left = [...names];
  let waiting = 0;
  for (;;) {
    await settled();
    if (bugs.length > 0) throw bugs[0];
    for (const life of group.lives) life.check();
    const ways = clock.choices + (left.length > 0 ? 1 : 0);
    if (ways === 0) break;
    if (left.length > 0 && (clock.choices === 0 || choices.below(2) === 1)) {
      waiting++;
      const asked = Promise.resolve(COMMANDS[left.shift()!]!({ list, group, jobs }));
      void asked.then(
        () => waiting--,
        (reason) => {
          waiting--;
          if (!(reason instanceof BlockError)) bugs.push(reason);
        },
      );
    } else clock.step();
  }
  await wakeAll(clock, jobs);
  if (bugs.length > 0) throw bugs[0];
  assert(waiting === 0, "every command is answered");
  assert(list.all().length === 0, `all are gone: ${JSON.stringify(list.query())}`);
  for (const life of group.lives) life.checkEnd();
  const committed = group.lives.filter((life) => life.committed).length;
  assert(committed === 0 || committed === size, `all commit or none, not ${committed}`);
}

/** A user who has paused takes it back; nothing else may be needed. */
async function wakeAll(clock: Scheduler, jobs: readonly Job[]): Promise<void> {
  for (const job of jobs) if (job.userPaused && !job.completed) await verbs.resume(job);
  await settled();
  while (clock.step()) await settled();
  const manual = jobs.find((job) => job.status === "pending");
  if (!manual) return;
  const finalized = verbs.finalize(manual);
  do await settled();
  while (clock.step());
  await finalized;
}

function member(
  life: Life,
  clock: Scheduler,
  list: JobList,
  failing: string,
  onBug: (bug: unknown) => void,
): Job {
  const step = (name: string) => async () => {
    life.begins(name);
    await clock.yield();
    life.ended();
    if (failing === name) {
      life.threw = "EIO";
      throw new BlockError("EIO", "Input/output error");
    }
    if (name === "prepare") life.prepared = true;
  };
  return new Job({
    id: life.name,
    clock,
    list,
    txn: life.group.txn,
    autoFinalize: life.name !== "j0",
    driver: {
      type: "test",
      run: step("run"),
      cancel: (job, force) => force || !job.ready,
      prepare: step("prepare"),
      commit: step("commit"),
      abort: step("abort"),
      clean: step("clean"),
      free: () => life.called("free"),
    },
    cb: () => life.called("cb"),
    onEvent: (event) => {
      try {
        life.moved(event);
      } catch (reason) {
        onBug(reason);
      }
    },
  });
}
