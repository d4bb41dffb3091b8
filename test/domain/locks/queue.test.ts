/** The job of a domain as calls meet it: who has it, who waits, who is refused. */

import { describe, expect, it } from "vitest";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import { beginJob, endJob } from "../../../src/domain/locks/begin-job.ts";
import { Ctx } from "../../../src/domain/locks/ctx.ts";
import type { DomainObject } from "../../../src/domain/locks/domain-object.ts";
import { MASKS } from "../../../src/domain/locks/job-classes.ts";
import {
  type AsyncJob,
  endAsyncJob,
  type WithJobOptions,
  withAsyncJob,
  withJob,
} from "../../../src/domain/locks/with-job.ts";
import { failure, hold, type Setup, setup } from "./setup.ts";

const MODIFY = { class: "modify" } as const;
const QUERY = { class: "query" } as const;
const DESTROY = { class: "destroy", offline: true } as const;
const nothing = async () => {};

describe("the normal slot", () => {
  it("L02 has one holder, and goes to those who wait in the order in which they came", async () => {
    const made = setup();
    const object = made.domain("a");
    const order: string[] = [];
    let inside = 0;
    const calls = ["1", "2", "3", "4"].map((api) =>
      call(made, object, api === "3" ? QUERY : MODIFY, api, async () => {
        expect(++inside).toBe(1);
        await new Promise<void>((resolve) => made.clock.setTimer(5, resolve));
        inside--;
        order.push(api);
      }),
    );
    await made.clock.runUntil(Promise.all(calls));
    expect(order).toEqual(["1", "2", "3", "4"]);
  });

  it("lets destroy pass all who wait", async () => {
    const made = setup();
    const object = made.domain("a");
    const letGo = await hold(made, object, MODIFY);
    const order: string[] = [];
    const calls = ["1", "2"].map((api) =>
      call(made, object, MODIFY, api, async () => void order.push(api)),
    );
    calls.push(call(made, object, DESTROY, "d", async () => void order.push("d")));
    await made.clock.advance(0);
    expect(object.job.describe().map(({ api }) => api)).toEqual(["holder", "d", "1", "2"]);
    await letGo();
    await Promise.all(calls);
    expect(order).toEqual(["d", "1", "2"]);
  });

  it("L13 refuses at once who does not want to wait", async () => {
    const made = setup();
    const object = made.domain("a");
    const letGo = await hold(made, object, MODIFY, "blockCommit");
    const nowait = { ...QUERY, nowait: true };
    const error = await failure(call(made, object, nowait, "stats"));
    expect([error.reason, error.errno]).toEqual(["nowait", "EBUSY"]);
    expect(error.blocker).toEqual({ api: "blockCommit", class: "modify", ageMs: 0 });
    expect(error.message).toBe(
      "stats would have to wait for domain 'a': blockCommit (modify) has been at it for 0.0 s",
    );
    expect(object.job.queued).toBe(1);
    await letGo();
    await call(made, object, nowait, "stats");
    expect(made.clock.timerCount).toBe(0);
  });

  it("L14 with room for two takes the holder and one who waits, and destroy", async () => {
    const made = setup({ maxQueued: 2 });
    const object = made.domain("a");
    const letGo = await hold(made, object, MODIFY);
    const second = call(made, object, MODIFY, "second");
    const error = await failure(call(made, object, QUERY, "third"));
    expect([error.reason, error.errno]).toEqual(["queue-limit", "EBUSY"]);
    expect(error.message).toBe(
      "third is one too many in the queue for domain 'a': " +
        "holder (modify) has been at it for 0.0 s",
    );
    const destroy = call(made, object, DESTROY, "destroy");
    await made.clock.advance(0);
    expect(object.job.queued).toBe(3);
    await letGo();
    await Promise.all([second, destroy]);
    expect(object.job.queued).toBe(0);
    await call(made, object, QUERY, "fourth");
  });

  it("is not lost with a waiter that is called off as it is woken, in either order", async () => {
    for (const endsFirst of [true, false]) {
      const made = setup();
      const object = made.domain("a");
      const letGo = await hold(made, object, MODIFY);
      const stop = new AbortController();
      const first = failure(call(made, object, MODIFY, "first", nothing, stop.signal));
      const second = call(made, object, MODIFY, "second");
      await made.clock.advance(1);
      const ended = endsFirst ? letGo() : null;
      stop.abort();
      await (ended ?? letGo());
      expect((await first).reason).toBe("aborted");
      await second;
      expect(object.job.queued).toBe(0);
      expect(made.clock.timerCount).toBe(0);
    }
  });

  it("is not lost with one who is called off when the next has looked already", async () => {
    const made = setup();
    const object = made.domain("a");
    const holder = new Ctx("holder");
    await object.lock.lock(holder);
    const held = await beginJob(holder, object, MODIFY);
    object.lock.unlock(holder);
    const stop = new AbortController();
    const first = failure(call(made, object, MODIFY, "first", nothing, stop.signal));
    await made.clock.advance(0);
    await object.lock.lock(holder);
    endJob(holder, object, held);
    object.lock.unlock(holder);
    // The first is woken, but the second has the lock before it, and finds the first ahead.
    const second = call(made, object, MODIFY, "second");
    stop.abort();
    expect((await first).reason).toBe("aborted");
    await made.clock.advance(0);
    expect(object.job.queued).toBe(0);
    await second;
  });

  it("L16 is not lost with a waiter whose time ends in the turn in which it is woken", async () => {
    for (const laterMs of [0, 1]) {
      const made = setup();
      const object = made.domain("a");
      const letGo = await hold(made, object, MODIFY);
      const entered: string[] = [];
      const calls = ["1", "2", "3"].map((api) => {
        const deadlineMs = api === "1" ? 1000 : 5000;
        const work = async () => void entered.push(api);
        return call(made, object, { ...MODIFY, deadlineMs }, api, work).catch(
          (error) => error.reason,
        );
      });
      // Before the timer of the first, or after it, at the same moment.
      made.clock.setTimer(1000 - laterMs, () => void letGo());
      const ends = await made.clock.runUntil(Promise.all(calls));
      expect(ends.slice(1)).toEqual([undefined, undefined]);
      expect(entered).toContain("2");
      expect(object.job.queued).toBe(0);
    }
  });

  it("goes on to the next when an async job that was ahead has begun", async () => {
    const made = setup();
    const object = made.domain("a");
    const letGo = await hold(made, object, MODIFY);
    const backup = beginBackup(made, object);
    const query = call(made, object, QUERY, "query");
    await letGo();
    const { job, begun } = await backup;
    await query;
    await begun;
    await end(made, object, job);
    expect(object.job.queued).toBe(0);
  });
});

