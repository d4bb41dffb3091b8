/**
 * Engines that are lost, one after another, on the same disks: each life ends amid some request, and the
 * next one finds what that has left. For tests of what outlives an engine.
 *
 *     disks, record ──▶ life ── ✂ ──▶ what is left ──▶ life ── ✂ ──▶ … ──▶ a life to the end
 *
 * A process that is killed leaves all that it has written; a power cut what was flushed, and any part of
 * the rest.
 */

import { KiB, MiB } from "../../src/base/bytes.ts";
import type { Random } from "../../src/base/random.ts";
import { VirtualClock } from "../../src/base/virtual-clock.ts";
import type { BlockBackend } from "../../src/block/backend.ts";
import type { BlockDriver, BlockState } from "../../src/block/driver.ts";
import { Graph } from "../../src/block/graph.ts";
import * as io from "../../src/block/io.ts";
import type { BlockdevOptions } from "../../src/block/options.ts";
import { Perm } from "../../src/block/permissions.ts";
import { WriteIntents } from "../../src/block/write-intents.ts";
import type { BlockJobServices } from "../../src/blockjob/block-job.ts";
import { browserDrivers } from "../../src/drivers/index.ts";
import { JobList } from "../../src/job/list.ts";
import { MemoryIntentStore } from "../block/intent-store.ts";
import { crashState } from "../crash/states.ts";
import { LogStore, logStoreDriver } from "../drivers/format/log-store.ts";
import { testWorld } from "../world.ts";

export const LIVES_SIZE = 5 * MiB + 100 * KiB;

/** What is there between two lives. */
export interface Left {
  readonly files: ReadonlyMap<string, Uint8Array>;
  readonly intents: string | null;
}

export type Life = Awaited<ReturnType<typeof live>>;

/** @param epoch of this life: one more than that of the one before */
export async function live(left: Left, random: Random, epoch: number) {
  const clock = new VirtualClock();
  const stores = new Map([...left.files].map(([name, bytes]) => [name, new LogStore(bytes)]));
  const intentStore = new MemoryIntentStore();
  intentStore.text = left.intents;
  let ops = 0;
  let diesAt = Number.POSITIVE_INFINITY;
  let hasPower = true;
  let remains: Left | null = null;

  const look = (): Left => ({
    files: new Map(
      [...stores].map(([name, { bytes, log }]) => {
        if (hasPower) return [name, bytes.slice()];
        return [name, crashState(left.files.get(name)!, log, log.length, random).slice()];
      }),
    ),
    intents: intentStore.text,
  });
  const someTurns = async () => {
    for (let turns = random.below(6); turns > 0; turns--) await null;
  };
  /** One request: some turns, and it may be the last one. */
  const pass = async <T>(work: () => Promise<T>): Promise<T> => {
    await someTurns();
    if (remains) await new Promise(() => {});
    const result = await work();
    if (remains) await new Promise(() => {});
    if (++ops >= diesAt) {
      remains = look();
      await new Promise(() => {});
    }
    await someTurns();
    return result;
  };
  const save = intentStore.save.bind(intentStore);
  intentStore.save = (record) =>
    pass(async () => {
      // Slow, for much to happen meanwhile that should not.
      await new Promise<void>((done) => void clock.setTimer(random.below(300), done));
      return save(record);
    });

  const intents = await WriteIntents.load(intentStore, epoch);
  const world = { ...(await testWorld({ clock, seed: random.below(1e9) })), intents };
  const graph = new Graph(world, [
    ...browserDrivers(new Map()),
    ...[...stores].map(([name, store]) => mortal(name, logStoreDriver(store), pass)),
  ]);
  const bugs: unknown[] = [];
  const jobs = new JobList({ onBug: (bug) => void bugs.push(bug) });
  const services: BlockJobServices = { graph, jobs, clock, emit() {} };

  return {
    clock,
    graph,
    intents,
    intentStore,
    services,
    bugs,
    stores,
    /** What is left of it; null while it lives. */
    get remains(): Left | null {
      return remains;
    },
    /** It ends with one of the requests to come. @param power false: with all that is not flushed */
    dieAfter(count: number, power: boolean): void {
      diesAt = ops + count;
      hasPower = power;
    },
    /** All stops, now; nothing has been lost. */
    look,
    add: (node: BlockdevOptions) => graph.add(node),
    device: (node: string, name = "vda"): BlockBackend =>
      graph.openBackend(graph.get(node), {
        name,
        description: `device '${name}'`,
        permissions: { take: Perm.consistentRead | Perm.write, share: Perm.all },
      }),
    /** Bytes as others may not read them while a job is at work. */
    async content(node: string, size = LIVES_SIZE): Promise<Buffer> {
      const buf = Buffer.alloc(size);
      await clock.runUntil(io.read(graph.get(node), buf, 0, {}));
      return buf;
    },
  };
}

