/** A job under a rate limit, on a clock that only the test moves. */

import { expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { RateLimit } from "../../src/base/rate-limit.ts";
import type { Job } from "../../src/job/job.ts";
import { sleepOff } from "../../src/job/throttle.ts";
import { World } from "./world.ts";

const CHUNK = 512 * KiB;

it("copies 512 KiB every 500 ms at 1 MiB/s, the first at once", async () => {
  const { world, times } = copying(MiB, 5);
  await world.clock.advance(3000);
  expect(times).toEqual([0, 500, 1000, 1500, 2000]);
});

it("has no limit at 0, and moves no time", async () => {
  const { world, times } = copying(0, 4);
  await world.clock.advance(0);
  expect(times).toEqual([0, 0, 0, 0]);
});

it("sleeps what it still owes after a pause in between", async () => {
  const { world, job, times } = copying(MiB, 3);
  await world.clock.advance(100);
  job.userPause();
  expect(job.status).toBe("paused");
  await world.clock.advance(100);
  job.userResume();
  await world.clock.advance(801);
  expect(times).toEqual([0, 500, 1000]);
});

it("earns nothing by a storm of pauses", async () => {
  const { world, job, times } = copying(MiB, 4);
  for (let i = 0; i < 100; i++) {
    await world.clock.advance(5);
    job.userPause();
    await world.clock.advance(5);
    job.userResume();
  }
  expect(times.length).toBeLessThanOrEqual(3);
});

it("does not wait for time that passed while it was paused", async () => {
  const { world, job, times } = copying(MiB, 2);
  await world.clock.advance(100);
  job.userPause();
  await world.clock.advance(10_000);
  job.userResume();
  await world.clock.advance(0);
  expect(times).toEqual([0, 10_100]);
});

it("goes on at once when woken after the limit was lifted", async () => {
  const { world, job, limit, times } = copying(1, 2);
  await world.clock.advance(20);
  limit.setSpeed(0);
  await world.clock.advance(20);
  expect(times).toEqual([0]);
  job.endSleep();
  await world.clock.advance(0);
  expect(times).toEqual([0, 40]);
});

it("ends at once when cancelled, days before its time", async () => {
  const { world, job } = copying(1, 2);
  await world.clock.advance(20);
  job.cancel(true);
  await world.clock.advance(0);
  expect(world.story()).toBe("created running aborting CANCELLED concluded null");
  expect(world.clock.timerCount).toBe(0);
});

/** A started job that copies `count` chunks, and the times at which it did. */
function copying(speed: number, count: number) {
  const world = new World();
  const limit = new RateLimit();
  const times: number[] = [];
  limit.setSpeed(speed);
  const run = async (job: Job) => {
    for (let i = 0; i < count; i++) {
      await sleepOff(job, limit);
      if (job.cancelled) return;
      times.push(Math.round(job.clock.now()));
      limit.delay(CHUNK, job.clock.now());
    }
  };
  return { world, limit, times, job: world.started({ run }) };
}
