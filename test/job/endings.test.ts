/**
 * Every way to end, from every phase: exactly one of commit and abort, one clean, one cb, one free;
 * and what each of the five kinds of listeners hears.
 */

import { expect, it } from "vitest";
import { BlockError } from "../../src/base/errors.ts";
import type { Job } from "../../src/job/job.ts";
import { verbs } from "../../src/job/verbs.ts";
import { converging, failing, type TinyDriver, World } from "./world.ts";

const MANUAL = { autoFinalize: false, autoDismiss: false };
const DENIED = () => {
  throw new BlockError("EPERM", "Operation not permitted");
};

// What the driver does, and what the user does while the job is in which status.
type Do = (job: Job) => unknown;
interface Way {
  readonly driver: TinyDriver;
  readonly at?: readonly [status: string, act: Do];
  readonly error: string | null;
}
const cancel: Do = (job) => job.cancel(true);
const WAYS: Record<string, Way> = {
  success: { driver: {}, error: null },
  "a failing run": { driver: { run: failing() }, error: "EIO" },
  "a failing prepare": { driver: { prepare: DENIED }, error: "EPERM" },
  "complete when ready": {
    driver: converging(),
    at: ["ready", (job) => verbs.complete(job)],
    error: null,
  },
  "a soft cancel when ready": {
    driver: converging(),
    at: ["ready", (job) => job.cancel(false)],
    error: null,
  },
  "a cancel when running": { driver: {}, at: ["running", cancel], error: "ECANCELED" },
  "a cancel when ready": { driver: converging(), at: ["ready", cancel], error: "ECANCELED" },
  "a cancel when waiting": { driver: {}, at: ["waiting", cancel], error: "ECANCELED" },
  "a cancel when pending": { driver: {}, at: ["pending", cancel], error: "ECANCELED" },
  "a cancel when aborting": {
    driver: { run: failing() },
    at: ["aborting", cancel],
    error: "EIO",
  },
  "a cancel when concluded": { driver: {}, at: ["concluded", cancel], error: null },
  "a pause and a cancel": {
    driver: {},
    at: [
      "running",
      (job) => {
        job.userPause();
        job.cancel(true);
      },
    ],
    error: "ECANCELED",
  },
  "two cancels at once": {
    driver: {},
    at: [
      "running",
      (job) => {
        job.cancel(false);
        job.cancel(true);
      },
    ],
    error: "ECANCELED",
  },
};

for (const [name, { driver, at, error }] of Object.entries(WAYS)) {
  for (const manner of [{}, MANUAL]) {
    it(`#24 ends once after ${name}${manner === MANUAL ? ", by hand" : ""}`, async () => {
      const world = new World();
      let acted = at === undefined;
      const job = world.born(driver, {
        ...manner,
        onEvent: (event, self) => {
          if (acted || event.kind !== "status" || event.status !== at?.[0]) return;
          acted = true;
          at[1](self);
        },
      });
      job.start();
      await byHand(world, job);
      expect(world.bugs).toEqual([]);
      expect(job.error?.errno ?? null).toBe(error);
      const count = (call: string) =>
        world
          .calls()
          .split(" ")
          .filter((c) => c === call).length;
      expect(count("commit") + count("abort")).toBe(1);
      expect([count("clean"), count("cb"), count("free")]).toEqual([1, 1, 1]);
      expect(count("commit")).toBe(error === null ? 1 : 0);
      expect(world.calls()).toMatch(/(commit|abort) clean cb free$/);
      expect(acted).toBe(true);
    });
  }
}

it("#24 tells ready, pending, idle, and how it ended, to whoever listens", async () => {
  const world = new World();
  const heard: string[] = [];
  const job = world.born(converging(), MANUAL);
  const add = (name: string) =>
    job.listen((event) =>
      heard.push(`${name}:${event.kind === "status" ? event.status : event.kind}`),
    );
  const [endFirst] = [add("a"), add("b")];
  job.start();
  await world.clock.advance(10);
  endFirst();
  endFirst();
  await verbs.complete(job);
  await world.clock.advance(0);
  await verbs.finalize(job);
  expect(heard.join(" ")).toBe(
    "a:running b:running a:idle b:idle a:ready b:ready a:ready b:ready a:idle b:idle " +
      "b:idle b:waiting b:pending b:pending b:finalize-completed b:concluded",
  );
});

it("#24 a listener that is taken off by another hears no more; a new one hears the next", async () => {
  const world = new World();
  const heard: string[] = [];
  const job = world.born();
  const say = (name: string) => () => void heard.push(name);
  job.listen(() => {
    end();
    job.listen(say("late"));
  });
  const end = job.listen(say("never"));
  job.start();
  expect(heard).toEqual([]);
  job.cancel(true);
  await world.end(job);
  expect(heard).toContain("late");
  expect(heard).not.toContain("never");
});

it("#24 hears finalize-cancelled after a force cancel, neither of the two if it never ran", async () => {
  const world = new World();
  const heard: string[] = [];
  const job = world.started({}, { id: "ran" });
  const unborn = world.born({}, { id: "never" });
  for (const each of [job, unborn]) {
    each.listen(({ kind }) => {
      if (kind.startsWith("finalize")) heard.push(`${each.id} ${kind}`);
    });
    each.cancel(true);
  }
  await world.end(job, unborn);
  expect(heard).toEqual(["ran finalize-cancelled"]);
});

/** Finalizes and dismisses where that is left to the user. */
async function byHand(world: World, job: Job): Promise<void> {
  await world.clock.advance(200);
  if (job.status === "pending") await world.clock.runUntil(verbs.finalize(job));
  await world.clock.advance(0);
  if (job.status === "concluded") job.dismiss();
  await world.end(job);
}
