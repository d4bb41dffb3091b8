/** Jobs that end together: the outcome matrix, and who is told of first. */

import { expect, it } from "vitest";
import { sleep } from "../../src/base/clock.ts";
import { BlockError } from "../../src/base/errors.ts";
import type { Job } from "../../src/job/job.ts";
import { JobTxn } from "../../src/job/txn.ts";
import { verbs } from "../../src/job/verbs.ts";
import { failing, steps, type TinyDriver, World } from "./world.ts";

const KEPT = { autoDismiss: false };

it("#32 all succeed: the first waits for the last, then newest first", async () => {
  const { world, a, b } = pair({ run: steps(1) }, { run: steps(5) });
  await world.clock.advance(20);
  expect([a.status, b.status]).toEqual(["waiting", "running"]);
  await world.end(a, b);
  expect(world.story()).toBe(
    "a:created b:created a:running b:running a:waiting b:waiting b:pending a:pending " +
      "b:COMPLETED b:concluded a:COMPLETED a:concluded",
  );
  expect(world.calls()).toBe(
    "a:run b:run b:prepare a:prepare b:commit b:clean b:cb a:commit a:clean a:cb",
  );
});

// [run of a, run of b, cancelled after 5 ms, results of a and b]
type Fate = "ok" | "EIO" | "cancel";
const MATRIX: [Fate, Fate, string][] = [
  ["ok", "ok", "ok ok"],
  ["EIO", "ok", "EIO ECANCELED"],
  ["ok", "EIO", "ECANCELED EIO"],
  ["cancel", "ok", "ECANCELED ECANCELED"],
  ["ok", "cancel", "ECANCELED ECANCELED"],
  ["cancel", "EIO", "ECANCELED ECANCELED"],
];
for (const [fateA, fateB, results] of MATRIX) {
  it(`#32 a ${fateA}, b ${fateB}: ${results}`, async () => {
    const run = (fate: Fate) => ({ run: fate === "EIO" ? failing(2) : steps(2) });
    const { world, a, b } = pair(run(fateA), run(fateB));
    await world.clock.advance(5);
    if (fateA === "cancel") a.cancel(true);
    if (fateB === "cancel") b.cancel(true);
    await world.end(a, b);
    expect([a, b].map((job) => job.error?.errno ?? "ok").join(" ")).toBe(results);
    for (const job of [a, b]) {
      expect(world.story(job)).toContain(job.cancelled ? "CANCELLED" : "COMPLETED");
      expect(world.calls(job)).toContain(job.error ? "abort clean cb" : "commit clean cb");
    }
  });
}

it("one fails: the newest is told of first, whoever failed", async () => {
  const { world, a, b } = pair({ run: failing(1) }, { run: steps(5) });
  await world.end(a, b);
  expect(world.story()).toBe(
    "a:created b:created a:running b:running a:aborting b:aborting b:CANCELLED b:concluded " +
      "a:COMPLETED a:concluded",
  );
});

it("#38 one fails: a sibling that waits, is paused, or is stuck in a request ends too", async () => {
  const world = new World();
  const txn = new JobTxn();
  const [waits, paused, stuck, fails] = [
    { run: steps(0) },
    { run: steps(5) },
    { run: (job: Job) => sleep(job.clock, 1e9, job.signal) },
    { run: failing(1) },
  ].map((driver, i) => world.born(driver, { id: `j${i}`, txn })) as [Job, Job, Job, Job];
  for (const job of [waits, paused, stuck, fails]) job.start();
  paused.userPause();
  await world.end(waits, paused, stuck, fails);
  expect(world.story(waits)).toBe("created running waiting aborting CANCELLED concluded null");
  expect(world.story(paused)).toBe(
    "created running paused running aborting CANCELLED concluded null",
  );
  expect(world.story(stuck)).toBe("created running aborting CANCELLED concluded null");
  expect(world.story(fails)).toBe("created running aborting COMPLETED concluded null");
  expect(world.clock.timerCount).toBe(0);
});

