/** What users are told when they ask for what cannot be. */

import { expect, it } from "vitest";
import { BlockError } from "../../src/base/errors.ts";
import type { Job } from "../../src/job/job.ts";
import { JOB_VERBS, mayApply } from "../../src/job/status.ts";
import { checkVerb, verbs } from "../../src/job/verbs.ts";
import { converging, World } from "./world.ts";

it("#7 a refusal names verb, job and status", () => {
  const job = new World().born({}, { id: "my-job" });
  expect(refusal(() => checkVerb(job, "finalize"))).toBe(
    "EPERM GenericError 'finalize' does not apply to job 'my-job' while it is created",
  );
});

it("#7 each verb is allowed and refused as the table says, in every status", async () => {
  const world = new World();
  const job = world.born(converging(), { autoFinalize: false, autoDismiss: false });
  const compare = () => {
    for (const verb of JOB_VERBS) {
      const told = refusal(() => checkVerb(job, verb));
      expect(told === null, `${verb} while ${job.status}`).toBe(mayApply(verb, job.status));
    }
  };
  const seen: string[] = [];
  const look = () => {
    seen.push(job.status);
    compare();
  };
  look();
  job.start();
  look();
  await verbs.pause(job);
  await world.clock.advance(0);
  look();
  await verbs.resume(job);
  await world.clock.advance(10);
  look();
  await verbs.pause(job);
  look();
  await verbs.complete(job);
  await verbs.resume(job);
  await world.clock.advance(0);
  look();
  await verbs.finalize(job);
  look();
  await verbs.dismiss(job);
  look();
  expect(seen.join(" ")).toBe("created running paused ready standby pending concluded null");
});

it("#12 pause: the table first, then that it is paused already", async () => {
  const { world, job } = await running();
  await verbs.pause(job);
  await expect(verbs.pause(job)).rejects.toThrow("as it is paused already");
  await verbs.resume(job);
  await world.clock.advance(100);
  await expect(verbs.pause(job)).rejects.toThrow("while it is pending");
});

it("#12 #15 resume: that it is not paused first, then the table", async () => {
  const { world, job } = await running();
  await expect(verbs.resume(job)).rejects.toThrow("not paused; it is running");
  job.pause();
  await expect(verbs.resume(job)).rejects.toThrow("not paused; it is paused");
  job.resume();
  await world.clock.advance(100);
  await expect(verbs.resume(job)).rejects.toThrow("not paused; it is pending");
});

it("resume of a job whose work ended under a user's pause: the table refuses", async () => {
  const world = new World();
  const job = world.started({ run: async (self) => self.userPause() }, { autoFinalize: false });
  await world.clock.advance(0);
  expect([job.status, job.userPaused]).toEqual(["pending", true]);
  await expect(verbs.resume(job)).rejects.toThrow("while it is pending");
  await verbs.finalize(job);
  expect(job.status).toBe("null");
});

it("resume tells the driver before the job moves", async () => {
  const world = new World();
  const log: string[] = [];
  const userResume = (job: Job) => log.push(`userResume while ${job.status} ${job.userPaused}`);
  const job = world.started({ userResume });
  await world.clock.advance(5);
  await verbs.pause(job);
  await verbs.resume(job);
  expect(log).toEqual(["userResume while paused true"]);
  await world.end(job);
});

it("#11 cancel without force: refused while the user has paused the job, which stays paused", async () => {
  const { job } = await running();
  await verbs.pause(job);
  await expect(verbs.cancel(job, false)).rejects.toThrow("resume it, or use force");
  expect([job.status, job.cancelRequested]).toEqual(["paused", false]);
  await verbs.cancel(job, true);
  expect(job.cancelled).toBe(true);
});

it("#25 complete: table, cancel, driver's ability, driver's own mind; twice is fine", async () => {
  const world = new World();
  const job = world.started({
    ...converging(),
    complete: () => {
      throw new BlockError("EBUSY", "Not in this weather");
    },
  });
  await expect(verbs.complete(job)).rejects.toThrow("while it is running");
  await world.clock.advance(10);
  await expect(verbs.complete(job)).rejects.toMatchObject({ errno: "EBUSY" });
  const { complete: _, ...unable } = converging();
  const plain = world.started(unable, { id: "plain" });
  await world.clock.advance(10);
  await expect(verbs.complete(plain)).rejects.toThrow("as it ends by itself");
  const willing = world.started(converging(), { id: "willing" });
  await world.clock.advance(10);
  await verbs.pause(willing);
  await verbs.complete(willing);
  await verbs.complete(willing);
  await verbs.resume(willing);
  await world.end(willing);
  expect(willing.error).toBe(null);
});

it("#21 dismiss: concluded only", async () => {
  const { job } = await running();
  await verbs.pause(job);
  await expect(verbs.dismiss(job)).rejects.toThrow("'dismiss' does not apply to job 'job'");
});

/** A job at work, that will wait in pending. */
async function running() {
  const world = new World();
  const job = world.started({}, { autoFinalize: false, autoDismiss: false });
  await world.clock.advance(5);
  return { world, job };
}

function refusal(ask: () => void): string | null {
  try {
    ask();
    return null;
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return `${error.errno} ${error.class} ${error.message}`;
  }
}
