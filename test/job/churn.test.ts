/** Ten thousand jobs, of every fate: nothing of them stays. */

import { expect, it } from "vitest";
import type { Job } from "../../src/job/job.ts";
import { JobTxn } from "../../src/job/txn.ts";
import { collectGarbage } from "../garbage.ts";
import { converging, failing, steps, World } from "./world.ts";

const JOBS = 10_000;
const AT_ONCE = 100;

it(`creates and ends ${JOBS} jobs, and keeps none`, async () => {
  const world = new World();
  const held: WeakRef<Job>[] = [];
  for (let done = 0; done < JOBS; done += AT_ONCE) {
    const jobs = Array.from({ length: AT_ONCE }, (_, i) => {
      const txn = new JobTxn();
      const id = i % 9 === 0 ? null : `j${i}`;
      const run = i % 3 === 0 ? failing(1, 1) : steps(2, 1);
      return world.born(i % 7 === 0 ? converging(1) : { run }, { id, txn, autoDismiss: i % 4 > 0 });
    });
    for (const [i, job] of jobs.entries()) {
      if (i % 11 === 0) job.earlyFail();
      else if (i % 13 === 0) job.cancel(true);
      else job.start();
      if (i % 5 === 0) job.userPause();
    }
    await world.clock.advance(3);
    for (const [i, job] of jobs.entries()) if (i % 2 === 0) job.pause();
    await world.clock.runUntil(world.list.cancelAll());
    held.push(...jobs.map((job) => new WeakRef(job)));
    expect(world.list.all()).toEqual([]);
    expect(world.clock.timerCount).toBe(0);
  }
  expect(world.bugs).toEqual([]);
  const fates = world.calls().match(/:free/g) ?? [];
  expect(fates.length).toBe(JOBS);
  // A WeakRef keeps what it holds until the end of the task.
  await new Promise((resolve) => setImmediate(resolve));
  collectGarbage();
  expect(held.filter((ref) => ref.deref()).length).toBe(0);
});
