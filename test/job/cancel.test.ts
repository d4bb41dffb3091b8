/** Ends that were not the plan: a cancel in every phase, by force and softly. */

import { expect, it } from "vitest";
import { sleep } from "../../src/base/clock.ts";
import { BlockError } from "../../src/base/errors.ts";
import type { Job } from "../../src/job/job.ts";
import { verbs } from "../../src/job/verbs.ts";
import { converging, steps, type TinyDriver, World } from "./world.ts";

const MANUAL = { autoFinalize: false, autoDismiss: false };

// Each phase: how to get there, and the story of a force cancel from there on.
type Reach = (world: World) => Promise<Job>;
const PHASES: [string, Reach, string][] = [
  ["created", async (world) => world.born({}, MANUAL), "created aborting concluded null"],
  [
    "running",
    async (world) => at(world, world.started({}, MANUAL), 5),
    "created running aborting CANCELLED concluded",
  ],
  [
    "paused",
    async (world) => paused(await at(world, world.started({}, MANUAL), 5)),
    "created running paused running aborting CANCELLED concluded",
  ],
  [
    "ready",
    async (world) => at(world, world.started(converging(), MANUAL), 10),
    "created running ready READY aborting CANCELLED concluded",
  ],
  [
    "standby",
    async (world) => paused(await at(world, world.started(converging(), MANUAL), 10)),
    "created running ready READY standby ready aborting CANCELLED concluded",
  ],
  [
    "pending",
    async (world) => at(world, world.started({}, MANUAL), 30),
    "created running waiting pending PENDING aborting CANCELLED concluded",
  ],
];
for (const [phase, reach, story] of PHASES) {
  it(`#8 #9 #10 ends by force when ${phase}`, async () => {
    const world = new World();
    const job = await reach(world);
    expect(job.status).toBe(phase);
    await verbs.cancel(job, true);
    await world.end(job);
    expect(world.story()).toBe(story);
    expect(job.error?.errno).toBe("ECANCELED");
    expect(world.calls()).toMatch(/abort clean cb( free)?$/);
    expect(world.calls()).not.toContain("commit");
    if (job.status !== "null") {
      expect(job.query().error).toBe("Operation canceled");
      await verbs.dismiss(job);
    }
    expect([job.status, world.list.all()]).toEqual(["null", []]);
  });
}

it("#8 dismisses when cancelled as concluded by those below; the user may not", async () => {
  const world = new World();
  const job = world.started({}, { autoDismiss: false });
  await world.end(job);
  await expect(verbs.cancel(job, true)).rejects.toMatchObject({ errno: "EPERM" });
  job.cancel(true);
  expect(job.status).toBe("null");
  job.cancel(true);
});

it("settles a cancel with the end of a job that has nothing to wind down", async () => {
  const world = new World();
  const slow = { clean: () => world.clock.yield() };
  const job = await at(world, world.started(slow, { autoFinalize: false }), 30);
  await verbs.cancel(job, true);
  expect(job.status).toBe("null");
  const unborn = world.born(slow, { id: "unborn" });
  await verbs.cancel(unborn, true);
  expect(unborn.status).toBe("null");
});

it("wakes a sleeper at once, and leaves no timer", async () => {
  const world = new World();
  const job = await at(world, world.started({ run: steps(1, 1e9) }), 5);
  job.cancel(true);
  await world.clock.advance(0);
  expect([job.status, world.clock.timerCount]).toEqual(["null", 0]);
});

it("neither sleeps nor yields any more, in a run that does not look", async () => {
  const world = new World();
  const run = async (job: Job) => {
    await sleep(job.clock, 10);
    await job.yield();
    await job.sleep(1e9);
    await job.pausePoint();
  };
  const job = await at(world, world.started({ run }), 5);
  job.pause();
  job.cancel(true);
  await world.clock.advance(5);
  expect(world.story()).toBe("created running aborting CANCELLED concluded null");
});

it("never calls run once it is cancelled", async () => {
  const world = new World();
  const job = world.born();
  job.pause();
  job.start();
  job.cancel(true);
  await world.end(job);
  expect(world.story()).toBe("created running paused running aborting CANCELLED concluded null");
  expect(world.calls()).toBe("abort clean cb free");
});

it("raises the signal, so that a request in flight ends too", async () => {
  const world = new World();
  const run = (job: Job) => sleep(job.clock, 1e9, job.signal);
  const job = await at(world, world.started({ run }), 5);
  expect(job.signal.aborted).toBe(false);
  job.cancel(true);
  await world.clock.advance(0);
  expect(world.story()).toBe("created running aborting CANCELLED concluded null");
  expect(job.error?.errno).toBe("ECANCELED");
  expect(job.signal.reason).toBeInstanceOf(BlockError);
});

it("is cancelled even if run did all its work", async () => {
  const world = new World();
  const job = await at(world, world.started({ run: (self) => sleep(self.clock, 10) }), 5);
  job.cancel(true);
  await world.end(job);
  expect(job.error?.errno).toBe("ECANCELED");
  expect(world.story()).toBe("created running aborting CANCELLED concluded null");
});

it("keeps the error that came first, and still says cancelled", async () => {
  const world = new World();
  const run = async (job: Job) => {
    await sleep(job.clock, 10);
    throw new BlockError("EIO", "Broken on the way out");
  };
  const job = await at(world, world.started({ run }), 5);
  job.cancel(true);
  await world.end(job);
  expect(job.error?.errno).toBe("EIO");
  expect(world.story()).toBe("created running aborting CANCELLED concluded null");
});

