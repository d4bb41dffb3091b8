/** Jobs, seen from outside: every case is one life, told in the words of its events. */

import { expect, it } from "vitest";
import { BlockError } from "../../src/base/errors.ts";
import { verbs } from "../../src/job/verbs.ts";
import { converging, failing, steps, type TinyDriver, World } from "./world.ts";

const SUCCESS = "created running waiting pending COMPLETED concluded null";

it("#20 #24 #31 succeeds", async () => {
  const world = new World();
  const job = world.started();
  await world.end(job);
  expect(world.story()).toBe(SUCCESS);
  expect(world.calls()).toBe("run prepare commit clean cb free");
  expect([job.error, world.list.all()]).toEqual([null, []]);
});

it("is running before start() returns, and works only afterwards", async () => {
  const world = new World();
  world.started();
  expect(world.story()).toBe("created running");
  expect(world.calls()).toBe("");
  await world.clock.advance(0);
  expect(world.calls()).toBe("run");
});

it("#24 #31 fails in run", async () => {
  const world = new World();
  const job = world.started({ run: failing() });
  await world.end(job);
  expect(world.story()).toBe("created running aborting COMPLETED concluded null");
  expect(world.calls()).toBe("run abort clean cb free");
  expect([job.error?.errno, job.error?.message]).toEqual(["EIO", "Input/output error"]);
});

it("#24 fails in prepare", async () => {
  const world = new World();
  const job = world.started({ prepare: () => refuse() }, { autoDismiss: false });
  await world.end(job);
  expect(world.story()).toBe("created running waiting pending aborting COMPLETED concluded");
  expect(world.calls()).toBe("run prepare abort clean cb");
  expect(job.query().error).toBe("Operation not permitted");
});

it("#20 waits in pending for finalize, and in concluded for dismiss", async () => {
  const world = new World();
  const job = world.started({}, { autoFinalize: false, autoDismiss: false });
  await world.clock.advance(100);
  expect(world.story()).toBe("created running waiting pending PENDING");
  await verbs.finalize(job);
  expect(world.story()).toBe("created running waiting pending PENDING COMPLETED concluded");
  expect(world.calls()).toBe("run prepare commit clean cb");
  await verbs.dismiss(job);
  expect(world.story().endsWith("concluded null")).toBe(true);
  expect(world.calls().endsWith("cb free")).toBe(true);
  expect(world.list.all()).toEqual([]);
});

it("finalize is no error when prepare fails; the job tells", async () => {
  const world = new World();
  const job = world.started({ prepare: refuse }, { autoFinalize: false, autoDismiss: false });
  await world.clock.advance(100);
  await verbs.finalize(job);
  expect(world.story(job).endsWith("PENDING aborting COMPLETED concluded")).toBe(true);
  expect(job.error?.errno).toBe("EPERM");
});

it("awaits every step of its end, in order", async () => {
  const world = new World();
  const order: string[] = [];
  const slow = (name: string) => async () => {
    order.push(`${name} (`);
    await world.clock.yield();
    order.push(`) ${name}`);
  };
  const job = world.started({
    run: steps(0),
    prepare: slow("prepare"),
    commit: slow("commit"),
    clean: slow("clean"),
  });
  await world.end(job);
  expect(order.join(" ")).toBe("prepare ( ) prepare commit ( ) commit clean ( ) clean");
  expect(world.story()).toBe(SUCCESS);
});

it("#25 becomes ready, and completes when told to", async () => {
  const world = new World();
  const job = world.started(converging());
  await world.clock.advance(10);
  expect(world.story()).toBe("created running ready READY");
  await verbs.complete(job);
  await world.end(job);
  expect(world.story()).toBe(
    "created running ready READY waiting pending COMPLETED concluded null",
  );
});

it("has an early end if it cannot be set up: free alone", async () => {
  const world = new World();
  const job = world.born();
  job.earlyFail();
  await job.finished;
  expect(world.story()).toBe("created null");
  expect(world.calls()).toBe("free");
});

