/**
 * What a random job does: some steps of work, then perhaps a while as ready; it may fail or have a
 * bug in any callback, be slow to come to rest, and refuse what it is asked.
 */

import { sleep } from "../../src/base/clock.ts";
import { assert, BlockError } from "../../src/base/errors.ts";
import type { Random } from "../../src/base/random.ts";
import type { JobDriver } from "../../src/job/driver.ts";
import type { Life } from "./life.ts";
import type { Scheduler } from "./scheduler.ts";

/** A bug that is part of the plan. */
export class Planned extends Error {}

export function randomDriver(life: Life, random: Random, clock: Scheduler): JobDriver {
  const odds = (n: number) => random.below(n) === 0;
  const steps = random.below(5);
  life.soft = (["none", "ready", "all"] as const)[random.below(3)]!;
  const [quiesces, converges, completes] = [odds(3), odds(3), !odds(4)];
  const failAt = odds(5) ? random.below(7) : -1;
  let complete = !completes;
  const end = (call: string) => async () => {
    life.begins(call);
    for (let i = random.below(3); i > 0; i--) {
      await (odds(2) ? clock.yield() : sleep(clock, random.below(10)));
    }
    life.ended();
    if (call !== "prepare" && odds(60)) {
      life.buggy = true;
      throw new Planned(call);
    }
  };
  return {
    type: "test",
    run: async (job) => {
      life.begins("run");
      try {
        for (let i = 0; i < steps && !job.cancelled; i++) {
          if (i === failAt) throw new BlockError("EIO", "Input/output error");
          await work(life, random, clock);
        }
        if (odds(60)) throw new Planned("run");
        if (!converges || job.cancelled) return;
        job.becomeReady();
        while (!complete && !job.cancelRequested) await job.yield();
      } catch (reason) {
        life.threw = reason instanceof BlockError ? reason.errno : "EIO";
        life.group.spoilt = true;
        throw reason;
      } finally {
        life.ended();
      }
    },
    ...(quiesces && {
      pause: async () => {
        life.quiesced++;
        await sleep(clock, random.below(5));
      },
      resume: async () => {
        if (odds(2)) await clock.yield();
        life.quiesced--;
      },
    }),
    ...(completes && {
      complete: (job) => {
        if (odds(6)) throw new BlockError("EBUSY", "Not now");
        complete = true;
        job.enter();
      },
    }),
    ...(life.soft !== "none" && {
      cancel: (job, force) => force || (life.soft === "ready" && !job.ready),
    }),
    prepare: async () => {
      await end("prepare")();
      life.prepared = true;
      if (failAt <= steps) return;
      life.prepared = false;
      life.threw = "ENOSPC";
      life.group.spoilt = true;
      throw new BlockError("ENOSPC", "No space left on device");
    },
    commit: end("commit"),
    abort: end("abort"),
    clean: end("clean"),
    free: () => life.called("free"),
  };
}

/** One step of a run: a sleep, a pause of its own (as by on-error=stop), or a request. */
async function work(life: Life, random: Random, clock: Scheduler): Promise<void> {
  const odds = (n: number) => random.below(n) === 0;
  const { job } = life;
  const ms = random.below(30);
  if (odds(2)) {
    const [startMs, { nudges }] = [clock.now(), life];
    const early = job.pauseCount > 0;
    await job.sleep(ms);
    const sleptMs = clock.now() - startMs;
    const cut = early || job.cancelled || life.nudges > nudges;
    assert(cut || sleptMs >= ms, `${life.name} slept ${sleptMs} of ${ms} ms for no reason`);
    return;
  }
  if (odds(8)) job.userPause();
  await job.pausePoint();
  if (job.cancelled) return;
  assert(life.drains === 0, `${life.name} sends no request while it is drained`);
  life.atWork = true;
  try {
    await sleep(clock, ms, odds(2) ? job.signal : undefined);
  } finally {
    life.atWork = false;
  }
}
