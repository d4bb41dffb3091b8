/** How a job stands still: pause points, sleeps, counts. */

import { expect, it } from "vitest";
import { sleep } from "../../src/base/clock.ts";
import { BlockError } from "../../src/base/errors.ts";
import type { Job } from "../../src/job/job.ts";
import { verbs } from "../../src/job/verbs.ts";
import { converging, steps, type TinyDriver, World } from "./world.ts";

it("#13 is parked within a sleep before pause returns, and runs again before resume returns", async () => {
  const world = new World();
  const job = world.started();
  await world.clock.advance(5);
  await verbs.pause(job);
  expect(world.story()).toBe("created running paused");
  expect(world.clock.timerCount).toBe(0);
  await world.clock.advance(1000);
  expect([job.progress.current, job.busy]).toEqual([0, false]);
  await verbs.resume(job);
  expect(world.story()).toBe("created running paused running");
  await world.end(job);
  expect(world.story()).toBe(
    "created running paused running waiting pending COMPLETED concluded null",
  );
});

it("finishes the request at hand before it parks", async () => {
  const world = new World();
  const job = world.started({ run: requests(3, 10) });
  await world.clock.advance(5);
  job.userPause();
  expect([job.status, job.busy]).toEqual(["running", true]);
  await world.clock.advance(5);
  expect([job.status, job.busy, job.progress.current]).toEqual(["paused", false, 1]);
});

it("parks before any work if paused before it starts", async () => {
  const world = new World();
  const job = world.born();
  await verbs.pause(job);
  job.start();
  expect(world.story()).toBe("created running paused");
  await world.clock.advance(100);
  expect(world.calls()).toBe("");
  await verbs.resume(job);
  await world.end(job);
  expect(world.calls()).toContain("run prepare commit");
});

it("#14 #25 stands by when ready, also in a yield", async () => {
  const world = new World();
  const job = world.started(converging());
  await world.clock.advance(10);
  await verbs.pause(job);
  expect([job.status, job.ready]).toEqual(["standby", true]);
  await verbs.complete(job);
  await world.clock.advance(100);
  expect(job.status).toBe("standby");
  await verbs.resume(job);
  await world.end(job);
  expect(world.story()).toBe(
    "created running ready READY standby ready waiting pending COMPLETED concluded null",
  );
});

it("needs as many resumes as pauses; the user counts one", async () => {
  const world = new World();
  const job = world.started();
  await world.clock.advance(1);
  job.pause();
  job.userPause();
  job.userPause();
  job.pause();
  expect(job.pauseCount).toBe(3);
  job.resume();
  job.resume();
  expect([job.status, job.pauseCount]).toEqual(["paused", 1]);
  job.userResume();
  expect([job.status, job.pauseCount]).toEqual(["running", 0]);
});

it("#19 stays paused by the user through a drain", async () => {
  const world = new World();
  const job = world.started();
  await world.clock.advance(1);
  await verbs.pause(job);
  job.pause();
  await job.quiet();
  job.resume();
  expect(job.status).toBe("paused");
  await verbs.resume(job);
  expect(job.status).toBe("running");
});

it("#17 is quiet once its request is done, and busy again after the drain", async () => {
  const world = new World();
  const job = world.started({ run: requests(3, 10) });
  await world.clock.advance(1);
  let quiet = false;
  job.pause();
  const drained = job.quiet().then(() => {
    quiet = true;
  });
  await world.clock.advance(8);
  expect([quiet, job.busy, job.pauseCount]).toEqual([false, true, 1]);
  await world.clock.advance(1);
  await drained;
  expect([job.status, job.busy]).toEqual(["paused", false]);
  job.resume();
  expect([job.status, job.busy, job.pauseCount]).toEqual(["running", true, 0]);
});

it("is quiet at once when asleep, not started or ended; a wait for quiet can be cancelled", async () => {
  const world = new World();
  const job = world.born({ run: requests(1, 50) });
  await job.quiet();
  job.start();
  const stop = new AbortController();
  const wait = job.quiet(stop.signal);
  stop.abort();
  await expect(wait).rejects.toMatchObject({ errno: "ECANCELED" });
  await world.end(job);
  await job.quiet();
});

it("#18 drains in its own endings do not wait for it", async () => {
  const world = new World();
  const drain = async (job: Job) => {
    job.pause();
    await job.quiet();
    job.resume();
  };
  const ends: TinyDriver = { prepare: drain, commit: drain, abort: drain, clean: drain };
  const job = world.started(ends);
  const failed = world.started({ ...ends, run: bad }, { id: "bad" });
  await world.end(job, failed);
  expect([job.error, failed.error?.errno]).toEqual([null, "EIO"]);
});

