/** Names of jobs, queries, shutdown. */

import { expect, it } from "vitest";
import { sleep } from "../../src/base/clock.ts";
import { JobTxn } from "../../src/job/txn.ts";
import { converging, steps, World } from "./world.ts";

const BAD = ["", "0id", "    ", "123", "_id", "-id", ".id", "#id", "a b", "id\n", "é"];
const GOOD = ["id0", "id_2", "a", "Z", "a.b-c_d", "x".repeat(300)];

for (const id of BAD) {
  it(`#1 refuses the id '${JSON.stringify(id)}', and leaves no job`, () => {
    const world = new World();
    expect(() => world.born({}, { id })).toThrow("Invalid job ID");
    expect([world.list.all(), world.story()]).toEqual([[], ""]);
  });
}

it("#2 takes letters, digits, '-', '.' and '_', at any length", () => {
  const world = new World();
  for (const id of GOOD) world.born({}, { id });
  expect(world.list.query().map((job) => job.id)).toEqual(GOOD.toReversed());
});

it("#4 an id is taken until its job is null, and not a moment longer", async () => {
  const world = new World();
  const old = world.started({}, { autoDismiss: false });
  await world.end(old);
  expect(() => world.born()).toThrow("Job ID 'job' is already in use");
  expect(world.list.all()).toEqual([old]);
  let heir = null;
  world.list.hooks.onStatus = ({ status }) => {
    if (status === "null") heir = world.born();
  };
  old.dismiss();
  expect(world.list.all()).toEqual([heir]);
});

it("a refused id leaves its group as it was", async () => {
  const world = new World();
  const txn = new JobTxn();
  const job = world.born({}, { txn });
  expect(() => world.born({}, { txn })).toThrow("already in use");
  job.start();
  await world.end(job);
  expect(job.error).toBe(null);
});

it("finds by id; who is not there is not found", () => {
  const world = new World();
  const job = world.born();
  expect(world.list.get("job")).toBe(job);
  expect(() => world.list.get("nobody")).toThrow("Job 'nobody' not found");
});

it("#125 has any number of internal jobs, and shows none of them", async () => {
  const world = new World();
  const jobs = [world.started({}, { id: null }), world.started({}, { id: null })];
  expect([world.list.all().length, world.list.query()]).toEqual([2, []]);
  await world.end(...jobs);
});

it("shuts down whatever its jobs are doing", async () => {
  const world = new World();
  const { list, clock } = world;
  const manual = { autoFinalize: false, autoDismiss: false };
  const txn = new JobTxn();
  world.born({}, { id: "created", ...manual });
  world.started({ run: steps(1, 1e9) }, { id: "asleep", ...manual });
  world.started({ run: (job) => job.yield() }, { id: "yielded", ...manual });
  world.started({ run: (job) => sleep(clock, 1e9, job.signal) }, { id: "stuck", ...manual });
  world.started({ run: steps(1, 1e9) }, { id: null, ...manual });
  world.started(converging(), { id: "ready", ...manual });
  const waiting = world.born({ run: steps(0) }, { id: "waiting", txn, ...manual });
  world.born({}, { id: "unstarted", txn, ...manual });
  waiting.start();
  world.started({ run: steps(0) }, { id: "pending", ...manual });
  world.started({ run: steps(0) }, { id: "concluded", autoDismiss: false });
  world.started({ run: steps(0), prepare: () => sleep(clock, 5) }, { id: "finalizing" });
  world.started({ run: steps(1, 1e9) }, { id: "paused", ...manual }).userPause();
  world.started({ run: steps(1, 1e9) }, { id: "drained", ...manual }).pause();
  await clock.advance(12);
  await clock.runUntil(list.cancelAll());
  expect([list.all(), clock.timerCount, world.bugs]).toEqual([[], 0, []]);
  const stories = world.story().split(" ");
  expect(stories.filter((word) => word.endsWith(":null")).length).toBe(12);
  expect(stories.includes("finalizing:COMPLETED")).toBe(true);
  expect(stories.includes("finalizing:aborting")).toBe(false);
});