it("takes an ECANCELED that nobody asked for as a failure", async () => {
  const world = new World();
  const run = async () => {
    throw new BlockError("ECANCELED", "Operation canceled");
  };
  await world.end(world.started({ run }));
  expect(world.story()).toBe("created running aborting COMPLETED concluded null");
});

it("ends well when cancelled softly as ready", async () => {
  const world = new World();
  const job = await at(world, world.started(converging(), { autoFinalize: false }), 10);
  await verbs.cancel(job, false);
  expect([job.cancelRequested, job.cancelled]).toEqual([true, false]);
  await world.clock.advance(0);
  expect(world.story()).toBe("created running ready READY waiting pending PENDING");
  await verbs.finalize(job);
  expect(world.story().endsWith("PENDING COMPLETED concluded null")).toBe(true);
  expect(job.error).toBe(null);
});

it("is cancelled by force if the driver knows no other way, or never started", async () => {
  const world = new World();
  const plain = await at(world, world.started(), 5);
  await verbs.cancel(plain, false);
  const unborn = world.born({ cancel: () => false }, { id: "unborn" });
  await verbs.cancel(unborn, false);
  await world.end(plain, unborn);
  expect([plain.error?.errno, unborn.error?.errno]).toEqual(["ECANCELED", "ECANCELED"]);
});

it("a soft cancel never weakens a force cancel, nor does a driver", async () => {
  const world = new World();
  const job = await at(world, world.started({ ...lazy(), cancel: () => false }), 10);
  job.cancel(true);
  expect(job.cancelled).toBe(true);
  job.cancel(false);
  expect(job.cancelled).toBe(true);
  await world.end(job);
});

it("a force cancel follows a soft one that takes too long", async () => {
  const world = new World();
  const job = await at(world, world.started(lazy()), 10);
  await verbs.cancel(job, false);
  await expect(verbs.complete(job)).rejects.toMatchObject({ errno: "EPERM" });
  await world.clock.advance(1000);
  expect(job.status).toBe("ready");
  await verbs.pause(job);
  expect(job.status).toBe("standby");
  await verbs.resume(job);
  await verbs.cancel(job, true);
  await world.end(job);
  expect(world.story().endsWith("standby ready aborting CANCELLED concluded null")).toBe(true);
});

it("#24 ignores a soft cancel of a finished job, unless the driver makes it one by force", async () => {
  const world = new World();
  const gentle = await at(world, world.started({ cancel: () => false }, MANUAL), 30);
  await verbs.cancel(gentle, false);
  expect([gentle.status, gentle.cancelRequested]).toEqual(["pending", false]);
  // A mirror is like that: soft only while ready, and pending is not ready.
  const mirror = world.started(converging(), { id: "mirror", ...MANUAL });
  await world.clock.advance(10);
  await verbs.complete(mirror);
  await world.clock.advance(0);
  expect(mirror.status).toBe("pending");
  await verbs.cancel(mirror, false);
  expect([mirror.status, mirror.error?.errno]).toEqual(["concluded", "ECANCELED"]);
});

it("between the end of run and what follows: softly it is ignored, by force it counts", async () => {
  for (const force of [false, true]) {
    const world = new World();
    const job = world.started({ run: async () => {}, cancel: (_job, by) => by });
    for (let hop = 0; hop < 50 && !job.deferred; hop++) await null;
    expect([job.status, job.busy]).toEqual(["running", true]);
    await verbs.cancel(job, force);
    expect([job.cancelRequested, job.cancelled]).toEqual([force, force]);
    await world.end(job);
    expect(world.story().split(" ").slice(2).join(" ")).toBe(
      force ? "aborting CANCELLED concluded null" : "waiting pending COMPLETED concluded null",
    );
    expect(world.calls()).toMatch(force ? /^run abort/ : /^run prepare commit/);
  }
});

it("ends the user's pause, and tells the driver", async () => {
  const world = new World();
  let resumed = 0;
  const userResume = () => {
    resumed++;
  };
  const job = await at(world, world.started({ ...lazy(), userResume }), 10);
  job.userPause();
  job.cancel(false);
  expect([job.userPaused, job.pauseCount, job.status, resumed]).toEqual([false, 0, "ready", 1]);
  job.cancel(true);
  await world.end(job);
  expect(resumed).toBe(1);
});

it("leaves a drain by force only", async () => {
  const world = new World();
  const job = await at(world, world.started(lazy()), 10);
  job.pause();
  job.cancel(false);
  await world.clock.advance(10);
  expect(job.status).toBe("standby");
  job.cancel(true);
  await world.end(job);
  expect(job.pauseCount).toBe(1);
});

it("is too late once the job is being finalized", async () => {
  const world = new World();
  const step = () => sleep(world.clock, 10);
  const job = await at(world, world.started({ prepare: step, commit: step, clean: step }), 30);
  for (let i = 0; i < 3; i++) {
    expect(job.status).toBe("pending");
    await expect(verbs.cancel(job, true)).rejects.toThrow("while it is being finalized");
    await expect(verbs.finalize(job)).rejects.toThrow("while its group is finalizing");
    job.cancel(true);
    await world.clock.advance(10);
  }
  expect([job.status, job.error, job.cancelled]).toEqual(["null", null, false]);
});

/** Becomes ready after 10 ms and heeds force alone. */
function lazy(): TinyDriver {
  return {
    run: async (job) => {
      await job.sleep(10);
      job.becomeReady();
      while (!job.cancelled) await job.sleep(100);
    },
    complete: () => {},
    cancel: (_job, force) => force,
  };
}

async function at(world: World, job: Job, ms: number): Promise<Job> {
  await world.clock.advance(ms);
  return job;
}

async function paused(job: Job): Promise<Job> {
  await verbs.pause(job);
  return job;
}