describe("time", () => {
  it("that is over counts against nobody whose turn it is, and against all others at once", async () => {
    const made = setup({ jobWaitMs: 0 });
    const object = made.domain("a");
    await made.clock.advance(1000);
    for (const deadlineMs of [0, 999, 1000]) {
      await call(made, object, { ...MODIFY, deadlineMs }, "free");
      const letGo = await hold(made, object, MODIFY);
      const late = failure(call(made, object, { ...MODIFY, deadlineMs }, "late"));
      await made.clock.advance(0);
      expect([(await late).reason, made.clock.now()]).toEqual(["timeout", 1000]);
      await letGo();
    }
    expect(made.clock.timerCount).toBe(0);
  });

  it("on the wall may jump to wherever: who waits does so for 30 s, and is told how long the other has been at it", async () => {
    class JumpingClock extends VirtualClock {
      jumpSeconds = 0;
      override timestamp() {
        const { seconds, microseconds } = super.timestamp();
        return { seconds: seconds + this.jumpSeconds, microseconds };
      }
    }
    for (const jumpSeconds of [86_400, -86_400]) {
      const made = setup({ clock: new JumpingClock() });
      const object = made.domain("a");
      const letGo = await hold(made, object, MODIFY);
      let isOver = false;
      const waits = failure(call(made, object, MODIFY, "waits")).finally(() => {
        isOver = true;
      });
      await made.clock.advance(10_000);
      made.clock.jumpSeconds = jumpSeconds;
      await made.clock.advance(19_999);
      expect(isOver).toBe(false);
      await made.clock.advance(1);
      expect((await waits).message).toMatch(/holder \(modify\) has been at it for 30.0 s$/);
      await letGo();
    }
  });

  it("M10 of an hour's sleep does not count against a waiter whose turn came meanwhile", async () => {
    const made = setup();
    const object = made.domain("a");
    const letGo = await hold(made, object, MODIFY);
    const waits = call(made, object, MODIFY, "waits");
    await made.clock.advance(0);
    // What the holder waits for is due after the waiter's deadline; the machine sleeps over both.
    made.clock.setTimer(40_000, () => void letGo());
    made.clock.sleepMachine(3_600_000);
    await made.clock.runUntil(waits);
    expect(object.job.queued).toBe(0);
  });

  it("M10 of an hour's sleep ends a wait for a holder who does not go, which is named", async () => {
    const made = setup();
    const object = made.domain("a");
    const letGo = await hold(made, object, MODIFY);
    const waits = failure(call(made, object, MODIFY, "waits"));
    await made.clock.advance(0);
    made.clock.sleepMachine(3_600_000);
    await made.clock.advance(0);
    const error = await waits;
    expect([error.reason, error.blocker?.ageMs]).toEqual(["timeout", 3_600_000]);
    await letGo();
  });
});

