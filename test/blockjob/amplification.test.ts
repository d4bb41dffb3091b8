/**
 * 384 KiB that claim to be half a TiB: looked at in no time, read where somebody wants, and no job
 * begins to copy it. See docs/hostile.md.
 */

import { describe, expect, it } from "vitest";
import { GiB, MiB } from "../../src/base/bytes.ts";
import { VirtualClock } from "../../src/base/virtual-clock.ts";
import { Graph } from "../../src/block/graph.ts";
import { Perm } from "../../src/block/permissions.ts";
import { startBackup } from "../../src/blockjob/backup.ts";
import type { BlockJobServices } from "../../src/blockjob/block-job.ts";
import { startCommit } from "../../src/blockjob/commit.ts";
import { startMirror } from "../../src/blockjob/mirror.ts";
import { startStream } from "../../src/blockjob/stream.ts";
import { copyOnRead } from "../../src/drivers/filter/copy-on-read.ts";
import { qcow2Driver } from "../../src/drivers/format/qcow2/index.ts";
import { memoryDriver } from "../../src/drivers/protocol/memory.ts";
import { nullDriver } from "../../src/drivers/protocol/null.ts";
import { JobList } from "../../src/job/list.ts";
import { LogStore, logStoreDriver } from "../drivers/format/log-store.ts";
import { testWorld } from "../world.ts";
import { bomb, CLUSTER, SIZE } from "./bomb.ts";

async function setUp(bytes: Uint8Array) {
  const clock = new VirtualClock();
  const world = await testWorld({ clock });
  const store = new LogStore(bytes);
  const drivers = [
    qcow2Driver(),
    memoryDriver(),
    nullDriver("null-co"),
    copyOnRead,
    logStoreDriver(store),
  ];
  const graph = new Graph(world, drivers as never);
  const bugs: unknown[] = [];
  const jobs = new JobList({ onStatus: () => {}, onBug: (bug) => void bugs.push(bug) });
  const services: BlockJobServices = { graph, jobs, clock, emit: () => {} };
  await graph.add({ driver: "memory", "node-name": "base", size: SIZE });
  await graph.add({
    driver: "qcow2",
    "node-name": "bomb",
    "read-only": true,
    backing: "base",
    file: { driver: "log-store" },
  });
  await graph.add({ driver: "null-co", "node-name": "target", size: SIZE });
  return { clock, graph, jobs, services, store, bugs };
}

describe("an image whose L1 entries share one L2 table", () => {
  it("opens, tells its sizes, maps, and is read, each with a few requests", async () => {
    const { graph, store } = await setUp(bomb());
    const node = graph.get("bomb");
    const backend = graph.openBackend(node, {
      name: "b",
      description: "a reader",
      permissions: { take: Perm.consistentRead, share: Perm.all },
    });
    expect(backend.length).toBe(SIZE);
    const run = await backend.status(SIZE - CLUSTER, CLUSTER);
    expect(run).toMatchObject({ bytes: CLUSTER, zero: false });
    const piece = new Uint8Array(CLUSTER);
    await backend.read(piece, SIZE - CLUSTER);
    expect(piece.every((byte) => byte === 7)).toBe(true);
    expect(store.largestRead).toBeLessThanOrEqual(CLUSTER);
    expect(store.changes).toBe(0);
  });

  const copies: readonly [string, (services: BlockJobServices) => Promise<unknown>][] = [
    [
      "backup",
      (services) =>
        startBackup(services, { jobId: "j", device: "bomb", target: "target", sync: "full" }),
    ],
    [
      "backup from above",
      (services) =>
        startBackup(services, { jobId: "j", device: "top", target: "target", sync: "full" }),
    ],
    [
      "mirror",
      (services) =>
        startMirror(services, { jobId: "j", device: "bomb", target: "target", sync: "full" }),
    ],
    ["stream", (services) => startStream(services, { jobId: "j", device: "top" })],
    [
      "commit",
      (services) =>
        startCommit(services, { jobId: "j", device: "top", topNode: "bomb", baseNode: "base" }),
    ],
    [
      "commit of the active layer",
      (services) => startCommit(services, { jobId: "j", device: "bomb" }),
    ],
  ];
  it.each(copies)("is not what a job copies: %s", async (name, start) => {
    const { graph, jobs, services, store } = await setUp(bomb());
    if (/stream|above|commit$/.test(name)) await addOverlay(graph);
    const before = graph.nodes.map((node) => node.name);
    await expect(start(services)).rejects.toThrow(
      /not to be believed: its L1 table leads to 1024 L2 tables.* 549755813888 bytes/,
    );
    expect(jobs.all()).toEqual([]);
    expect(graph.nodes.map((node) => node.name)).toEqual(before);
    expect(store.changes).toBe(0);
  });

  it("with room for its tables is copied, and the copy can be stopped at any time", async () => {
    const { clock, services, bugs } = await setUp(bomb(4, 4));
    const source = { device: "bomb", sync: "full", speed: 4 * MiB } as const;
    const job = await startBackup(services, { jobId: "j", target: "target", ...source });
    await clock.advance(1000);
    expect(job.progress.total).toBeGreaterThan(GiB);
    job.cancel(false);
    await clock.runUntil(job.finished);
    expect(job.progress.current).toBeLessThan(GiB);
    expect(bugs).toEqual([]);
  });

  async function addOverlay(graph: Graph): Promise<void> {
    await graph.add({ driver: "memory", "node-name": "file", size: 0 });
    const file = graph.openBackend(graph.get("file"), {
      name: "f",
      description: "the maker",
      permissions: { take: Perm.all, share: Perm.all },
    });
    const options = { size: SIZE };
    await qcow2Driver().create!({ world: graph.world, file: file.edge, options });
    await graph.closeBackend(file);
    await graph.add({ driver: "qcow2", "node-name": "top", file: "file", backing: "bomb" });
  }
});
