/** What seed 004 promises of its functions, and the rules R1 to R7, at run time. */

import { describe, expect, it } from "vitest";
import { beginJob, beginJobWithDriver, endJob } from "../../../src/domain/locks/begin-job.ts";
import { Ctx } from "../../../src/domain/locks/ctx.ts";
import type { DomainObject } from "../../../src/domain/locks/domain-object.ts";
import { enterMonitor, exitMonitor } from "../../../src/domain/locks/monitor.ts";
import {
  type WithJobOptions,
  waitFor,
  withAsyncJob,
  withDomain,
  withDriver,
  withJob,
  withMonitor,
  withUnlocked,
} from "../../../src/domain/locks/with-job.ts";
import { failure, gate, setup } from "./setup.ts";

const MODIFY = { class: "modify" } as const;

describe("begin and end", () => {
  it("L01 count one reference, and leave the domain free while they wait", async () => {
    const { clock, driver, steps, domain } = setup();
    const object = domain("a");
    const [first, second, look] = [new Ctx("first"), new Ctx("second"), new Ctx("look")];
    await object.lock.lock(first);
    const held = await beginJob(first, object, MODIFY);
    expect(object.reference.count).toBe(2);
    object.lock.unlock(first);

    await object.lock.lock(second);
    const begun = beginJob(second, object, MODIFY);
    await clock.advance(0);
    expect(object.reference.count).toBe(3);
    expect(object.lock.tryLock(look)).toBe(true);
    object.lock.unlock(look);

    await object.lock.lock(first);
    endJob(first, object, held);
    expect(object.reference.count).toBe(2);
    object.lock.unlock(first);
    endJob(second, object, await begun);
    expect(object.lock.isHeldBy(second)).toBe(true);
    expect(object.reference.count).toBe(1);
    object.lock.unlock(second);
    expect(steps.filter((step) => step.startsWith("second"))).toEqual(
      ["domain-lock", "ref", "wait", "domain-unlock", "domain-lock", "begin", "end", "unref"]
        .concat("domain-unlock")
        .map((step) => `second: ${step}`),
    );
    expect(driver.lock.holder).toBeNull();
  });

  it("L03 a wait of 30 s ends with an error that names the holder, and leaves no trace", async () => {
    const { clock, driver, domain } = setup();
    const object = domain("a");
    const hang = gate();
    const held = driver.call("blockJobAbort", (ctx) =>
      withJob(ctx, object, MODIFY, () => withMonitor(ctx, object, () => hang.opened)),
    );
    await clock.advance(1500);
    const ctx = new Ctx("blockPull");
    await object.lock.lock(ctx);
    const failed = failure(beginJob(ctx, object, MODIFY));
    await clock.advance(29_999);
    expect(object.job.queued).toBe(2);
    await clock.advance(1);
    const error = await failed;
    expect(error.reason).toBe("timeout");
    expect(error.errno).toBe("ETIMEDOUT");
    expect(error.message).toBe(
      "blockPull did not get its turn with domain 'a' in time: " +
        "blockJobAbort (modify) has been at it for 31.5 s",
    );
    expect(object.lock.isHeldBy(ctx)).toBe(true);
    object.lock.unlock(ctx);
    ctx.held.nothingLeft();
    expect(object.job.queued).toBe(1);
    hang.open();
    await held;
    expect(object.job.queued).toBe(0);
    expect(object.reference.count).toBe(1);
    expect(clock.timerCount).toBe(0);
  });

  it("L04 with the driver's lock go down to nothing and up again in order", async () => {
    const { clock, driver, steps, domain } = setup();
    const object = domain("a");
    const hang = gate();
    const held = driver.call("holder", (ctx) =>
      withJob(ctx, object, MODIFY, () => withMonitor(ctx, object, () => hang.opened)),
    );
    await clock.advance(0);
    const ctx = new Ctx("undefine");
    await driver.lock.lock(ctx);
    await object.lock.lock(ctx);
    steps.length = 0;
    const begun = beginJobWithDriver(ctx, object, MODIFY);
    await clock.advance(0);
    hang.open();
    endJob(ctx, object, await begun);
    object.lock.unlock(ctx);
    driver.lock.unlock(ctx);
    await held;
    expect(stepsOf(steps, "undefine").slice(0, 9)).toEqual([
      "driver-unlock",
      "ref",
      "wait",
      "domain-unlock",
      "domain-lock",
      "begin",
      "domain-unlock",
      "driver-lock",
      "domain-lock",
    ]);
  });

  it("with the driver's lock that fail have both locks again, and no reference", async () => {
    const { driver, domain } = setup();
    const object = domain("a");
    const [holder, ctx] = [new Ctx("holder"), new Ctx("undefine")];
    await object.lock.lock(holder);
    const held = await beginJob(holder, object, MODIFY);
    object.lock.unlock(holder);
    await driver.lock.lock(ctx);
    await object.lock.lock(ctx);
    const error = await failure(beginJobWithDriver(ctx, object, MODIFY, { nowait: true }));
    expect(error.reason).toBe("nowait");
    expect(driver.lock.isHeldBy(ctx)).toBe(true);
    expect(object.lock.isHeldBy(ctx)).toBe(true);
    expect(object.reference.count).toBe(2);
    object.lock.unlock(ctx);
    driver.lock.unlock(ctx);
    await object.lock.lock(holder);
    endJob(holder, object, held);
    object.lock.unlock(holder);
    expect(object.reference.count).toBe(1);
  });
});