function mortal(
  name: string,
  driver: BlockDriver,
  pass: <T>(work: () => Promise<T>) => Promise<T>,
): BlockDriver {
  return {
    ...driver,
    name: `${name}-store`,
    async open(context) {
      const state = await driver.open(context);
      const { pread, pwrite, pdiscard, truncate, flush } = state;
      return {
        ...state,
        pread: (...args) => pass(() => pread!.apply(state, args)),
        pwrite: (...args) => pass(() => pwrite!.apply(state, args)),
        pdiscard: (...args) => pass(() => pdiscard!.apply(state, args)),
        truncate: (...args) => pass(() => truncate!.apply(state, args)),
        flush: () => pass(() => flush!.apply(state)),
        info: () => ({ filename: name }),
      } as BlockState;
    },
  };
}

/** Requests at random, many at a time, until it is told to stop. */
export class BusyGuest {
  readonly #disk: BlockBackend;
  readonly #random: Random;
  readonly #running = new Set<Promise<void>>();
  readonly failures: unknown[] = [];

  constructor(disk: BlockBackend, random: Random) {
    this.#disk = disk;
    this.#random = random;
  }

  /** Begins a few requests. */
  act(): void {
    for (let count = this.#random.below(4); count > 0; count--) {
      const done = this.#request().then(
        () => {},
        (error) => void this.failures.push(error),
      );
      this.#running.add(done);
      void done.then(() => this.#running.delete(done));
    }
  }

  async idle(): Promise<void> {
    await Promise.all(this.#running);
  }

  #request(): Promise<void> {
    const random = this.#random;
    const { length } = this.#disk;
    // Some places more than others.
    const area = random.below(2) ? length : Math.floor(length / 8);
    const offset = random.below(area - 1);
    const bytes = 1 + random.below(Math.min(random.below(4) ? 9000 : 300_000, length - offset));
    const kind = random.below(10);
    if (kind === 0) return this.#disk.flush();
    if (kind === 1) return this.#disk.writeZeroes(offset, bytes, { mayUnmap: random.below(2) > 0 });
    if (kind === 2) return this.#disk.discard(offset, bytes);
    return this.#disk.write(bytesOf(random, bytes), offset);
  }
}

export function bytesOf(random: Random, bytes: number): Uint8Array {
  const buf = new Uint8Array(bytes).fill(1 + random.below(255));
  for (let i = 0; i < bytes; i += 97) buf[i] = 1 + random.below(255);
  return buf;
}

/** The files of new qcow2 images, by name; each with the size and cluster size that is drawn. */
export async function newImages(
  names: readonly string[],
  random: Random,
  more: Readonly<Record<string, object>> = {},
): Promise<Left> {
  const files = new Map(names.map((name) => [name, new Uint8Array(0)]));
  const life = await live({ files, intents: null }, random, 0);
  for (const name of names) {
    const file = await life.add({ driver: `${name}-store`, "node-name": "new" });
    const backend = life.graph.openBackend(file, {
      name: "",
      description: "create",
      permissions: { take: Perm.all, share: Perm.all },
    });
    const options = {
      size: LIVES_SIZE,
      "cluster-size": [4, 16, 64][random.below(3)]! * KiB,
      ...more[name],
    };
    const { world } = life.graph;
    const qcow2 = life.graph.driver("qcow2");
    await qcow2.create!({ world, options: options as never, file: backend.edge });
    await life.graph.closeBackend(backend);
    await life.graph.remove("new");
  }
  return { ...life.look(), intents: null };
}