describe("an async job", () => {
  it("L10 of a backup lets query, modify, suspend, speed and destroy pass, and nothing else", async () => {
    const made = setup();
    const object = made.domain("a");
    const { job, begun } = await beginBackup(made, object);
    await begun;
    for (const kind of ["query", "modify", "suspend", "modify-migration-safe", "abort"] as const)
      await call(made, object, { class: kind, nowait: true }, kind);
    await call(made, object, { ...DESTROY, nowait: true }, "destroy");
    for (const kind of ["backup", "save"] as const) {
      const second = made.driver.call(kind, (ctx) => withAsyncJob(ctx, object, { kind }, nothing));
      const failed = failure(second);
      await made.clock.advance(30_000);
      const { reason, blocker } = await failed;
      expect([reason, blocker?.api, blocker?.class]).toEqual([
        "timeout",
        "backupBegin",
        "async backup",
      ]);
    }
    await end(made, object, job);
  });

  it("of any kind lets those pass who ask, change a speed, or end the domain", async () => {
    for (const kind of Object.keys(MASKS) as (keyof typeof MASKS)[]) {
      const made = setup();
      const object = made.domain("a");
      await made.driver.call(kind, (ctx) =>
        withAsyncJob(ctx, object, { kind }, async () => {
          for (const free of ["query", "modify-migration-safe", "destroy"] as const)
            await call(made, object, { class: free, nowait: true }, free);
          if (kind === "backup") return;
          const error = await failure(call(made, object, { ...MODIFY, nowait: true }, "modify"));
          expect(error.blocker?.class).toBe(`async ${kind}`);
        }),
      );
      expect(object.job.queued).toBe(0);
    }
  });

  it("does not hold up in the queue those whom it lets pass", async () => {
    const made = setup();
    const object = made.domain("a");
    await made.driver.call("save", (ctx) =>
      withAsyncJob(ctx, object, { kind: "save" }, async () => {
        const modify = call(made, object, MODIFY, "modify");
        await call(made, object, { ...QUERY, nowait: true }, "query");
        expect(object.job.describe().map(({ api }) => api)).toEqual(["save", "modify"]);
        void modify;
      }),
    );
    await made.clock.advance(0);
    expect(object.job.queued).toBe(0);
  });

  it("L12 has steps of its own kind, past the mask, not past who has the slot", async () => {
    const made = setup();
    const object = made.domain("a");
    const step = { class: "async-nested", kind: "snapshot" } as const;
    await made.driver.call("snapshotCreate", (ctx) =>
      withAsyncJob(ctx, object, { kind: "snapshot" }, async () => {
        await withJob(ctx, object, step, nothing);
        const letGo = await hold(made, object, QUERY, "info");
        const nowait = { ...step, nowait: true };
        expect((await failure(withJob(ctx, object, nowait, nothing))).blocker?.api).toBe("info");
        await letGo();
        const other = { class: "async-nested", kind: "backup" } as const;
        const error = await failure(withJob(ctx, object, other, nothing));
        expect([error.reason, error.gone]).toEqual(["gone", "async-ended"]);
      }),
    );
    const late = await failure(call(made, object, step, "late"));
    expect(late.gone).toBe("async-ended");
  });

  it("ends with its call unless it is kept, and always if its call fails", async () => {
    const made = setup();
    const object = made.domain("a");
    const failed = made.driver.call("backupBegin", (ctx) =>
      withAsyncJob(ctx, object, { kind: "backup" }, async (job) => {
        job.keep();
        object.mustBeThere(ctx, true);
        object.setRunning(false);
        object.mustBeThere(ctx, true);
      }),
    );
    expect((await failure(failed)).gone).toBe("not-running");
    expect(object.job.asyncKind).toBeNull();
    object.setRunning(true);
    const { job, begun } = await beginBackup(made, object);
    await begun;
    expect(object.job.asyncKind).toBe("backup");
    await end(made, object, job);
    expect(object.job.asyncKind).toBeNull();
  });
});

describe("the agent's slot", () => {
  it("L15 is had beside the normal one, by one call at a time", async () => {
    const made = setup();
    const object = made.domain("a");
    const letNormalGo = await hold(made, object, MODIFY, "normal");
    const letAgentGo = await hold(made, object, { agent: "modify" }, "agent");
    expect(object.job.describe().map(({ slot }) => slot)).toEqual(["normal", "agent"]);
    const second = call(made, object, { agent: "query", nowait: true }, "second");
    expect((await failure(second)).blocker).toMatchObject({ api: "agent", class: "agent modify" });
    await letAgentGo();
    await call(made, object, { agent: "query", nowait: true }, "third");
    await letNormalGo();
  });
});

function call(
  { driver }: Setup,
  object: DomainObject,
  options: WithJobOptions,
  api: string,
  work: () => Promise<void> = nothing,
  signal?: AbortSignal,
): Promise<void> {
  return driver.call(
    api,
    (ctx) =>
      withJob(ctx, object, options, async () => {
        await work();
      }),
    signal,
  );
}

/** A backup that goes on after its call. */
async function beginBackup({ driver, clock }: Setup, object: DomainObject) {
  let job: AsyncJob | null = null;
  const begun = driver.call("backupBegin", (ctx) =>
    withAsyncJob(ctx, object, { kind: "backup" }, async (async) => {
      job = async;
      async.keep();
    }),
  );
  await clock.advance(0);
  return {
    begun,
    get job(): AsyncJob {
      return job!;
    },
  };
}

function end({ driver }: Setup, object: DomainObject, job: AsyncJob): Promise<void> {
  return driver.call("event", (ctx) => endAsyncJob(ctx, object, job));
}