describe("the monitor", () => {
  it("is entered with the domain locked, and left with the domain locked", async () => {
    const { driver, steps, domain } = setup();
    const object = domain("a");
    await driver.call("q", (ctx) =>
      withJob(ctx, object, { class: "query" }, () =>
        withMonitor(ctx, object, async () => {
          expect(object.lock.holder).toBeNull();
          expect(object.monitor!.lock.isHeldBy(ctx)).toBe(true);
        }),
      ),
    );
    expect(stepsOf(steps, "q").slice(3, -3)).toEqual([
      "monitor-lock",
      "enter",
      "domain-unlock",
      "exit",
      "monitor-unlock",
      "domain-lock",
    ]);
  });

  it("gives the driver's lock back, and has it before the domain's", async () => {
    const { driver, steps, domain } = setup();
    const object = domain("a");
    await driver.call("q", (ctx) =>
      withJob(ctx, object, { class: "modify", driver: true }, () =>
        withMonitor(ctx, object, async () => {
          expect(driver.lock.holder).toBeNull();
          steps.push("q: command");
        }),
      ),
    );
    const after = stepsOf(steps, "q");
    expect(after.slice(after.indexOf("command") + 1).slice(0, 4)).toEqual([
      "exit",
      "monitor-unlock",
      "driver-lock",
      "domain-lock",
    ]);
  });
});

