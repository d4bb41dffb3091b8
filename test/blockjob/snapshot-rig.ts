/** Disks of real formats in memory, a job list, and a story of what happened. */

import { KiB, MiB } from "../../src/base/bytes.ts";
import { VirtualClock } from "../../src/base/virtual-clock.ts";
import type { BlockBackend } from "../../src/block/backend.ts";
import { Graph } from "../../src/block/graph.ts";
import type { BlockdevOptions } from "../../src/block/options.ts";
import { Perm } from "../../src/block/permissions.ts";
import type { BlockJobServices } from "../../src/blockjob/block-job.ts";
import { startCreate } from "../../src/blockjob/create.ts";
import { copyOnRead } from "../../src/drivers/filter/copy-on-read.ts";
import { qcow2Driver } from "../../src/drivers/format/qcow2/index.ts";
import { rawDriver } from "../../src/drivers/format/raw.ts";
import { memoryDriver } from "../../src/drivers/protocol/memory.ts";
import type { Job } from "../../src/job/job.ts";
import { JobList } from "../../src/job/list.ts";
import { testWorld } from "../world.ts";
import { faultyDriver } from "./faulty.ts";

export async function lab() {
  const clock = new VirtualClock();
  const world = await testWorld({ clock });
  /** The store of the disk "bad". */
  const faulty = faultyDriver("faulty");
  const drivers = [memoryDriver(), rawDriver(), qcow2Driver(), copyOnRead, faulty];
  const graph = new Graph(world, drivers as never);
  const told: string[] = [];
  const bugs: unknown[] = [];
  const jobs = new JobList({
    onStatus: ({ status }) => void told.push(status),
    onBug: (bug) => void bugs.push(bug),
  });
  const services: BlockJobServices = {
    graph,
    jobs,
    clock,
    emit: ({ event }) => void told.push(event),
  };

  /** A disk of 1 MiB with clusters of 4 KiB, full of `fill`, and a device of the same name on it. */
  async function disk(
    name: string,
    fill: number,
    more: object = {},
    store: BlockdevOptions = { driver: "memory", size: 0 },
  ): Promise<BlockBackend> {
    await graph.add({ ...store, "node-name": `${name}-file` });
    const options = { driver: "qcow2", file: `${name}-file`, size: MiB, "cluster-size": 4 * KiB };
    const job = startCreate(services, { jobId: "make", options: { ...options, ...more } });
    await clock.runUntil(job.finished);
    job.dismiss();
    told.length = 0;
    await graph.add({ driver: "qcow2", "node-name": name, file: `${name}-file` });
    const device = open(name, `dev-${name}`);
    await device.write(new Uint8Array(MiB).fill(fill), 0);
    return device;
  }

  function open(node: string, name: string): BlockBackend {
    return graph.openBackend(graph.get(node), {
      name,
      description: `device '${name}'`,
      permissions: { take: Perm.consistentRead | Perm.write, share: Perm.all },
    });
  }

  return {
    clock,
    graph,
    jobs,
    services,
    faulty,
    bugs,
    disk,
    open,
    story: () => told.splice(0).join(" "),
    tags: (node: string) =>
      graph
        .get(node)
        .state.snapshots!.list()
        .map(({ name }) => name),
    /** The byte that the whole disk is made of, or -1. */
    async fill(device: BlockBackend): Promise<number> {
      const bytes = new Uint8Array(device.length);
      await device.read(bytes, 0);
      return bytes.every((byte) => byte === bytes[0]) ? bytes[0]! : -1;
    },
    async ended(job: Job): Promise<Job> {
      await clock.runUntil(job.finished);
      return job;
    },
  };
}