it("asks the driver to be quiet first, and tells it afterwards, every time", async () => {
  const world = new World();
  const log: string[] = [];
  const job = world.started({
    run: steps(2, 100),
    async pause() {
      log.push("pausing");
      await sleep(world.clock, 20);
      log.push("quiet");
    },
    async resume() {
      log.push("resumed");
    },
  });
  await world.clock.advance(10);
  job.userPause();
  expect([job.status, job.busy]).toEqual(["running", true]);
  await world.clock.advance(20);
  expect([job.status, job.busy]).toEqual(["paused", false]);
  job.userResume();
  expect(job.status).toBe("running");
  await world.clock.advance(10);
  // Paused and resumed while the driver was still at it: no pause, but its resume comes.
  job.userPause();
  await world.clock.advance(10);
  job.userResume();
  await world.end(job);
  expect(log.join(" ")).toBe("pausing quiet resumed pausing quiet resumed");
  expect(world.story()).toBe(
    "created running paused running waiting pending COMPLETED concluded null",
  );
});

it("parks again before it goes on, if paused anew while the driver restarts", async () => {
  const world = new World();
  const job = world.started({ run: steps(2, 10), resume: () => sleep(world.clock, 20) });
  await world.clock.advance(5);
  job.pause();
  await world.clock.advance(0);
  job.resume();
  await world.clock.advance(10);
  job.pause();
  await world.clock.advance(100);
  expect([job.status, job.busy, job.progress.current]).toEqual(["paused", false, 0]);
  job.resume();
  await world.end(job);
  expect(world.story()).toBe(
    "created running paused running paused running waiting pending COMPLETED concluded null",
  );
});

it("obeys a listener that resumes it from within the event", async () => {
  const world = new World();
  const job = world.started(
    {},
    {
      onEvent: (event, self) => {
        if (event.kind === "status" && event.status === "paused") self.resume();
      },
    },
  );
  job.pause();
  await world.clock.advance(5);
  job.pause();
  await world.end(job);
  expect(world.story()).toBe(
    "created running paused running paused running waiting pending COMPLETED concluded null",
  );
});

it("sleeps of 0 ms let others run, and no time passes", async () => {
  const world = new World();
  const job = world.started({ run: steps(50, 0) });
  await world.clock.advance(0);
  expect([job.status, world.clock.now()]).toEqual(["null", 0]);
});

it("a nudge ends a sleep or a yield, endSleep() only a sleep, neither a pause", async () => {
  const world = new World();
  const job = world.started({
    run: async (self) => {
      await self.sleep(1000);
      self.progress.workDone(1);
      await self.yield();
      self.progress.workDone(1);
    },
  });
  const nudge = async (how: "enter" | "endSleep") => {
    await world.clock.advance(1);
    job[how]();
    await world.clock.advance(1);
    return `${job.status} ${job.progress.current}`;
  };
  await world.clock.advance(1);
  job.pause();
  expect([await nudge("enter"), await nudge("endSleep")]).toEqual(["paused 0", "paused 0"]);
  job.resume();
  expect(await nudge("endSleep")).toBe("running 1");
  expect(await nudge("endSleep")).toBe("running 1");
  expect(await nudge("enter")).toBe("null 2");
});

it("a turn given away wakes the sleep that asked for it, and no later wait", async () => {
  const world = new World();
  const job = world.started({
    run: async (self) => {
      await self.sleep(0);
      self.progress.workDone(1);
      await self.yield();
    },
  });
  // Into the run, which is then asleep for a turn.
  for (let hop = 0; hop < 50 && !world.calls().includes("run"); hop++) await null;
  for (let i = 0; i < 5; i++) await null;
  expect([job.busy, job.progress.current]).toEqual([false, 0]);
  job.enter();
  await world.clock.advance(1000);
  expect([job.status, job.busy, job.progress.current]).toEqual(["running", false, 1]);
  job.enter();
  await world.end(job);
});

it("takes a resume too many for our bug", () => {
  const job = new World().started();
  expect(() => job.resume()).toThrow("each resume follows a pause");
  expect(() => job.userResume()).not.toThrow();
});

/** Requests that take `ms` each and cannot be interrupted. */
function requests(count: number, ms: number): (job: Job) => Promise<void> {
  return async (job) => {
    for (let i = 0; i < count && !job.cancelled; i++) {
      await sleep(job.clock, ms);
      job.progress.workDone(1);
      await job.pausePoint();
    }
  };
}

async function bad(job: Job): Promise<void> {
  await job.sleep(1);
  throw new BlockError("EIO", "Input/output error");
}
