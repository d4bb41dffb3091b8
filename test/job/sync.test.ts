/** To ask and to wait: what QEMU does in a nested event loop. */

import { expect, it } from "vitest";
import { sleep } from "../../src/base/clock.ts";
import { cancelSync, completeSync, finishSync } from "../../src/job/sync.ts";
import { JobTxn } from "../../src/job/txn.ts";
import { verbs } from "../../src/job/verbs.ts";
import { converging, failing, steps, World } from "./world.ts";

const MANUAL = { autoFinalize: false, autoDismiss: false };

it("#31 finishSync gives the result of a single job: 0, EIO, ECANCELED", async () => {
  for (const [run, isCancelled, errno] of [
    [steps(2), false, undefined],
    [failing(), false, "EIO"],
    [steps(2), true, "ECANCELED"],
  ] as const) {
    const world = new World();
    const job = world.started({ run });
    const end = isCancelled ? cancelSync(job, true) : finishSync(job);
    const error = await world.clock.runUntil(end);
    expect(error?.errno).toBe(errno);
    expect([error, job.status]).toEqual([job.error, "null"]);
    expect(world.calls()).toMatch(/cb free$/);
  }
});

it("cancelSync ends whatever there is: created, running, paused, ready, pending, concluded", async () => {
  const world = new World();
  const created = world.born({}, { id: "created", ...MANUAL });
  const running = world.started({ run: steps(1, 1e9) }, { id: "running", ...MANUAL });
  const paused = world.started({ run: steps(1, 1e9) }, { id: "paused", ...MANUAL });
  const ready = world.started(converging(), { id: "ready", ...MANUAL });
  const pending = world.started({ run: steps(0) }, { id: "pending", ...MANUAL });
  const concluded = world.started({ run: steps(0) }, { id: "concluded", autoDismiss: false });
  paused.userPause();
  await world.clock.advance(10);
  for (const job of [created, running, paused, ready, pending]) {
    expect(job.status).toBe(job.id);
    const error = await world.clock.runUntil(cancelSync(job, true));
    expect(error?.errno, `${job.id}`).toBe("ECANCELED");
    expect(job.status).toBe(job === created ? "null" : "concluded");
  }
  expect(await cancelSync(concluded, true)).toBe(null);
  expect(concluded.status).toBe("null");
});

it("a soft cancelSync of a ready job gives the result of its good end", async () => {
  const world = new World();
  const job = world.started(converging());
  await world.clock.advance(10);
  expect(await world.clock.runUntil(cancelSync(job, false))).toBe(null);
  expect(world.story()).toBe(
    "created running ready READY waiting pending COMPLETED concluded null",
  );
});

it("#25 completeSync waits for the end, its callback included", async () => {
  const world = new World();
  const job = world.started({ ...converging(), clean: () => sleep(world.clock, 50) });
  await expect(completeSync(job)).rejects.toMatchObject({ errno: "EPERM" });
  await world.clock.advance(10);
  expect(await world.clock.runUntil(completeSync(job))).toBe(null);
  expect(world.calls()).toBe("run prepare commit clean cb free");
});

it("waits for a pause to end, or until its own signal says stop, which leaves the job alone", async () => {
  const world = new World();
  const job = world.started(converging());
  await world.clock.advance(10);
  await verbs.pause(job);
  const stop = new AbortController();
  const wait = completeSync(job, stop.signal);
  await world.clock.advance(10_000);
  expect(job.status).toBe("standby");
  stop.abort();
  await expect(wait).rejects.toMatchObject({ errno: "ECANCELED" });
  await expect(finishSync(job, undefined, stop.signal)).rejects.toThrow("canceled");
  expect([job.status, job.cancelRequested]).toEqual(["standby", false]);
  await verbs.resume(job);
  await world.end(job);
  expect(job.error).toBe(null);
});

it("does not wait for the user: a manual group that is pending is at rest", async () => {
  const world = new World();
  const txn = new JobTxn();
  const manual = world.born({}, { id: "manual", txn, ...MANUAL });
  const auto = world.born({ run: steps(9) }, { id: "auto", txn });
  for (const job of [manual, auto]) job.start();
  const both = Promise.all([finishSync(manual), finishSync(auto)]);
  expect(await world.clock.runUntil(both)).toEqual([null, null]);
  expect([manual.status, auto.status]).toEqual(["pending", "pending"]);
  await verbs.finalize(auto);
  expect(await finishSync(auto)).toBe(null);
});

it("a job that waits for its group is not at rest: its result is not known", async () => {
  const world = new World();
  const txn = new JobTxn();
  const waits = world.born({ run: steps(0) }, { id: "waits", txn });
  const fails = world.born({ run: failing(3) }, { id: "fails", txn });
  for (const job of [waits, fails]) job.start();
  const error = await world.clock.runUntil(finishSync(waits));
  expect(error?.errno).toBe("ECANCELED");
});

it("leaves no listener and no timer behind", async () => {
  const world = new World();
  const job = world.started({ run: steps(1, 100) });
  const stop = new AbortController();
  const waits = Array.from({ length: 100 }, () => finishSync(job, undefined, stop.signal));
  stop.abort();
  for (const wait of waits) await expect(wait).rejects.toMatchObject({ errno: "ECANCELED" });
  await world.clock.runUntil(finishSync(job));
  expect(world.clock.timerCount).toBe(0);
});
