/** Disks of several kinds whose stores can be stopped and broken, backups of them, and the story. */

import { expect } from "vitest";
import { KiB } from "../../src/base/bytes.ts";
import { BlockError, type Errno } from "../../src/base/errors.ts";
import { seededRandom } from "../../src/base/random.ts";
import { VirtualClock } from "../../src/base/virtual-clock.ts";
import type { BlockBackend } from "../../src/block/backend.ts";
import type { BlockDriver, BlockState, RequestOptions } from "../../src/block/driver.ts";
import { Graph } from "../../src/block/graph.ts";
import type { BlockNode } from "../../src/block/node.ts";
import type { BlockdevOptions } from "../../src/block/options.ts";
import { Perm } from "../../src/block/permissions.ts";
import { type BackupOptions, createBackup, startBackup } from "../../src/blockjob/backup.ts";
import type { BlockJob, BlockJobServices } from "../../src/blockjob/block-job.ts";
import { browserDrivers } from "../../src/drivers/index.ts";
import { MemoryState, MemoryStore } from "../../src/drivers/protocol/memory.ts";
import { JobList } from "../../src/job/list.ts";
import { JobTxn } from "../../src/job/txn.ts";
import { tinyFormat } from "../block/tiny-format.ts";
import { testWorld } from "../world.ts";

export type StoreOp = "read" | "write" | "zero" | "discard" | "flush";
/** Called before each request of a store; may wait, and may throw what the request is to fail with. */
export type StoreHook = (
  op: StoreOp,
  offset: number,
  bytes: number,
  signal: AbortSignal | undefined,
) => Promise<void> | void;

export interface DiskOptions {
  readonly size: number;
  /** What is in it: nothing, or a pattern of this seed, or one value everywhere. */
  readonly seed?: number;
  readonly fill?: number;
  /** "store" has no clusters. Default tiny. */
  readonly driver?: "tiny" | "qcow2" | "store";
  readonly clusterSize?: number;
  readonly backing?: string;
  readonly readOnly?: boolean;
}

export type Rig = Awaited<ReturnType<typeof backupRig>>;

export async function backupRig() {
  const clock = new VirtualClock();
  const world = await testWorld({ clock });
  const hooks = new Map<string, StoreHook>();
  const store = storeDriver(hooks);
  const drivers = [...browserDrivers(new Map()), tinyFormat as BlockDriver, store];
  const graph = new Graph(world, drivers);
  const told: string[] = [];
  const bugs: unknown[] = [];
  let inGroup = false;
  const jobs = new JobList({
    onStatus: ({ id, status }) => void told.push(inGroup ? `${id}:${status}` : status),
    onBug: (bug) => void bugs.push(bug),
  });
  const services: BlockJobServices = {
    graph,
    jobs,
    clock,
    emit({ event, data }) {
      const { device, error, operation, action } = data as Record<string, string>;
      const name = event.replace("BLOCK_JOB_", "");
      const more = operation ? `(${operation},${action})` : error ? `(${error})` : "";
      told.push(`${inGroup ? `${device}:` : ""}${name}${more}`);
    },
  };

  const t = {
    clock,
    world,
    graph,
    services,
    jobs,
    bugs,
    /** What happened since the last call; after group() all of it has the job's id. */
    story: () => told.splice(0).join(" "),

    /** A disk as node `name`; its store is node `<name>-store`, or itself. */
    async disk(name: string, options: DiskOptions): Promise<BlockNode> {
      const { size, clusterSize = 64 * KiB, driver = "tiny" } = options;
      const storeName = driver === "store" ? name : `${name}-store`;
      await graph.add({
        driver: "store",
        "node-name": storeName,
        size: driver === "store" ? size : 0,
      });
      if (driver === "qcow2") {
        const file = open(storeName, Perm.all);
        await graph.driver("qcow2").create!({
          world,
          file: file.edge,
          options: { size, "cluster-size": clusterSize } as never,
        });
        await graph.closeBackend(file);
      }
      if (driver !== "store") {
        await graph.add({
          driver,
          "node-name": name,
          file: storeName,
          ...(driver === "tiny" && { size, "cluster-size": clusterSize }),
          ...(options.backing !== undefined && { backing: options.backing }),
        } as BlockdevOptions);
      }
      if (options.seed !== undefined) await t.write(name, pattern(size, options.seed));
      if (options.fill !== undefined) await t.write(name, new Uint8Array(size).fill(options.fill));
      return graph.get(name);
    },

    /** What a guest has of a disk. */
    device(node: string, name = "vda"): BlockBackend {
      return graph.openBackend(graph.get(node), {
        name,
        description: `device '${name}'`,
        permissions: { take: Perm.consistentRead | Perm.write, share: Perm.all },
      });
    },

    /** Before each request of a store; null: nothing any more. */
    hook(node: string, hook: StoreHook | null): void {
      const name = graph.find(`${node}-store`) ? `${node}-store` : node;
      if (hook) hooks.set(name, hook);
      else hooks.delete(name);
    },

    /** Fails requests, all or those that touch a byte. */
    fault(node: string, op: StoreOp, errno: Errno, at?: number): void {
      t.hook(node, (what, offset, bytes) => {
        const isMeant = at === undefined || (offset <= at && at < offset + bytes);
        if (what === op && isMeant) throw new BlockError(errno, `Injected ${op} error`);
      });
    },

    /** Reads although the node is drained, as a job would. */
    async readDrained(node: string): Promise<Buffer> {
      const backend = graph.openBackend(graph.get(node), {
        name: "",
        description: "the test",
        permissions: { take: Perm.consistentRead, share: Perm.all },
        onDrain: { begin() {}, isQuiet: () => true, end() {} },
      });
      const buf = Buffer.alloc(backend.length);
      await backend.read(buf, 0);
      await graph.closeBackend(backend);
      return buf;
    },

    async write(node: string, data: Uint8Array, offset = 0): Promise<void> {
      const backend = open(node, Perm.write);
      await clock.runUntil(backend.write(data, offset));
      await graph.closeBackend(backend);
    },

    async read(node: string): Promise<Buffer> {
      const backend = open(node, Perm.consistentRead);
      const buf = Buffer.alloc(backend.length);
      await clock.runUntil(backend.read(buf, 0));
      await graph.closeBackend(backend);
      return buf;
    },

    /** Started, with all that takes no time done. */
    async start(options: Partial<BackupOptions> = {}): Promise<BlockJob> {
      return clock.runUntil(startBackup(services, backup(options)));
    },

    /** From start to end. */
    async backup(options: Partial<BackupOptions> = {}): Promise<BlockJob> {
      const job = await t.start(options);
      await clock.runUntil(job.finished);
      return job;
    },

    /** Several as one group, all at one moment. */
    async group(all: readonly Partial<BackupOptions>[]): Promise<BlockJob[]> {
      inGroup = true;
      const txn = new JobTxn();
      const sources = all.map(({ device }) => graph.getDeviceOrNode(device ?? "vda"));
      const section = await clock.runUntil(graph.drain(sources));
      const created = [];
      for (const one of all) {
        created.push(await clock.runUntil(createBackup(services, backup(one), txn)));
      }
      for (const { start } of created) await clock.runUntil(start());
      section.end();
      return created.map(({ job }) => job);
    },

    async end(...ended: BlockJob[]): Promise<void> {
      await clock.runUntil(Promise.all(ended.map((job) => job.finished)));
    },

    filters: () => graph.nodes.filter(({ driver }) => driver.kind === "filter"),

    /** Nothing of any job is left. */
    expectClean(): void {
      expect(bugs).toEqual([]);
      expect(t.filters().map(({ name }) => name)).toEqual([]);
      for (const node of graph.nodes) {
        expect([...node.blockers], node.name).toEqual([]);
        for (const bitmap of node.bitmaps.all()) expect(bitmap.busy).toBe(false);
      }
    },
  };

  function open(node: string, take: number): BlockBackend {
    return graph.openBackend(graph.get(node), {
      name: "",
      description: "the test",
      permissions: { take, share: Perm.all },
    });
  }

  return t;
}

