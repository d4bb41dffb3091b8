/** A job on real nodes, drained: a drain is a pause that counts, and ends with its work done. */

import { expect, it } from "vitest";
import { sleep } from "../../src/base/clock.ts";
import { BlockError } from "../../src/base/errors.ts";
import { Perm } from "../../src/block/permissions.ts";
import { BlockJob } from "../../src/blockjob/block-job.ts";
import { startStream } from "../../src/blockjob/stream.ts";
import type { JobDriver } from "../../src/job/driver.ts";
import type { Job } from "../../src/job/job.ts";
import { verbs } from "../../src/job/verbs.ts";
import { chain } from "./rig.ts";

const SIZE = 256 * 1024;
const ANYTHING = { take: 0, share: Perm.all };

it("#5 two jobs work on one node, under different ids, and see their own drains alone", async () => {
  const { rig, job: first } = await copying();
  const second = make(rig, { run: requests(5) }, "second");
  second.addNode(rig.graph.get("top"), ANYTHING);
  second.start();
  await rig.clock.advance(5);
  const section = await rig.clock.runUntil(rig.graph.drain([rig.graph.get("target")]));
  expect([first.pauseCount, second.pauseCount]).toEqual([1, 0]);
  section.end();
  const both = await rig.clock.runUntil(rig.graph.drain([rig.graph.get("top")]));
  expect([first.pauseCount, second.pauseCount]).toEqual([1, 1]);
  both.end();
  await rig.clock.runUntil(Promise.all([first.finished, second.finished]));
  expect([first.error, second.error]).toEqual([null, null]);
});

for (const [what, names, count] of [
  ["source", ["top"], 1],
  ["target", ["target"], 1],
  ["both", ["top", "target"], 2],
] as const) {
  it(`#17 draining its ${what} pauses a busy job ${count === 1 ? "once" : "twice"}`, async () => {
    const { rig, job } = await copying();
    const { graph, clock } = rig;
    await clock.advance(5);
    expect([job.busy, job.pauseCount]).toEqual([true, 0]);
    const section = await clock.runUntil(graph.drain(names.map((name) => graph.get(name))));
    expect([job.status, job.busy, job.pauseCount]).toEqual(["paused", false, count]);
    const done = job.progress.current;
    await clock.advance(1000);
    expect(job.progress.current).toBe(done);
    section.end();
    expect([job.status, job.busy, job.pauseCount]).toEqual(["running", true, 0]);
    await clock.runUntil(job.finished);
    expect([job.error, rig.bugs]).toEqual([null, []]);
  });
}

for (const where of ["run", "prepare", "nowhere"] as const) {
  it(`#18 drains in its own endings do not hang, failing ${where}`, async () => {
    const fail = (at: string) => {
      if (where === at) throw new BlockError("EIO", "Input/output error");
    };
    const rig = await chain(["base", "top"], SIZE);
    const nodes = () => ["base", "top"].map((name) => rig.graph.get(name));
    const drain = async () => (await rig.graph.drain(nodes())).end();
    const calls: string[] = [];
    const end = (name: string) => async (job: Job) => {
      calls.push(name);
      await drain();
      if (name === "clean") await (job as BlockJob).releaseNodes();
      fail(name);
    };
    const job = make(rig, {
      run: async (self) => {
        await requests(2)(self);
        fail("run");
      },
      prepare: end("prepare"),
      commit: end("commit"),
      abort: end("abort"),
      clean: end("clean"),
    });
    for (const node of nodes()) job.addNode(node, ANYTHING);
    job.start();
    // Somebody else drains at the same time, all the while.
    const others = Promise.all(Array.from({ length: 20 }, () => drain()));
    await rig.clock.runUntil(Promise.all([job.finished, others]));
    expect(job.error?.errno ?? null).toBe(where === "nowhere" ? null : "EIO");
    const endings = { run: "abort clean", prepare: "prepare abort clean" };
    expect(calls.join(" ")).toBe(where === "nowhere" ? "prepare commit clean" : endings[where]);
    expect(rig.bugs).toEqual([]);
  });
}

it("#19 a drain's end does not end the user's pause", async () => {
  const { rig, job } = await copying();
  await rig.clock.advance(5);
  await verbs.pause(job);
  const section = await rig.clock.runUntil(rig.graph.drain([rig.graph.get("top")]));
  expect(job.pauseCount).toBe(2);
  section.end();
  await rig.clock.advance(1000);
  expect([job.status, job.pauseCount]).toEqual(["paused", 1]);
  await verbs.resume(job);
  await rig.clock.runUntil(job.finished);
  expect(job.error).toBe(null);
});

it("#13 paused for half a second moves no byte; resumed, the image is whole", async () => {
  const rig = await chain(["base", "mid", "top"], SIZE * 8);
  const before = await rig.content();
  const job = await startStream(rig.services, { device: "vda", speed: SIZE * 4 });
  await rig.clock.advance(600);
  await verbs.pause(job);
  await rig.clock.advance(0);
  const { offset } = job.info();
  expect(offset).toBeGreaterThan(0);
  await rig.clock.advance(500);
  expect([job.status, job.info().offset]).toEqual(["paused", offset]);
  await verbs.resume(job);
  await rig.clock.runUntil(job.finished);
  expect(job.error).toBe(null);
  expect(rig.layers()).toEqual(["top"]);
  expect(before.equals(await rig.content())).toBe(true);
});

type Rig = Awaited<ReturnType<typeof chain>>;

/** A job that holds top and target, sends five requests of 10 ms, and is started. */
async function copying(): Promise<{ rig: Rig; job: BlockJob }> {
  const rig = await chain(["base", "top"], SIZE);
  await rig.graph.add({ driver: "memory", "node-name": "target", size: SIZE });
  const job = make(rig, { run: requests(5) });
  for (const name of ["top", "target"]) job.addNode(rig.graph.get(name), ANYTHING);
  job.start();
  return { rig, job };
}

function make({ services }: Rig, driver: Partial<JobDriver>, id = "job"): BlockJob {
  return new BlockJob(services, {
    id,
    onError: "report",
    driver: {
      type: "test",
      run: async () => {},
      clean: (job) => (job as BlockJob).releaseNodes(),
      ...driver,
    },
  });
}

/** Requests that take 10 ms each, with a pause point between any two. */
function requests(count: number): JobDriver["run"] {
  return async (job) => {
    for (let i = 0; i < count && !job.cancelled; i++) {
      await sleep(job.clock, 10);
      job.progress.workDone(1);
      await job.pausePoint();
    }
  };
}
