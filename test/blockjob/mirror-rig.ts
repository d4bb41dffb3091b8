/**
 * Two disks, a device on one of them, and a story of what happened: for tests of mirror jobs. The
 * stores are memory with handles to hold requests up, to make them take time, and to break them.
 */

import { BlockError, type Errno } from "../../src/base/errors.ts";
import type { Random } from "../../src/base/random.ts";
import { VirtualClock } from "../../src/base/virtual-clock.ts";
import type { BlockBackend } from "../../src/block/backend.ts";
import type { BlockDriver, BlockState, OpenContext } from "../../src/block/driver.ts";
import { Graph } from "../../src/block/graph.ts";
import * as io from "../../src/block/io.ts";
import type { BlockdevOptions } from "../../src/block/options.ts";
import { Perm } from "../../src/block/permissions.ts";
import { chainOf } from "../../src/block/status.ts";
import type { BlockJob, BlockJobServices } from "../../src/blockjob/block-job.ts";
import { type MirrorOptions, startMirror } from "../../src/blockjob/mirror.ts";
import { copyOnRead } from "../../src/drivers/filter/copy-on-read.ts";
import { throttle } from "../../src/drivers/filter/throttle.ts";
import { qcow2Driver } from "../../src/drivers/format/qcow2/index.ts";
import { rawDriver } from "../../src/drivers/format/raw.ts";
import { memoryDriver } from "../../src/drivers/protocol/memory.ts";
import { JobList } from "../../src/job/list.ts";
import { tinyFormat } from "../block/tiny-format.ts";
import { testWorld } from "../world.ts";

export type StoreOp = "read" | "write" | "flush";

export interface StoreFault {
  readonly op: StoreOp;
  readonly errno: Errno;
  /** Only requests that touch this byte; all if left out. */
  readonly offset?: number;
  /** So many requests fail; all if left out. */
  times?: number;
}

/** One kind of store; what is set here holds for all states of it. */
export class TestStore {
  fault: StoreFault | null = null;
  /** Every request takes so long, on the virtual clock. */
  delayMs: () => number = () => 0;
  /** Starts of requests: when, and how much. */
  readonly log: { op: StoreOp; atMs: number; offset: number; bytes: number }[] = [];
  readonly #held = new Map<StoreOp, Promise<void>>();
  /** How many requests stand at a held door. */
  waiting = 0;
  readonly #clock: VirtualClock;

  constructor(clock: VirtualClock) {
    this.#clock = clock;
  }