export function backup(options: Partial<BackupOptions>): BackupOptions {
  return { device: "vda", jobId: "b0", target: "target", sync: "full", ...options };
}

/** Comes again after a prime number of bytes: on no two clusters alike. */
const NOISE = new Uint8Array(65_521);
seededRandom(1).fill(NOISE);
for (let i = 0; i < NOISE.length; i++) NOISE[i]! |= 1;

/** Not the same anywhere, and never zero. */
export function pattern(bytes: number, seed: number): Uint8Array {
  const buf = new Uint8Array(bytes);
  let from = (seed * 7919) % NOISE.length;
  for (let at = 0; at < bytes; from = 0) {
    const piece = NOISE.subarray(from, from + bytes - at);
    buf.set(piece, at);
    at += piece.length;
  }
  return buf;
}

function storeDriver(hooks: ReadonlyMap<string, StoreHook>): BlockDriver {
  const driver: BlockDriver<{ size?: number }> = {
    ...(browserDrivers(new Map()).find(({ name }) => name === "memory") as object as BlockDriver),
    name: "store",
    async open({ options, nodeName, readOnly }): Promise<BlockState> {
      const state = new MemoryState(new MemoryStore(options.size ?? 0), readOnly);
      const first = (op: StoreOp, offset: number, bytes: number, request?: RequestOptions) =>
        hooks.get(nodeName)?.(op, offset, bytes, request?.signal);
      return {
        limits: state.limits,
        getLength: () => state.getLength(),
        storeStatus: (offset, bytes) => state.storeStatus(offset, bytes),
        async pread(buf, offset, request) {
          await first("read", offset, buf.length, request);
          await state.pread(buf, offset, request);
        },
        async pwrite(buf, offset, request) {
          await first("write", offset, buf.length, request);
          await state.pwrite(buf, offset, request);
        },
        async pwriteZeroes(offset, bytes, request) {
          await first("zero", offset, bytes, request);
          await state.pwriteZeroes(offset, bytes, request);
        },
        async pdiscard(offset, bytes, request) {
          await first("discard", offset, bytes, request);
          await state.pdiscard(offset, bytes, request);
        },
        async flush() {
          await first("flush", 0, 0);
        },
        truncate: (length) => state.truncate(length),
        reopen: (wanted) => state.reopen(wanted),
        close: () => state.close(),
      };
    },
  };
  return driver as BlockDriver;
}
