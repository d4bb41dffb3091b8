/**
 * Ways to get locks wrong, each of which somebody has: D1 to D15 are the defects of seed 004 as it was
 * mailed, or of what became of it. `from` becomes `to` in a copy of the sources; then the exploration
 * has to say what it says here.
 */

import type { Breakage } from "../../model/breakages.ts";

const LOCKS = "src/domain/locks";

export const BREAKAGES: readonly (Breakage & { readonly said: RegExp })[] = [
  {
    name: "D1 a begin that fails keeps its reference",
    file: `${LOCKS}/begin-job.ts`,
    from: `    driver.onStep?.("unref", ctx, object.name);
    reference.release();
    throw error;`,
    to: "    throw error;",
    said: /has \d+ references, not/,
  },
  {
    name: "D2 a begin with the driver that fails leaves the driver unlocked",
    file: `${LOCKS}/begin-job.ts`,
    from: "  } finally {\n    await relock(ctx, object);\n  }",
    to: "    await relock(ctx, object);\n  } finally {\n  }",
    said: /the list of domains is given back by its holder/,
  },
  {
    name: "D2 the driver is locked again with the domain in hand, as in 2009",
    file: `${LOCKS}/begin-job.ts`,
    from: "  lock.unlock(ctx);\n  await driver.lock.lock(ctx);\n  await lock.lock(ctx);",
    to: "  void lock;\n  await driver.lock.lock(ctx);",
    said: /the driver lock is taken before the domain lock/,
  },
  {
    name: "D3 a wait has no limit",
    file: `${LOCKS}/begin-job.ts`,
    from: "const limit = { deadlineMs, signal: ctx.signal };",
    to: "const limit = { signal: ctx.signal };\n  void deadlineMs;",
    said: /waits without an end/,
  },
  {
    name: "D4 a wait that fails does not say why",
    file: `${LOCKS}/begin-job.ts`,
    from: 'throw new JobError("timeout", what, ctx.api, blocker);',
    to: 'throw new JobError("timeout", what, ctx.api, null);',
    said: /timed out with nobody named/,
  },
  {
    name: "D5 the last reference goes while the domain is locked",
    file: `${LOCKS}/with-job.ts`,
    from: `    return await holding(ctx, object.lock, limit, work);
  } finally {
    object.reference.release();
  }`,
    to: `    return await holding(ctx, object.lock, limit, () =>
      work().finally(() => object.reference.release()),
    );
  } finally {
  }`,
    said: /is not locked at its end/,
  },
  {
    name: "D6 nobody looks whether the domain still runs when the wait is over",
    file: `${LOCKS}/begin-job.ts`,
    from: "    object.mustBeThere(ctx, !options.offline);\n    mustBeInside",
    to: "    mustBeInside",
    said: /(began on|waits for) a domain that stands still/,
  },
  {
    name: "D7 a monitor is closed under the command that is in it",
    file: `${LOCKS}/monitor.ts`,
    from: "  monitor.reference.retain();\n",
    to: "",
    said: /the monitor of domain 'd\d' is released as often/,
  },
  {
    name: "D8 events are handled with the monitor locked",
    file: `${LOCKS}/event-queue.ts`,
    from: "      await withJob(ctx, this.#object, options, () => {",
    to: `      await this.#object.monitor?.lock.lock(ctx);
      await withJob(ctx, this.#object, options, () => {`,
    said: /the domain lock is taken before the monitor lock/,
  },
  {
    name: "D9 the way out of the monitor takes the domain's lock first, as the prose has it",
    file: `${LOCKS}/monitor.ts`,
    from: `  monitor.lock.unlock(ctx);
  monitor.reference.release();
  if (hadDriver) await object.driver.lock.lock(ctx);
  await object.lock.lock(ctx);`,
    to: `  if (hadDriver) await object.driver.lock.lock(ctx);
  await object.lock.lock(ctx);
  monitor.lock.unlock(ctx);
  monitor.reference.release();`,
    said: /the (domain|driver) lock is taken before the monitor lock/,
  },
  {
    name: "D10 the wait is for a job that is active, as the prose has it",
    file: `${LOCKS}/begin-job.ts`,
    from: "if (blocker === null) return;",
    to: "if (blocker !== null) return;",
    said: /a slot is taken by the one whose turn it is|nobody is in its way/,
  },
  {
    name: "D11 a call begins a second job within its first",
    file: "test/domain/locks/client.ts",
    from: '      const before = place.disks.get("vd0")!;',
    to: `      const before = place.disks.get("vd0")!;
      await withJob(ctx, place.object, options, async () => {});`,
    said: /and one of each: \w+#\d+ holds the lock of domain/,
  },
  {
    name: "D11 a call ends the job of another",
    file: "test/domain/locks/client.ts",
    from: "      await withUnlocked(ctx, place.object, () => this.#sleep(10));",
    to: `      await withUnlocked(ctx, place.object, async () => {
        const { Ctx } = await import("../../../src/domain/locks/ctx.ts");
        const { endJob } = await import("../../../src/domain/locks/begin-job.ts");
        const other = new Ctx("other");
        await place.object.lock.lock(other);
        try {
          endJob(other, place.object, place.object.job.holder("normal")!);
        } finally {
          place.object.lock.unlock(other);
        }
      });`,
    said: /is ended by it, not by other/,
  },
  {
    name: "D12 a change wakes one who waits",
    file: `${LOCKS}/condition.ts`,
    from: "this.#waiting.wakeAll();",
    to: "this.#waiting.wakeFirst();",
    said: /waits, and nobody is in its way|waits for a domain that stands still|the promise settles/,
  },
  {
    name: "D13 a call uses what it looked up before it began",
    file: "test/domain/locks/client.ts",
    from: `    return this.job(ctx, place, options, async () => {
      const before = place.disks.get("vd0")!;`,
    to: `    const before = place.disks.get("vd0")!;
    return this.job(ctx, place, options, async () => {`,
    said: /a disk of d\d has changed under/,
  },
  {
    name: "D14 while a long operation goes on nobody may even ask",
    file: `${LOCKS}/job-classes.ts`,
    from: 'const ALWAYS: readonly JobClass[] = ["destroy", "query", "modify-migration-safe"];',
    to: "const ALWAYS: readonly JobClass[] = [];",
    said: /(info|destroy|speed)#\d+ waits, and nobody is in its way/,
  },
  {
    name: "D15 the driver's lock is taken before the monitor is left",
    file: `${LOCKS}/monitor.ts`,
    from: `  monitor.lock.unlock(ctx);
  monitor.reference.release();
  if (hadDriver) await object.driver.lock.lock(ctx);`,
    to: `  if (hadDriver) await object.driver.lock.lock(ctx);
  monitor.lock.unlock(ctx);
  monitor.reference.release();`,
    said: /the driver lock is taken before the monitor lock/,
  },
  {
    name: "a backup lets no speed be changed, as libvirt's",
    file: `${LOCKS}/job-classes.ts`,
    from: 'backup: [...ALWAYS, "abort", "suspend", "modify"],',
    to: 'backup: ["destroy", "query", "abort", "suspend", "modify"],',
    said: /speed#\d+ waits, and nobody is in its way/,
  },
  {
    name: "a call that goes on into the async slot wakes nobody",
    file: `${LOCKS}/domain-job.ts`,
    from: `    request.sinceMs = this.#clock.now();
    this.condition.broadcast();`,
    to: "    request.sinceMs = this.#clock.now();",
    said: /waits, and nobody is in its way/,
  },
  {
    name: "who comes later may be first",
    file: `${LOCKS}/domain-job.ts`,
    from: "if (isRival && this.#mask(other) === null) return other;",
    to: "if (isRival && this.#mask(other) === null) return null;",
    said: /has passed/,
  },
  {
    name: "who waits for its turn at the end of its time leaves too early",
    file: `${LOCKS}/wait-list.ts`,
    from: "Math.max(0, deadlineMs - this.#clock.now())",
    to: "Math.max(0, deadlineMs - this.#clock.now() - 1)",
    said: /timed out after 29999 ms/,
  },
  {
    name: "a wait starts its time anew each time it is woken",
    file: `${LOCKS}/wait-list.ts`,
    from: "Math.max(0, deadlineMs - this.#clock.now())",
    to: "30_000",
    said: /waits without an end|waited \d+ ms/,
  },
  {
    name: "an event whose turn does not come in time is forgotten",
    file: `${LOCKS}/event-queue.ts`,
    from: 'return error.reason === "gone";',
    to: "return true;",
    said: /the promise settles/,
  },
  {
    name: "a call waits for the job with the domain in hand",
    file: `${LOCKS}/condition.ts`,
    from: `    this.#lock.unlock(ctx);
    const how = await ctx.held.during(woken);
    await this.#lock.lock(ctx);
    return how;`,
    to: "    return ctx.held.during(woken);",
    said: /is locked while nothing goes on/,
  },
];