it("prepare of one fails: nobody commits, the next ones are not even prepared", async () => {
  const world = new World();
  const txn = new JobTxn();
  const jobs = [{}, { prepare: broken }, {}].map((driver, i) =>
    world.born(driver, { id: `j${i}`, txn, autoFinalize: i !== 0 }),
  );
  for (const job of jobs) job.start();
  await world.clock.advance(100);
  // Any member finalizes all.
  await verbs.finalize(jobs[2]!);
  expect(jobs.map((job) => `${job.status} ${job.error?.errno}`)).toEqual([
    "null ECANCELED",
    "null EIO",
    "null ECANCELED",
  ]);
  expect(world.story(jobs[1])).toContain("pending aborting COMPLETED");
  expect(world.story(jobs[2])).toContain("pending aborting CANCELLED");
  expect(jobs.map((job) => world.calls(job))).toEqual([
    "run abort clean cb free",
    "run prepare abort clean cb free",
    "run prepare abort clean cb free",
  ]);
});

it("one is manual: all wait in pending, and only that one asks", async () => {
  const world = new World();
  const txn = new JobTxn();
  const a = world.born({}, { id: "a", txn, autoFinalize: false });
  const b = world.born({}, { id: "b", txn });
  a.start();
  b.start();
  await world.clock.advance(100);
  expect([world.story(a), world.story(b)]).toEqual([
    "created running waiting pending PENDING",
    "created running waiting pending",
  ]);
  await verbs.finalize(b);
  expect([a.status, b.status]).toEqual(["null", "null"]);
});

for (const which of ["a", "b"] as const) {
  it(`#34 #35 cancelling ${which} cancels all, while one waits and while both are pending`, async () => {
    for (const ms of [20, 100]) {
      const manner = { ...KEPT, autoFinalize: false };
      const jobs = pair({ run: steps(1) }, { run: steps(5) }, manner);
      await jobs.world.clock.advance(ms);
      await verbs.cancel(jobs[which], true);
      await jobs.world.end(jobs.a, jobs.b);
      expect([jobs.a.error?.errno, jobs.b.error?.errno]).toEqual(["ECANCELED", "ECANCELED"]);
      expect(jobs.world.story().match(/CANCELLED/g)?.length).toBe(2);
    }
  });
}

it("#37 one stopped by an error: others wait, finalize is refused, resume completes all", async () => {
  const { world, a, b } = pair(
    { run: steps(1) },
    {
      run: async (job) => {
        await job.sleep(5);
        job.userPause();
        await job.pausePoint();
      },
    },
  );
  await world.clock.advance(50);
  expect([a.status, b.status]).toEqual(["waiting", "paused"]);
  await expect(verbs.finalize(a)).rejects.toThrow("while it is waiting");
  await verbs.resume(b);
  await world.end(a, b);
  expect([a.error, b.error]).toEqual([null, null]);
});

// QEMU 10 hangs here for ever.
it("rolls back all members when none was started", async () => {
  const world = new World();
  const txn = new JobTxn();
  const slow = { clean: () => world.clock.yield() };
  const jobs = [0, 1, 2].map((i) => world.born(slow, { id: `j${i}`, txn }));
  await verbs.cancel(jobs[1]!, true);
  await world.end(...jobs);
  expect(world.story()).toBe(
    ["j0:created j1:created j2:created"]
      .concat([2, 1, 0].map((i) => `j${i}:aborting j${i}:concluded j${i}:null`))
      .join(" "),
  );
  for (const job of jobs) expect(world.calls(job)).toBe("abort clean cb free");
});

it("a started member fails before the others start: they never do", async () => {
  const world = new World();
  const txn = new JobTxn();
  const a = world.born({ clean: () => world.clock.yield() }, { id: "a", txn });
  const b = world.born({ run: failing(0) }, { id: "b", txn });
  b.start();
  await world.end(b);
  a.start();
  await world.end(a);
  expect(world.story(a)).toBe("created aborting concluded null");
  expect(() => world.born({}, { id: "c", txn })).toThrow("no job can join it any more");
  expect(world.list.all()).toEqual([]);
});

it("one cannot be set up: it leaves the group, the rest go on", async () => {
  const world = new World();
  const txn = new JobTxn();
  const a = world.born({}, { id: "a", txn });
  const b = world.born({}, { id: "b", txn });
  a.start();
  await world.clock.advance(100);
  expect(a.status).toBe("waiting");
  b.earlyFail();
  await world.end(a);
  expect(world.story(a)).toContain("COMPLETED");
});