it("leaves the end to the cancel if both come", async () => {
  const world = new World();
  const job = world.born({ clean: () => world.clock.yield() });
  job.cancel(true);
  job.earlyFail();
  job.start();
  await world.end(job);
  expect(world.story()).toBe("created aborting concluded null");
  expect(world.calls()).toBe("abort clean cb free");
});

it("#125 is silent and unseen without an id, but has its hooks", async () => {
  const world = new World();
  const job = world.started({}, { id: null });
  expect(world.list.query()).toEqual([]);
  await world.end(job);
  expect(world.story()).toBe("COMPLETED");
});

it("#125 shows itself as query-jobs does", async () => {
  const world = new World();
  const job = world.started({ run: failing(3), type: "stream" }, { autoDismiss: false });
  await world.clock.advance(20);
  const shown = { id: "job", type: "stream", "current-progress": 2, "total-progress": 3 };
  expect(job.query()).toEqual({ ...shown, status: "running" });
  await world.end(job);
  expect(job.query()).toEqual({
    ...shown,
    "current-progress": 3,
    status: "concluded",
    error: "Input/output error",
  });
});

it("hands its result to the creator", async () => {
  const world = new World();
  const results: unknown[] = [];
  const cb = (error: BlockError | null) => results.push(error?.errno ?? "ok");
  await world.end(world.started({}, { cb }), world.started({ run: failing() }, { id: "b", cb }));
  expect(results).toEqual(["EIO", "ok"]);
});

// What is not a BlockError is our bug: the engine hears of it, and the job still ends, as failed.
const BROKEN: [string, TinyDriver, string][] = [
  ["run", { run: () => bug() }, "run abort clean cb free"],
  ["run, later", { run: (job) => job.sleep(1).then(bug) }, "run abort clean cb free"],
  ["prepare", { prepare: bug }, "run prepare abort clean cb free"],
  ["commit", { commit: bug }, "run prepare commit clean cb free"],
  ["clean", { clean: bug }, "run prepare commit clean cb free"],
  ["abort", { run: failing(), abort: bug }, "run abort clean cb free"],
];
for (const [where, driver, calls] of BROKEN) {
  it(`survives a bug in ${where}: tells the engine, and ends as failed`, async () => {
    const world = new World();
    const job = world.started(driver);
    await world.end(job);
    expect(world.bugs.map(String)).toEqual(["TypeError: a bug"]);
    expect(world.story().endsWith("aborting COMPLETED concluded null")).toBe(true);
    expect(world.calls()).toBe(calls);
    expect(job.error?.errno).toBe("EIO");
  });
}

it("takes an operating error in commit for a bug too, never for success", async () => {
  const world = new World();
  const job = world.started({ commit: () => refuse() });
  await world.end(job);
  expect(world.bugs.length).toBe(1);
  expect(job.error?.message).toBe("Internal error in job 'job': Operation not permitted");
});

it("survives a listener that throws", async () => {
  const world = new World();
  const job = world.started({ userResume: bug }, { onEvent: bug, cb: bug });
  job.userPause();
  job.cancel(false);
  await world.end(job);
  expect(world.story()).toBe("created running aborting CANCELLED concluded null");
  expect(world.bugs.length).toBeGreaterThan(5);
});

it("fails, and still ends, if run leaves a sleep behind", async () => {
  const world = new World();
  const job = world.started({
    run: async (self) => {
      self.sleep(1000).catch(() => {});
    },
  });
  await world.end(job);
  expect(String(world.bugs[0])).toContain("while one of its waits went on");
  expect(world.story()).toBe("created running aborting COMPLETED concluded null");
  expect(world.clock.timerCount).toBe(0);
});

it("keeps what run failed with, even if that left a sleep behind", async () => {
  const world = new World();
  const job = world.started({
    run: async (self) => {
      self.sleep(1000).catch(() => {});
      throw new BlockError("ENOSPC", "No space left on device");
    },
  });
  await world.end(job);
  expect([job.error?.errno, world.bugs.length]).toEqual(["ENOSPC", 1]);
});

function refuse(): void {
  throw new BlockError("EPERM", "Operation not permitted");
}

function bug(): never {
  throw new TypeError("a bug");
}
