/** Domains that stop or go away, monitors that close, events, and calls that wait for a block job. */

import { describe, expect, it } from "vitest";
import { DomainObject } from "../../../src/domain/locks/domain-object.ts";
import { EventQueue } from "../../../src/domain/locks/event-queue.ts";
import {
  waitFor,
  withDomain,
  withDriver,
  withJob,
  withMonitor,
  withUnlocked,
} from "../../../src/domain/locks/with-job.ts";
import { failure, gate, hold, setup } from "./setup.ts";

const MODIFY = { class: "modify" } as const;
const DESTROY = { class: "destroy", offline: true } as const;

describe("a domain that goes away", () => {
  it("L07 lives until the job on it has ended, and is disposed of once", async () => {
    const made = setup();
    let disposed = 0;
    const object = made.domain("a", () => void disposed++);
    const letGo = await hold(made, object, { ...MODIFY, offline: true });
    object.remove();
    expect([disposed, object.reference.count]).toEqual([0, 2]);
    expect((await failure(letGo())).gone).toBe("removed");
    expect([disposed, object.reference.count]).toEqual([1, 0]);
    expect(object.lock.holder).toBeNull();
    const late = made.driver.call("late", (ctx) => withJob(ctx, object, MODIFY, async () => {}));
    expect((await failure(late)).gone).toBe("removed");
  });

  it("L07 is not disposed of while it is locked, also when its job outlives all else", async () => {
    const made = setup();
    const locked: unknown[] = [];
    const object: DomainObject = new DomainObject(made.driver, "a", () =>
      locked.push(object.lock.holder),
    );
    await made.driver.call("undefine", (ctx) =>
      withJob(ctx, object, { ...MODIFY, offline: true, driver: true }, async () => object.remove()),
    );
    expect(locked).toEqual([null]);
  });

  it("L08 that stops or is removed fails those who wait for its job, before any command", async () => {
    for (const gone of ["not-running", "removed"] as const) {
      const made = setup();
      const object = made.domain("a");
      const letGo = await hold(made, object, MODIFY);
      let commands = 0;
      const waits = failure(
        made.driver.call("waits", (ctx) =>
          withJob(ctx, object, MODIFY, () => withMonitor(ctx, object, async () => commands++)),
        ),
      );
      await made.clock.advance(10);
      if (gone === "removed") object.remove();
      else object.setRunning(false);
      const error = await waits;
      expect([error.reason, error.gone, commands]).toEqual(["gone", gone, 0]);
      expect(made.clock.now()).toBe(10);
      expect((await failure(letGo())).gone).toBe(gone);
    }
  });

  it("fails a call that has its job, and waits for the list of domains again", async () => {
    const made = setup();
    const object = made.domain("a");
    const letGo = await hold(made, object, MODIFY);
    let begun = false;
    const call = failure(
      made.driver.call("attach", (ctx) =>
        withJob(ctx, object, { ...MODIFY, driver: true }, async () => {
          begun = true;
        }),
      ),
    );
    await made.clock.advance(0);
    const store = gate();
    const define = made.driver.call("define", (ctx) =>
      withDriver(ctx, made.driver, () => store.opened),
    );
    await letGo();
    await made.clock.advance(0);
    expect(object.job.holder("normal")?.api).toBe("attach");
    object.setRunning(false);
    store.open();
    await define;
    expect([(await call).gone, begun]).toEqual(["not-running", false]);
    expect([object.job.queued, object.reference.count]).toEqual([0, 1]);
  });

  it("fails the call that is in its monitor as soon as that is out again", async () => {
    const made = setup();
    const object = made.domain("a");
    const command = gate();
    let goesOn = false;
    const call = failure(
      made.driver.call("blockPull", (ctx) =>
        withJob(ctx, object, MODIFY, async () => {
          await withMonitor(ctx, object, () => command.opened);
          goesOn = true;
        }),
      ),
    );
    await made.clock.advance(0);
    object.setRunning(false);
    command.open();
    expect((await call).gone).toBe("not-running");
    expect(goesOn).toBe(false);
  });
});

describe("a monitor", () => {
  it("that is detached lives until the last command in it has come back", async () => {
    const made = setup();
    const object = new DomainObject<string>(made.driver, "a");
    let closed = 0;
    object.attachMonitor("m", () => void closed++);
    object.setRunning(true);
    const command = gate();
    const call = made.driver.call("query", (ctx) =>
      withJob(ctx, object, MODIFY, () => withMonitor(ctx, object, () => command.opened)),
    );
    await made.clock.advance(0);
    object.detachMonitor();
    expect(closed).toBe(0);
    command.open();
    await call;
    expect(closed).toBe(1);
  });

  it("that is not there is not entered", async () => {
    const made = setup();
    const object = made.domain("a");
    object.detachMonitor();
    const call = made.driver.call("query", (ctx) =>
      withJob(ctx, object, MODIFY, () => withMonitor(ctx, object, async () => {})),
    );
    expect((await failure(call)).gone).toBe("not-running");
    expect(object.lock.holder).toBeNull();
  });
});

