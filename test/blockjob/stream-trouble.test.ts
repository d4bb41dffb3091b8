/** block-stream among others, and with a store that fails where it hurts. */

import { expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { startStream } from "../../src/blockjob/stream.ts";
import { verbs } from "../../src/job/verbs.ts";
import { chain, hash } from "./rig.ts";

it.each([
  ["upper", "lower"],
  ["lower", "upper"],
])("runs two streams on disjoint parts of a chain, the %s one started first", async (...order) => {
  const t = await chain(["base", "low", "mid", "high", "top"], 2 * MiB);
  const before = await t.content();
  const options = {
    upper: { device: "top", jobId: "upper", baseNode: "mid", speed: MiB },
    lower: { device: "mid", jobId: "lower", speed: 2 * MiB },
  };
  for (const name of order) await startStream(t.services, options[name as "upper" | "lower"]);
  const jobs = t.services.jobs.all();
  await t.clock.runUntil(Promise.all(jobs.map((job) => job.finished)));
  expect(jobs.map((job) => job.error)).toEqual([null, null]);
  expect(t.bugs).toEqual([]);
  expect(t.layers()).toEqual(["top", "mid"]);
  expect(hash(await t.content())).toBe(hash(before));
});

it("lets one of two streams have the node that both were asked for at once", async () => {
  const t = await chain(["base", "top"], MiB);
  const asked = ["a", "b"].map((jobId) => startStream(t.services, { device: "vda", jobId }));
  const [a, b] = await Promise.allSettled(asked);
  expect(a?.status).toBe("fulfilled");
  expect(b).toMatchObject({ status: "rejected", reason: { errno: "EBUSY" } });
  await t.clock.runUntil(Promise.all(t.services.jobs.all().map((job) => job.finished)));
  expect(t.graph.nodes.filter((node) => node.driver.kind === "filter")).toEqual([]);
  expect(t.layers()).toEqual(["top"]);
});

it("fails when the header cannot be written, and leaves every node where it was", async () => {
  const t = await chain(["base", "mid", "top"], MiB, { sealed: true });
  const job = await t.stream({ device: "vda", jobId: "s0" });
  expect(job.error?.errno).toBe("EIO");
  expect(t.layers()).toEqual(["top", "mid", "base"]);
  expect(t.graph.get("mid").parents.size).toBe(1);
});

it("#57 asks the policy about a full store at the last flush, too", async () => {
  const t = await chain(["base", "top"], MiB);
  t.topStore.fault = { op: "flush", errno: "ENOSPC" };
  const job = await startStream(t.services, { device: "vda", jobId: "s0", onError: "enospc" });
  await t.clock.advance(1000);
  expect(t.story()).toBe("created running ERROR(write,stop) paused");
  expect(job.ioStatus).toBe("nospace");
  await verbs.resume(job);
  await t.clock.advance(1000);
  expect(job.status).toBe("paused"); // Still full: tried again, and said again.
  t.topStore.fault = null;
  await verbs.resume(job);
  await t.clock.runUntil(job.finished);
  expect(t.layers()).toEqual(["top"]);
});

it("asks the policy again after a resume that comes before the pause", async () => {
  const t = await chain(["base", "top"], MiB);
  t.faulty.fault = { op: "read", errno: "EIO" };
  let errors = 0;
  t.hooks.onEvent = (name) => {
    if (name !== "BLOCK_JOB_ERROR") return;
    errors++;
    if (errors < 4) queueMicrotask(() => void verbs.resume(t.services.jobs.get("s0")));
  };
  const job = await startStream(t.services, { device: "vda", jobId: "s0", onError: "stop" });
  await t.clock.advance(1000);
  expect(errors).toBe(4);
  expect(job.status).toBe("paused");
  await verbs.cancel(job, true);
  await t.clock.runUntil(job.finished);
});

it("copies in chunks of 512 KiB, put together from as many runs as that takes", async () => {
  const t = await chain(["base", "top"], 2 * MiB);
  const job = await startStream(t.services, { device: "vda", jobId: "s0", speed: 512 * KiB });
  await t.clock.advance(1);
  expect(job.progress.current).toBe(512 * KiB);
  await verbs.cancel(job, true);
  await t.clock.runUntil(job.finished);
});

it("fails by a copy that fails while the rest of the disk is looked at", async () => {
  const t = await chain(["base", "top"], MiB);
  // Nothing else is to be copied: when the last look is over, nothing is under way any more.
  await t.disk.write(new Uint8Array(512 * KiB).fill(9), 512 * KiB);
  const before = await t.content();
  t.faulty.fault = { op: "read", errno: "EIO" };
  t.faulty.hear = async () => {
    const [job] = t.services.jobs.all();
    while (job && job.progress.current < 448 * KiB) await t.clock.yield();
  };
  const job = await t.stream({ device: "vda", jobId: "s0" });
  expect(job.error?.errno).toBe("EIO");
  t.faulty.fault = null;
  t.faulty.hear = null;
  expect(t.layers()).toEqual(["top", "base"]);
  expect(hash(await t.content())).toBe(hash(before));
});

it("owes what it has sent to a speed that is set while it stands still", async () => {
  const t = await chain(["base", "top"], 512 * KiB);
  t.faulty.fault = { op: "read", errno: "EIO" };
  const options = { device: "vda", jobId: "s0", speed: MiB, onError: "stop" } as const;
  const job = await startStream(t.services, options);
  t.faulty.hear = () => job.setSpeed(0);
  await t.clock.advance(10);
  expect([job.status, job.speed]).toEqual(["paused", 0]);
  t.faulty.fault = null;
  t.faulty.hear = null;
  job.setSpeed(KiB);
  await verbs.resume(job);
  await t.clock.advance(900);
  expect(job.progress.current).toBe(0);
  job.setSpeed(0);
  await t.clock.runUntil(job.finished);
  expect(job.error).toBeNull();
});
