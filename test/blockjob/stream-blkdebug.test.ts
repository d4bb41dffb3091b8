/**
 * block-stream over blkdebug: QEMU's own way to make a store fail, and to stop a job in the middle of
 * a request. What faulty.ts does by a switch, these do by the options of a node.
 */

import { expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { VirtualClock } from "../../src/base/virtual-clock.ts";
import { breakpoint, isSuspended, resume, waitBreak } from "../../src/block/debug.ts";
import { Graph } from "../../src/block/graph.ts";
import { Perm } from "../../src/block/permissions.ts";
import { chainOf } from "../../src/block/status.ts";
import { startStream } from "../../src/blockjob/stream.ts";
import { blkdebug } from "../../src/drivers/filter/blkdebug.ts";
import { copyOnRead } from "../../src/drivers/filter/copy-on-read.ts";
import { memoryDriver } from "../../src/drivers/protocol/memory.ts";
import { JobList } from "../../src/job/list.ts";
import { verbs } from "../../src/job/verbs.ts";
import { tinyFormat } from "../block/tiny-format.ts";
import { testWorld } from "../world.ts";
import { chain } from "./rig.ts";

const SIZE = 2 * MiB;

/** base ◀── top, device vda; the base's store is a blkdebug node with these options. */
async function debuggedChain(options: object) {
  const clock = new VirtualClock();
  const graph = new Graph(await testWorld({ clock }), [
    memoryDriver(),
    tinyFormat,
    copyOnRead,
    blkdebug,
  ]);
  const told: string[] = [];
  const jobs = new JobList({
    onStatus: ({ status }) => void told.push(status),
    onBug: (bug) => {
      throw bug;
    },
  });
  const emit = ({ event, data }: { event: string; data: object }) => {
    const { error, operation, action } = data as Record<string, string>;
    const name = event.replace("BLOCK_JOB_", "");
    told.push(operation ? `${name}(${operation},${action})` : error ? `${name}(${error})` : name);
  };
  const services = { graph, jobs, clock, emit };
  const tiny = { driver: "tiny", size: SIZE, "cluster-size": 64 * KiB };
  const image = { driver: "memory", size: 0 };
  const base = await graph.add({
    ...tiny,
    "node-name": "base",
    file: { driver: "blkdebug", "node-name": "debug", image, ...options },
  });
  const device = (name: string, node: string) =>
    graph.openBackend(graph.get(node), {
      name,
      description: `device '${name}'`,
      permissions: { take: Perm.consistentRead | Perm.write, share: Perm.all },
    });
  const filler = device("filler", "base");
  await filler.write(new Uint8Array(SIZE).fill(1), 0);
  await graph.closeBackend(filler);
  const file = { driver: "memory", size: 0 };
  await graph.add({ ...tiny, "node-name": "top", file, backing: "base" });
  const disk = device("vda", "top");
  return { clock, graph, services, disk, base, told };
}

it("an error at a sector fails the job as the switch of faulty.ts does", async () => {
  const rule = { event: "read_aio", sector: MiB / 512, iotype: "read", errno: 5 };
  const t = await debuggedChain({ "inject-error": [rule] });
  const job = await startStream(t.services, { device: "vda", jobId: "s0", onError: "report" });
  await t.clock.runUntil(job.finished);

  const f = await chain(["base", "top"], SIZE);
  f.faulty.fault = { op: "read", errno: "EIO", offset: MiB };
  const other = await f.stream({ device: "vda", jobId: "s0", onError: "report" });

  const story = (text: string) => text.replace(/Injected .*?(?=\) )/, "…");
  expect(story(t.told.join(" "))).toBe(story(f.story()));
  expect(job.error?.errno).toBe(other.error?.errno);
  expect(job.progress.current).toBe(other.progress.current);
  expect(chainOf(t.disk.node).map((node) => node.name)).toEqual(f.layers());
});

it("an error that comes once is got over by a resume", async () => {
  const rule = { event: "read_aio", errno: 28, once: true };
  const t = await debuggedChain({ "inject-error": [rule] });
  const job = await startStream(t.services, { device: "vda", jobId: "s0", onError: "stop" });
  await t.clock.advance(1000);
  expect([job.status, job.ioStatus]).toEqual(["paused", "nospace"]);
  await verbs.resume(job);
  await t.clock.runUntil(job.finished);
  expect(job.error).toBe(null);
  expect(chainOf(t.disk.node).map((node) => node.name)).toEqual(["top"]);
});

it("a request that is stopped holds a pause and a drain, and nothing of it is lost", async () => {
  const t = await debuggedChain({});
  breakpoint(t.base, "read_aio", "A");
  const job = await startStream(t.services, { device: "vda", jobId: "s0" });
  await t.clock.runUntil(waitBreak(t.base, "A"));
  await verbs.pause(job);
  await t.clock.advance(1000);
  expect(job.status).toBe("running"); // Parked only when its request is over.
  const drained = t.graph.drained([t.base], () => isSuspended(t.base, "A"));
  await t.clock.advance(1000);
  resume(t.base, "A");
  expect(await t.clock.runUntil(drained)).toBe(false);
  await t.clock.advance(1000);
  expect(job.status).toBe("paused");
  await verbs.resume(job);
  await t.clock.runUntil(job.finished);
  const content = new Uint8Array(SIZE);
  await t.disk.read(content, 0);
  expect(content.every((byte) => byte === 1)).toBe(true);
});