describe("an event", () => {
  it("L09 during a command comes after it, with a job of its own, before those who wait", async () => {
    const { clock, driver, steps, domain } = setup();
    const object = domain("a");
    const events = new EventQueue<string>(object, "event", async (_ctx, event) => {
      expect(object.job.holder("normal")!.api).toBe("event");
      steps.push(`handled ${event}`);
    });
    const call = (api: string) =>
      driver.call(api, (ctx) =>
        withJob(ctx, object, MODIFY, () =>
          withMonitor(ctx, object, async () => {
            events.push(`of ${api}`);
            expect(object.monitor!.lock.isHeldBy(ctx)).toBe(true);
            await clock.yield();
            steps.push(`command of ${api}`);
          }),
        ),
      );
    await Promise.all([call("first"), call("second")]);
    await clock.advance(0);
    expect(steps.filter((step) => /^(handled|command)/.test(step))).toEqual([
      "command of first",
      "handled of first",
      "command of second",
      "handled of second",
    ]);
    expect(events.size).toBe(0);
  });

  it("is not lost when its turn does not come in time, nor when the queue is full", async () => {
    const made = setup({ maxQueued: 1 });
    const object = made.domain("a");
    const handled: number[] = [];
    const events = new EventQueue<number>(object, "event", async (_ctx, event) => {
      handled.push(event);
    });
    const letGo = await hold(made, object, MODIFY);
    events.push(1);
    events.push(2);
    await made.clock.advance(100_000);
    expect([handled, events.size]).toEqual([[], 2]);
    await letGo();
    await made.clock.advance(0);
    expect([handled, events.size]).toEqual([[1, 2], 0]);
    expect(made.clock.timerCount).toBe(0);
  });

  it("of a domain that has stopped is handled, of one that has been removed not any more", async () => {
    const made = setup();
    const object = made.domain("a");
    const handled: number[] = [];
    const events = new EventQueue<number>(object, "event", async (_ctx, event) => {
      handled.push(event);
    });
    object.setRunning(false);
    events.push(1);
    await made.clock.advance(0);
    object.remove();
    events.push(2);
    await made.clock.advance(0);
    expect([handled, events.size]).toEqual([[1], 0]);
  });

  it("L17 of one domain does not wait for another domain, nor does any call", async () => {
    const made = setup();
    const [stuck, other] = [made.domain("stuck"), made.domain("other")];
    const letGo = await hold(made, stuck, MODIFY);
    const handled: string[] = [];
    const queues = [stuck, other].map(
      (object) =>
        new EventQueue<string>(object, "event", async () => void handled.push(object.name)),
    );
    for (const queue of queues) queue.push("completed");
    await made.driver.call("blockPull", (ctx) =>
      withJob(ctx, other, MODIFY, () => withMonitor(ctx, other, async () => {})),
    );
    expect([handled, made.clock.now()]).toEqual([["other"], 0]);
    await letGo();
    await made.clock.advance(0);
    expect(handled).toEqual(["other", "stuck"]);
  });
});

describe("a call that waits for a block job's end", () => {
  it("L19 leaves the job to others: they ask and change speeds at once", async () => {
    const made = setup();
    const object = made.domain("a");
    let status = "aborting";
    const abort = made.driver.call("blockJobAbort", async (ctx) => {
      await withJob(ctx, object, MODIFY, () => withMonitor(ctx, object, async () => {}));
      return waitFor(ctx, object, () => (status === "aborting" ? undefined : status));
    });
    await made.clock.advance(5);
    for (const kind of ["query", "modify-migration-safe"] as const)
      await made.driver.call(kind, (ctx) =>
        withJob(ctx, object, { class: kind, nowait: true }, () =>
          withMonitor(ctx, object, async () => {}),
        ),
      );
    await made.driver.call("event", (ctx) =>
      withJob(ctx, object, MODIFY, async () => {
        status = "canceled";
        object.changed();
      }),
    );
    expect(await abort).toBe("canceled");
    expect(made.clock.now()).toBe(5);
  });

  it("L18 is woken by destroy, and fails at once", async () => {
    const made = setup();
    const object = made.domain("a");
    const abort = failure(
      made.driver.call("blockJobAbort", (ctx) => waitFor(ctx, object, () => undefined)),
    );
    await made.clock.advance(5);
    object.setRunning(false);
    await made.driver.call("destroy", (ctx) => withJob(ctx, object, DESTROY, async () => {}));
    expect((await abort).gone).toBe("not-running");
    expect(made.clock.now()).toBe(5);
  });

  it("can be called off, and holds no job", async () => {
    const made = setup();
    const object = made.domain("a");
    const stop = new AbortController();
    const abort = failure(
      made.driver.call(
        "blockJobAbort",
        (ctx) => waitFor(ctx, object, () => undefined),
        stop.signal,
      ),
    );
    await made.clock.advance(0);
    stop.abort();
    expect((await abort).reason).toBe("aborted");
    await expect(
      made.driver.call("blockJobAbort", (ctx) =>
        withJob(ctx, object, MODIFY, () => waitFor(ctx, object, () => true)),
      ),
    ).rejects.toThrow(/without a job/);
    // Nor that of another domain, whose change somebody may wait for who has the job of this one.
    const other = made.domain("b");
    await expect(
      made.driver.call("blockJobAbort", (ctx) =>
        withJob(ctx, other, MODIFY, () =>
          withUnlocked(ctx, other, () => waitFor(ctx, object, () => true)),
        ),
      ),
    ).rejects.toThrow(/without a job/);
  });
});

describe("a wait for the list of domains", () => {
  it("ends with an error that names who has it", async () => {
    const made = setup();
    const object = made.domain("a");
    const store = gate();
    const define = made.driver.call("define", (ctx) =>
      withDriver(ctx, made.driver, () => store.opened),
    );
    await made.clock.advance(0);
    const list = failure(made.driver.call("list", (ctx) => withDriver(ctx, made.driver, () => {})));
    await made.driver.call("look", (ctx) => withDomain(ctx, object, () => object.name));
    await made.clock.advance(30_000);
    expect((await list).message).toBe(
      "list did not get its turn with the list of domains in time: " +
        "define has been at it for 30.0 s",
    );
    store.open();
    await define;
  });
});