it("one fails, and whoever hears of it withdraws the last other: the group still aborts", async () => {
  const world = new World();
  const txn = new JobTxn();
  const rest = world.born({}, { id: "rest", txn });
  const waits = world.born({ run: steps(0) }, { id: "waits", txn });
  const onEvent = (event: { kind: string; status?: string }) => {
    if (event.status === "aborting") rest.earlyFail();
  };
  const fails = world.born({ run: failing(1) }, { id: "fails", txn, onEvent });
  for (const job of [waits, fails]) job.start();
  await world.end(waits, fails, rest);
  expect(world.bugs).toEqual([]);
  expect([waits.error?.errno, fails.error?.errno]).toEqual(["ECANCELED", "EIO"]);
  expect(world.calls(waits)).toBe("run abort clean cb free");
});

it("one withdraws, and whoever hears of the group going on finds it gone already", async () => {
  const world = new World();
  const txn = new JobTxn();
  const unborn: Job[] = [];
  const onEvent = (event: { kind: string; status?: string }) => {
    if (event.status === "pending") unborn.push(...world.list.all().filter((job) => !job.started));
  };
  const waits = world.born({ run: steps(0) }, { id: "waits", txn, onEvent });
  const rest = world.born({}, { id: "rest", txn });
  waits.start();
  await world.clock.advance(10);
  rest.earlyFail();
  await world.end(waits, rest);
  expect([unborn, rest.status, waits.error]).toEqual([[], "null", null]);
});

it("takes nobody in once a member has started", async () => {
  const { world, a } = pair({}, {});
  expect(() => world.born({}, { id: "c", txn: a.txn })).toThrow("whole before it starts");
});

it("two fail at once: both keep their own errors, each ends once", async () => {
  const { world, a, b } = pair({ run: failing(1) }, { run: failing(1) });
  await world.end(a, b);
  expect([a.error?.errno, b.error?.errno]).toEqual(["EIO", "ECANCELED"]);
  for (const job of [a, b]) expect(world.calls(job)).toBe("run abort clean cb");
});

it("a listener that cancels as soon as it hears of waiting or pending stops the group", async () => {
  for (const [moment, autoFinalize] of [
    ["waiting", false],
    ["pending", false],
    ["pending", true],
  ] as const) {
    const world = new World();
    const txn = new JobTxn();
    const jobs = ["a", "b"].map((id) =>
      world.born(
        {},
        {
          id,
          txn,
          autoFinalize,
          onEvent: (event, job) => {
            if (event.kind === "status" && event.status === moment) job.cancel(true);
          },
        },
      ),
    );
    for (const job of jobs) job.start();
    await world.end(...jobs);
    expect(world.bugs).toEqual([]);
    for (const job of jobs) expect(world.calls(job)).toBe("run abort clean cb free");
    expect(world.story()).not.toMatch(/PENDING|a:pending/);
  }
});

it("a listener that finalizes at the first PENDING is told that others are not there yet", async () => {
  const answers: string[] = [];
  const manner = {
    autoFinalize: false,
    onEvent: (event: { kind: string }, job: Job) => {
      if (event.kind !== "pending") return;
      const answer = verbs.finalize(job);
      answer.then(
        () => answers.push(`${job.id} ok`),
        (reason) => answers.push(`${job.id} ${reason.message.slice(-35)}`),
      );
    },
  };
  const { world, a, b } = pair({}, {}, manner);
  await world.end(a, b);
  expect(answers).toEqual(["b others of its group are not pending", "a ok"]);
  expect([a.error, b.error]).toEqual([null, null]);
});

function broken(): void {
  throw new BlockError("EIO", "Input/output error");
}

/** Two started jobs in one group; a is the older one. */
function pair(driverA: TinyDriver, driverB: TinyDriver, manner: object = KEPT) {
  const world = new World();
  const txn = new JobTxn();
  const a = world.born(driverA, { ...manner, id: "a", txn });
  const b = world.born(driverB, { ...manner, id: "b", txn });
  a.start();
  b.start();
  return { world, a, b };
}