  /** Requests of a kind wait from now on. @returns lets them go */
  hold(op: StoreOp): () => void {
    let go!: () => void;
    this.#held.set(
      op,
      new Promise((resolve) => {
        go = () => {
          this.#held.delete(op);
          resolve();
        };
      }),
    );
    return go;
  }

  async pass(op: StoreOp, offset: number, bytes: number, signal?: AbortSignal): Promise<void> {
    this.log.push({ op, atMs: this.#clock.now(), offset, bytes });
    const held = this.#held.get(op);
    if (held) {
      this.waiting++;
      let stop = () => {};
      await new Promise<void>((resolve, reject) => {
        stop = () => reject(new BlockError("ECANCELED", "Operation canceled"));
        signal?.addEventListener("abort", stop);
        void held.then(resolve);
      }).finally(() => {
        this.waiting--;
        signal?.removeEventListener("abort", stop);
      });
    }
    const ms = this.delayMs();
    if (ms > 0) await new Promise<void>((resolve) => void this.#clock.setTimer(ms, resolve));
    const { fault } = this;
    if (fault?.op !== op) return;
    const at = fault.offset;
    if (at !== undefined && (at < offset || at >= offset + bytes)) return;
    if (fault.times !== undefined && fault.times-- <= 0) return;
    throw new BlockError(fault.errno, `Injected ${op} error`);
  }
}

function storeDriver(name: string, store: TestStore): BlockDriver {
  const memory = memoryDriver() as BlockDriver;
  return {
    ...memory,
    name,
    async open(context: OpenContext<never>): Promise<BlockState> {
      const state = await memory.open(context);
      return {
        limits: state.limits,
        getLength: () => state.getLength!(),
        async pread(buf, offset, options) {
          await store.pass("read", offset, buf.length, options.signal);
          return state.pread!(buf, offset, options);
        },
        async pwrite(buf, offset, options) {
          await store.pass("write", offset, buf.length, options.signal);
          return state.pwrite!(buf, offset, options);
        },
        async pwriteZeroes(offset, bytes, options) {
          await store.pass("write", offset, bytes, options.signal);
          return state.pwriteZeroes!(offset, bytes, options);
        },
        async pdiscard(offset, bytes, options) {
          await store.pass("write", offset, bytes, options.signal);
          return state.pdiscard!(offset, bytes, options);
        },
        storeStatus: (offset, bytes) => state.storeStatus!(offset, bytes),
        truncate: (length) => state.truncate!(length),
        reopen: (readOnly) => state.reopen!(readOnly),
        async flush() {
          await store.pass("flush", 0, 0);
          return state.flush!();
        },
        close: () => state.close!(),
      } as BlockState;
    },
  } as BlockDriver;
}

export interface MirrorRigOptions {
  /** Bytes of both disks. */
  readonly size: number;
  /** Nodes, deepest first; the last one, "top", has the device. Default: one store. */
  readonly source?: readonly BlockdevOptions[];
  /** The node "target". Default: one store. */
  readonly target?: BlockdevOptions;
  /** Makes images before the nodes are opened. */
  readonly images?: readonly (readonly [
    store: { readonly driver: string; readonly name: string },
    options: { readonly size: number; readonly [member: string]: unknown },
  ])[];
  readonly seed?: number;
}

export async function mirrorRig(options: MirrorRigOptions) {
  const { size } = options;
  const clock = new VirtualClock();
  const world = await testWorld({ clock, seed: options.seed ?? 1 });
  const sourceStore = new TestStore(clock);
  const targetStore = new TestStore(clock);
  const graph = new Graph(world, [
    memoryDriver(),
    storeDriver("source-store", sourceStore),
    storeDriver("target-store", targetStore),
    tinyFormat,
    qcow2Driver(),
    rawDriver(),
    copyOnRead,
    throttle,
  ] as BlockDriver[]);
  const told: string[] = [];
  const bugs: unknown[] = [];
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
  for (const [store, created] of options.images ?? []) {
    await newImage({ graph, clock }, store, created);
  }
  const nodes = options.source ?? [{ driver: "source-store", size }];
  for (const [i, node] of nodes.entries()) {
    const isTop = i === nodes.length - 1;
    await graph.add({ "node-name": isTop ? "top" : `n${i}`, ...node });
  }
  await graph.add({
    "node-name": "target",
    ...(options.target ?? { driver: "target-store", size }),
  });
  const disk = open("top", "vda");

  function open(node: string, name: string): BlockBackend {
    return graph.openBackend(graph.get(node), {
      name,
      description: `device '${name}'`,
      permissions: { take: Perm.consistentRead | Perm.write, share: Perm.all },
    });
  }

  async function bytesOf(backend: BlockBackend): Promise<Buffer> {
    const buf = Buffer.alloc(backend.length);
    await clock.runUntil(backend.read(buf, 0));
    return buf;
  }

  /** A start that is not waited for. */
  function begin(more: Partial<MirrorOptions> = {}): Promise<BlockJob> {
    const given = { jobId: "m0", device: "vda", target: "target", sync: "full", ...more } as const;
    return startMirror(services, given);
  }

  return {
    clock,
    graph,
    jobs,
    services,
    disk,
    sourceStore,
    targetStore,
    bugs,
    hooks,
    size,
    open,
    story: () => told.splice(0).join(" "),
    layers: () => chainOf(disk.node).map((node) => node.name),
    filters: () => graph.nodes.filter(({ driver }) => driver.name === "mirror_top"),
    content: () => bytesOf(disk),
    async contentOf(node: string): Promise<Buffer> {
      const backend = open(node, "reader");
      try {
        return await bytesOf(backend);
      } finally {
        await clock.runUntil(graph.closeBackend(backend));
      }
    },
    /** Bytes that tell where they belong: no two sectors are the same. */
    async fill(backend: BlockBackend, offset = 0, bytes = size - offset, salt = 1): Promise<void> {
      await clock.runUntil(backend.write(pattern(offset, bytes, salt), offset));
    },
    /** The same for a node that others may not read now. */
    async contentOfRaw(node: string): Promise<Buffer> {
      const buf = Buffer.alloc(size);
      await clock.runUntil(io.read(graph.get(node), buf, 0, {}));
      return buf;
    },
    begin,
    async start(more: Partial<MirrorOptions> = {}): Promise<BlockJob> {
      return clock.runUntil(begin(more));
    },
    /** Until the job is ready, or over. */
    async ready(job: BlockJob): Promise<void> {
      for (let i = 0; i < 100_000 && !job.ready && !job.completed; i++) await clock.advance(5);
    },
    async end(job: BlockJob): Promise<void> {
      await clock.runUntil(job.finished);
    },
  };
}

export type MirrorRig = Awaited<ReturnType<typeof mirrorRig>>;

/** Bytes that depend on where they are and on `salt`. */
export function pattern(offset: number, bytes: number, salt: number): Uint8Array {
  const buf = new Uint8Array(bytes);
  for (let i = 0; i < bytes; i++) {
    const at = offset + i;
    buf[i] = ((at % 251) + Math.floor(at / 512) * 7 + salt * 31) % 255 || 1;
  }
  return buf;
}

export function randomBytes(random: Random, bytes: number): Uint8Array {
  const buf = new Uint8Array(bytes);
  random.fill(buf);
  return buf;
}

/** Makes an empty qcow2 image in a named store of a driver of the rig. */
export async function newImage(
  t: Pick<MirrorRig, "graph" | "clock">,
  store: { readonly driver: string; readonly name: string },
  options: { readonly size: number; readonly [member: string]: unknown },
): Promise<void> {
  const { graph, clock } = t;
  const { world } = graph;
  await graph.driver(store.driver).create!({
    world,
    options: { name: store.name, size: 0 } as never,
  });
  const file = await graph.add({ ...store, "node-name": `new-${store.name}` });
  const backend = graph.openBackend(file, {
    name: "",
    description: "create",
    permissions: { take: Perm.all, share: Perm.all },
  });
  await clock.runUntil(
    graph.driver("qcow2").create!({ world, options: options as never, file: backend.edge }),
  );
  await clock.runUntil(graph.closeBackend(backend));
  await clock.runUntil(graph.remove(file.name));
}