describe("L06 the rank checker throws", () => {
  it("for a domain while in the monitor", async () => {
    const { driver, domain } = setup();
    const [object, other] = [domain("a"), domain("b")];
    const call = (inner: typeof object) =>
      driver.call("x", (ctx) =>
        withJob(ctx, object, MODIFY, () =>
          withMonitor(ctx, object, () => withDomain(ctx, inner, () => {})),
        ),
      );
    await expect(call(object)).rejects.toThrow(/domain lock is taken before the monitor lock/);
    await expect(call(other)).rejects.toThrow(/domain lock is taken before the monitor lock/);
  });

  it("for the driver while holding a domain, or in the monitor", async () => {
    const { driver, domain } = setup();
    const object = domain("a");
    await expect(
      driver.call("x", (ctx) =>
        withJob(ctx, object, MODIFY, () => withDriver(ctx, driver, () => {})),
      ),
    ).rejects.toThrow(/driver lock is taken before the domain lock/);
    await expect(
      driver.call("x", (ctx) =>
        withJob(ctx, object, MODIFY, () =>
          withMonitor(ctx, object, () => withDriver(ctx, driver, () => {})),
        ),
      ),
    ).rejects.toThrow(/driver lock is taken before the monitor lock/);
  });

  it("for a second domain", async () => {
    const { driver, domain } = setup();
    const [a, b] = [domain("a"), domain("b")];
    await expect(
      driver.call("x", (ctx) => withJob(ctx, a, MODIFY, () => withDomain(ctx, b, () => {}))),
    ).rejects.toThrow(/one of each/);
  });

  it("for a job while holding the driver, or another job", async () => {
    const { driver, domain } = setup();
    const [a, b] = [domain("a"), domain("b")];
    const nothing = async () => {};
    await expect(
      driver.call("x", (ctx) => withDriver(ctx, driver, () => withJob(ctx, a, MODIFY, nothing))),
    ).rejects.toThrow(/waits for a job without the driver lock/);
    for (const [inner, wish] of [
      [b, MODIFY],
      [a, MODIFY],
      [a, { agent: "query" }],
    ] as const) {
      const ctx = new Ctx("x");
      await a.lock.lock(ctx);
      const held = await beginJob(ctx, a, MODIFY);
      a.lock.unlock(ctx);
      await expect(withJob(ctx, inner, wish, nothing)).rejects.toThrow(/one job at a time/);
      await a.lock.lock(ctx);
      endJob(ctx, a, held);
      a.lock.unlock(ctx);
    }
  });

  it("for a monitor without a job", async () => {
    const object = setup().domain("a");
    const ctx = new Ctx("x");
    await object.lock.lock(ctx);
    expect(() => enterMonitor(ctx, object)).toThrow(/enters the monitor with a job/);
    await expect(withMonitor(ctx, object, async () => {})).rejects.toThrow(/x has a job here/);
  });

  it("for a monitor within a job of another kind, or of another domain", async () => {
    const { driver, domain } = setup();
    const [a, b] = [domain("a"), domain("b")];
    const nothing = async () => {};
    const enter = (options: WithJobOptions, object: typeof a) =>
      driver.call("x", (ctx) => withJob(ctx, a, options, () => withMonitor(ctx, object, nothing)));
    await expect(enter({ agent: "modify" }, a)).rejects.toThrow(/enters the monitor with a job/);
    await expect(enter(MODIFY, b)).rejects.toThrow(/x has a job here/);
    await expect(
      driver.call("x", (ctx) =>
        withAsyncJob(ctx, a, { kind: "backup" }, () => withMonitor(ctx, a, nothing)),
      ),
    ).rejects.toThrow(/x has a job here/);
    expect([a.job.queued, b.job.queued]).toEqual([0, 0]);
  });

  type Unlocked = (
    ctx: Ctx,
    object: DomainObject,
    work: () => Promise<unknown>,
  ) => Promise<unknown>;
  it.each<[string, Unlocked]>([
    ["in the monitor", withMonitor],
    ["while the domain is unlocked", withUnlocked],
  ])("for anything that waits within a job, %s", async (_where, wrap) => {
    const { driver, domain } = setup();
    const object = domain("a");
    const nothing = async () => {};
    const asked: readonly ((ctx: Ctx) => Promise<unknown>)[] = [
      (ctx) => withJob(ctx, object, MODIFY, nothing),
      (ctx) => withJob(ctx, object, { agent: "query" }, nothing),
      (ctx) => withAsyncJob(ctx, object, { kind: "backup" }, nothing),
      (ctx) => withMonitor(ctx, object, nothing),
      (ctx) => waitFor(ctx, object, () => true),
    ];
    for (const ask of asked) {
      const call = driver.call("x", (ctx) =>
        withJob(ctx, object, MODIFY, () => wrap(ctx, object, () => ask(ctx))),
      );
      await expect(call).rejects.toThrow(
        /before the monitor|one job at a time|with the domain's lock in hand|without a job/,
      );
      // A bug, but the next call has its turn.
      expect([object.job.queued, object.lock.holder]).toEqual([0, null]);
      await driver.call("next", (ctx) => withJob(ctx, object, MODIFY, nothing));
    }
  });

  it("for whoever begins, ends, waits or enters without the domain's lock", async () => {
    const object = setup().domain("a");
    const ctx = new Ctx("x");
    await expect(beginJob(ctx, object, MODIFY)).rejects.toThrow(/begins a job with the domain's/);
    await expect(object.changes.wait(ctx, {})).rejects.toThrow(/waits with the lock of domain 'a'/);
    await object.lock.lock(ctx);
    const held = await beginJob(ctx, object, MODIFY);
    object.lock.unlock(ctx);
    expect(() => enterMonitor(ctx, object)).toThrow(/enters the monitor with the domain's lock/);
    expect(() => endJob(ctx, object, held)).toThrow(/ends a job with the domain's lock/);
    expect([object.job.queued, object.reference.count]).toEqual([1, 2]);
  });

  it("for an end amid a command, and a command after the end", async () => {
    const object = setup().domain("a");
    const ctx = new Ctx("x");
    await object.lock.lock(ctx);
    const held = await beginJob(ctx, object, MODIFY);
    const entered = enterMonitor(ctx, object);
    expect(() => endJob(ctx, object, held)).toThrow(/ends a job with the domain's lock/);
    await exitMonitor(ctx, object, entered);
    endJob(ctx, object, held);
    expect(() => enterMonitor(ctx, object)).toThrow(/enters the monitor with a job/);
  });

  it("for a slot that somebody has, a job that has ended, and one that was never asked for", async () => {
    const { job, reference } = setup().domain("a");
    const [ctx, other] = [new Ctx("x"), new Ctx("other")];
    const first = job.want(ctx, MODIFY, {});
    job.take(first);
    const second = job.want(other, MODIFY, {});
    expect(() => job.take(second)).toThrow(/by the one whose turn it is/);
    expect(() => job.end(second)).toThrow(/the job of other ends once/);
    job.end(first);
    expect(() => job.end(first)).toThrow(/the job of x ends once/);
    job.give(second);
    expect(() => job.give(second)).toThrow(/other waits in the queue/);
    reference.release();
    expect(() => reference.release()).toThrow(/released as often as it is retained/);
    expect(() => reference.retain()).toThrow(/not used after its end/);
  });

  it("for a domain that ends locked or with a job, is removed twice, or has two monitors", async () => {
    const { domain } = setup();
    const [locked, busy, twice] = [domain("locked"), domain("busy"), domain("twice")];
    const ctx = new Ctx("x");
    await locked.lock.lock(ctx);
    expect(() => locked.remove()).toThrow(/is not locked at its end/);
    busy.job.want(ctx, MODIFY, {});
    expect(() => busy.remove()).toThrow(/has no job at its end/);
    expect(() => twice.attachMonitor("another")).toThrow(/has one monitor/);
    twice.reference.retain();
    twice.remove();
    expect(() => twice.remove()).toThrow(/is removed once/);
  });

  it("for an end without a begin, a second end, and somebody else's", async () => {
    const object = setup().domain("a");
    const [ctx, other] = [new Ctx("x"), new Ctx("other")];
    await object.lock.lock(ctx);
    const held = await beginJob(ctx, object, MODIFY);
    object.lock.unlock(ctx);
    await object.lock.lock(other);
    expect(() => endJob(other, object, held)).toThrow(/ended by it, not by other/);
    object.lock.unlock(other);
    await object.lock.lock(ctx);
    endJob(ctx, object, held);
    expect(() => endJob(ctx, object, held)).toThrow(/ends jobs that it has begun/);
  });

  it("for a second exit", async () => {
    const object = setup().domain("a");
    const ctx = new Ctx("x");
    await object.lock.lock(ctx);
    await beginJob(ctx, object, MODIFY);
    const entered = enterMonitor(ctx, object);
    await exitMonitor(ctx, object, entered);
    await expect(exitMonitor(ctx, object, entered)).rejects.toThrow(/given back by its holder/);
  });

  it("for a call that leaves a lock or a job behind", async () => {
    const { driver, domain } = setup();
    const object = domain("a");
    await expect(driver.call("x", (ctx) => object.lock.lock(ctx))).rejects.toThrow(
      /gives back its locks/,
    );
    const other = domain("b");
    const begin = async (ctx: Ctx) => {
      await other.lock.lock(ctx);
      await beginJob(ctx, other, MODIFY);
      other.lock.unlock(ctx);
    };
    await expect(driver.call("x", begin)).rejects.toThrow(/x ends its jobs/);
    const third = domain("c");
    const enter = async (ctx: Ctx) => {
      await third.lock.lock(ctx);
      await beginJob(ctx, third, MODIFY);
      enterMonitor(ctx, third);
    };
    await expect(driver.call("x", enter)).rejects.toThrow(/its locks: the monitor of domain 'c'/);
  });

  it("for two waits of one call at a time", async () => {
    const { clock, driver, domain } = setup();
    const object = domain("a");
    const hang = gate();
    const held = driver.call("holder", (ctx) => withDriver(ctx, driver, () => hang.opened));
    await clock.advance(0);
    await expect(
      driver.call("x", (ctx) =>
        Promise.all([withDriver(ctx, driver, () => {}), withDomain(ctx, object, () => {})]),
      ),
    ).rejects.toThrow(/waits for one thing at a time/);
    hang.open();
    await held;
  });

  it("for work that waits under the domain's lock alone", async () => {
    const { driver, domain } = setup();
    const object = domain("a");
    await expect(
      driver.call("x", (ctx) => withDomain(ctx, object, async () => {})),
    ).rejects.toThrow(/does not wait/);
  });
});

function stepsOf(steps: string[], api: string): string[] {
  return steps
    .filter((step) => step.startsWith(`${api}: `))
    .map((step) => step.slice(api.length + 2));
}
