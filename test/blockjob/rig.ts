/** A chain of tiny images, a job list, and a story of what happened: for tests of block jobs. */

import { createHash } from "node:crypto";
import { KiB } from "../../src/base/bytes.ts";
import { VirtualClock } from "../../src/base/virtual-clock.ts";
import type { BlockBackend } from "../../src/block/backend.ts";
import type { BlockDriver } from "../../src/block/driver.ts";
import { Graph } from "../../src/block/graph.ts";
import { Perm } from "../../src/block/permissions.ts";
import { chainOf } from "../../src/block/status.ts";
import type { BlockJobServices } from "../../src/blockjob/block-job.ts";
import { type CommitOptions, startCommit } from "../../src/blockjob/commit.ts";
import { type StreamOptions, startStream } from "../../src/blockjob/stream.ts";
import { copyOnRead } from "../../src/drivers/filter/copy-on-read.ts";
import { memoryDriver } from "../../src/drivers/protocol/memory.ts";
import { JobList } from "../../src/job/list.ts";
import { tinyFormat } from "../block/tiny-format.ts";
import { testWorld } from "../world.ts";
import { faultyDriver } from "./faulty.ts";

export const hash = (buf: Buffer) => createHash("sha256").update(buf).digest("hex");

/** A filter without a difference. */
const pass: BlockDriver = {
  name: "pass",
  kind: "filter",
  roles: { file: true },
  openOptions: {},
  open: async ({ children }) => ({ limits: children.file!.node.state.limits }),
};

export interface ChainOptions {
  /** The top's header cannot be written. */
  readonly sealed?: boolean;
  /** Of layers that are not `size` bytes long. */
  readonly sizes?: Readonly<Record<string, number>>;
  /** Cluster sizes other than 64 KiB. */
  readonly clusters?: Readonly<Record<string, number>>;
  /** Of layers whose stores are neither `memory` nor, for base and top, faulty ones. */
  readonly stores?: Readonly<Record<string, string>>;
}

/** A chain of tiny images, base first, every one with data of its own; the top is device vda. */
export async function chain(names: string[], size: number, more: ChainOptions = {}) {
  const clock = new VirtualClock();
  const world = await testWorld({ clock });
  const faulty = faultyDriver("faulty");
  const midStore = faultyDriver("faulty-mid");
  const topStore = faultyDriver("faulty-top");
  const drivers = [memoryDriver(), tinyFormat, copyOnRead, pass, faulty, midStore, topStore];
  const graph = new Graph(world, drivers);
  const told: string[] = [];
  const bugs: unknown[] = [];
  /** Called with every event of a job, in the same turn. */
  const hooks: { onEvent?: (name: string) => void } = {};
  const jobs = new JobList({
    onStatus: ({ status }) => void told.push(status),
    onBug: (bug) => void bugs.push(bug),
  });
  const services: BlockJobServices = {
    graph,
    jobs,
    clock,
    emit({ event, data }) {
      const { error, operation, action } = data as Record<string, string>;
      const name = event.replace("BLOCK_JOB_", "");
      if (operation) told.push(`${name}(${operation},${action})`);
      else told.push(error ? `${name}(${error})` : name);
      hooks.onEvent?.(event);
    },
  };

  let below: string | undefined;
  for (const [i, name] of names.entries()) {
    const isTop = i === names.length - 1;
    const usual = i === 0 ? "faulty" : isTop ? "faulty-top" : "memory";
    const driver = more.stores?.[name] ?? usual;
    const node = await graph.add({
      driver: "tiny",
      "node-name": name,
      file: { driver, size: 0 },
      size: more.sizes?.[name] ?? size,
      "cluster-size": more.clusters?.[name] ?? 64 * KiB,
      ...(isTop && more.sealed && { sealed: true }),
      ...(below !== undefined && { backing: below }),
    });
    if (!isTop) await fill(node.name, i + 1);
    below = name;
  }
  const disk = open("top", "vda");

  function open(node: string, name: string): BlockBackend {
    return graph.openBackend(graph.get(node), {
      name,
      description: `device '${name}'`,
      permissions: { take: Perm.consistentRead | Perm.write, share: Perm.all },
    });
  }

  /** The lowest layer is data everywhere; those above it have every third cluster. */
  async function fill(node: string, value: number): Promise<void> {
    const device = open(node, "filler");
    for (let at = 0; at < device.length; at += 64 * KiB) {
      const mine = value === 1 || (at / (64 * KiB)) % 3 === value % 3;
      if (mine) await device.write(new Uint8Array(64 * KiB).fill(value), at);
    }
    await graph.closeBackend(device);
  }

  return {
    clock,
    graph,
    services,
    disk,
    faulty,
    midStore,
    topStore,
    open,
    bugs,
    hooks,
    story: () => told.splice(0).join(" "),
    layers: () => chainOf(disk.node).map((node) => node.name),
    async content(): Promise<Buffer> {
      const buf = Buffer.alloc(disk.length);
      await disk.read(buf, 0);
      return buf;
    },
    async write(node: string, value: number): Promise<void> {
      const device = open(node, "writer");
      await device.write(new Uint8Array(size).fill(value), 0);
      await graph.closeBackend(device);
    },
    /** What a node reads as. */
    async read(node: string): Promise<Buffer> {
      const device = open(node, "reader");
      const buf = Buffer.alloc(device.length);
      await device.read(buf, 0);
      await graph.closeBackend(device);
      return buf;
    },
    async commit(options: CommitOptions) {
      const job = await startCommit(services, options);
      await clock.runUntil(job.finished);
      return job;
    },
    async stream(options: StreamOptions) {
      const job = await startStream(services, options);
      await clock.runUntil(job.finished);
      return job;
    },
  };
}
