/**
 * A small world for jobs: a virtual clock, a list, and two diaries. `story` is what the outside
 * hears: statuses in small letters, the creator's hooks in capitals. `calls` is what the driver is
 * asked to do.
 */

import { BlockError } from "../../src/base/errors.ts";
import { VirtualClock } from "../../src/base/virtual-clock.ts";
import type { JobDriver } from "../../src/job/driver.ts";
import { Job } from "../../src/job/job.ts";
import { JobList } from "../../src/job/list.ts";
import type { JobOptions } from "../../src/job/state.ts";

type Run = (job: Job) => Promise<void>;
/** `type` and `run` are filled in. */
export type TinyDriver = Partial<JobDriver>;
type Manner = Partial<Omit<JobOptions, "driver" | "clock" | "list">>;

const HOOKS = {
  ready: "READY",
  pending: "PENDING",
  "finalize-completed": "COMPLETED",
  "finalize-cancelled": "CANCELLED",
};

export class World {
  readonly clock = new VirtualClock();
  readonly bugs: unknown[] = [];
  readonly list = new JobList({
    onBug: (bug) => this.bugs.push(bug),
    onStatus: ({ id, status }) => this.#told.push([id, status]),
  });
  readonly #told: [id: string, what: string][] = [];
  readonly #called: [id: string, call: string][] = [];

  /** Makes a job that is not started; manual-manual only if asked for. */
  born(driver: TinyDriver = {}, manner: Manner = {}): Job {
    const id = manner.id === undefined ? "job" : manner.id;
    const name = id ?? "internal";
    return new Job({
      ...manner,
      id,
      clock: this.clock,
      list: this.list,
      driver: this.#diary(name, driver),
      onEvent: (event, job) => {
        if (event.kind !== "status" && event.kind !== "idle") {
          this.#told.push([name, HOOKS[event.kind]]);
        }
        manner.onEvent?.(event, job);
      },
      cb: (error) => {
        this.#called.push([name, "cb"]);
        manner.cb?.(error);
      },
    });
  }

  /** A started job. */
  started(driver?: TinyDriver, manner?: Manner): Job {
    const job = this.born(driver, manner);
    job.start();
    return job;
  }

  /** What was heard so far, of one job, or of all with their names. */
  story(job?: Job): string {
    return tell(this.#told, job);
  }

  /** What the driver was asked to do so far. */
  calls(job?: Job): string {
    return tell(this.#called, job);
  }

  /** Goes on until all these jobs are concluded. */
  async end(...jobs: Job[]): Promise<void> {
    await this.clock.runUntil(Promise.all(jobs.map((job) => job.finished)));
  }

  #diary(name: string, driver: TinyDriver): JobDriver {
    const full: JobDriver = { type: "test", run: steps(3), ...driver };
    const log = (call: string) => this.#called.push([name, call]);
    const kept = (call: "prepare" | "commit" | "abort" | "clean") => (job: Job) => {
      log(call);
      return full[call]?.(job);
    };
    return {
      ...full,
      run: (job) => {
        log("run");
        return full.run(job);
      },
      prepare: kept("prepare"),
      commit: kept("commit"),
      abort: kept("abort"),
      clean: kept("clean"),
      free: () => log("free"),
    };
  }
}

function tell(diary: [string, string][], job: Job | undefined): string {
  const ids = new Set(diary.map(([id]) => id));
  if (job === undefined && ids.size > 1)
    return diary.map(([id, what]) => `${id}:${what}`).join(" ");
  return diary
    .filter(([id]) => job === undefined || id === (job.id ?? "internal"))
    .map(([, what]) => what)
    .join(" ");
}

/** `count` requests with a sleep of `ms` before each. */
export function steps(count: number, ms = 10): Run {
  return async (job) => {
    job.progress.setRemaining(count);
    for (let i = 0; i < count; i++) {
      await job.sleep(ms);
      if (job.cancelled) return;
      job.progress.workDone(1);
    }
  };
}

/** Fails after `count` steps. */
export function failing(count = 1, ms = 10): Run {
  return async (job) => {
    await steps(count, ms)(job);
    if (!job.cancelled) throw new BlockError("EIO", "Input/output error");
  };
}

/** Becomes ready after `ms`, then waits for complete or a cancel, of either kind. */
export function converging(ms = 10): TinyDriver {
  let wanted = false;
  return {
    run: async (job) => {
      await job.sleep(ms);
      if (job.cancelled) return;
      job.becomeReady();
      while (!wanted && !job.cancelRequested) await job.yield();
    },
    complete: (job) => {
      wanted = true;
      job.enter();
    },
    cancel: (job, force) => force || !job.ready,
  };
}
