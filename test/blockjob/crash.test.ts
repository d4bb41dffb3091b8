/**
 * A tab that dies at any moment of a job's life, or of a power cut: who opens the disk again by what
 * the headers say finds all that guests had flushed. Everything comes from a seed.
 */

import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import { VirtualClock } from "../../src/base/virtual-clock.ts";
import type { BlockBackend } from "../../src/block/backend.ts";
import type { BlockDriver } from "../../src/block/driver.ts";
import { Graph } from "../../src/block/graph.ts";
import * as io from "../../src/block/io.ts";
import type { BlockdevOptions } from "../../src/block/options.ts";
import { Perm } from "../../src/block/permissions.ts";
import { skipFilters } from "../../src/block/status.ts";
import type { BlockJob, BlockJobServices } from "../../src/blockjob/block-job.ts";
import { startCommit } from "../../src/blockjob/commit.ts";
import { startMirror } from "../../src/blockjob/mirror.ts";
import { startStream } from "../../src/blockjob/stream.ts";
import { copyOnRead } from "../../src/drivers/filter/copy-on-read.ts";
import { qcow2Driver } from "../../src/drivers/format/qcow2/index.ts";
import { memoryDriver } from "../../src/drivers/protocol/memory.ts";
import { JobList } from "../../src/job/list.ts";
import { verbs } from "../../src/job/verbs.ts";
import {
  crashState,
  type LogEntry,
  LogStore,
  logStoreDriver,
} from "../drivers/format/log-store.ts";
import { testWorld } from "../world.ts";

const SIZE = MiB + 70 * KiB;
/** More of them find more: 30 have found a header torn in two. */
const SEEDS = Number(process.env["CRASH_SEEDS"] ?? 4);
const STATES = Number(process.env["CRASH_STATES"] ?? 20);

type Start = (t: Rig) => Promise<BlockJob>;
interface Case {
  readonly start: Start;
  /** The disk that guests are on at the end. */
  readonly end: string;
  readonly complete?: boolean;
}

const id = { device: "vda", jobId: "j0" } as const;
const CASES: Record<string, Case> = {
  "stream of the whole chain": { start: (t) => startStream(t.services, id), end: "top" },
  "stream down to a base": {
    start: (t) => startStream(t.services, { ...id, baseNode: "base" }),
    end: "top",
  },
  "stream in the middle": {
    start: (t) => startStream(t.services, { ...id, device: "mid", baseNode: "base" }),
    end: "top",
  },
  commit: { start: (t) => startCommit(t.services, { ...id, topNode: "mid" }), end: "top" },
  "commit of one layer": {
    start: (t) => startCommit(t.services, { ...id, topNode: "mid", baseNode: "low" }),
    end: "top",
  },
  "active commit": {
    start: (t) => startCommit(t.services, { ...id, baseNode: "low" }),
    end: "low",
    complete: true,
  },
  mirror: {
    start: (t) =>
      startMirror(t.services, { ...id, target: "target", sync: "full", copyMode: t.copyMode }),
    end: "target",
    complete: true,
  },
};

describe.each(Object.entries(CASES))("after a crash in a %s", (_name, { start, end, complete }) => {
  it("what was flushed is there, from the header on", async () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const random = seededRandom(seed);
      const t = await rig(random);
      const guest = new Guest(t, random);
      await guest.acts(10);
      const job = await start(t);
      if (random.below(2)) job.setSpeed(2 * MiB);
      for (let i = 0; i < 60 && !job.completed; i++) {
        await guest.acts(1 + random.below(3));
        await t.clock.advance(random.below(120));
        if (job.ready && complete && random.below(3) === 0 && !job.completed)
          await verbs.complete(job);
      }
      for (let i = 0; i < 200 && !job.completed; i++) {
        await t.clock.advance(100);
        if (job.ready && complete) await verbs.complete(job);
      }
      await t.clock.runUntil(job.finished);
      expect(job.error, `seed ${seed}`).toBe(null);
      expect(t.bugs, `seed ${seed}`).toEqual([]);
      const moved = t.order.length;
      await guest.acts(20);
      expect(guest.promises.at(-1)?.root ?? end, `seed ${seed}`).toBe(end);
      for (let i = 0; i < STATES; i++) {
        const at = random.below(t.order.length + 1);
        // Most things happen at the end.
        const cut = random.below(2) ? at : Math.min(t.order.length, moved - 30 + random.below(60));
        const what = `seed ${seed}, crash at ${cut} of ${t.order.length} (job's end ${moved})`;
        await check(t, guest, Math.max(0, cut), random, what);
      }
    }
  }, 300_000);
});

type Rig = Awaited<ReturnType<typeof rig>>;

async function rig(random: Random) {
  const clock = new VirtualClock();
  const world = await testWorld({ clock, seed: random.below(1e9) });
  const names = ["base", "low", "mid", "top", "target"];
  const stores = new Map(names.map((name) => [name, new LogStore(new Uint8Array(0))]));
  const graph = new Graph(world, drivers(stores));
  const order: LogStore[] = [];
  const bugs: unknown[] = [];
  const jobs = new JobList({ onBug: (bug) => void bugs.push(bug) });
  const services: BlockJobServices = { graph, jobs, clock, emit() {} };
  let below: string | null = null;
  for (const name of names) {
    const isTarget = name === "target";
    const size = name === "top" || isTarget || random.below(2) ? SIZE : SIZE - 300 * KiB;
    const file = await graph.add({ driver: `${name}-store`, "node-name": "new" });
    const backend = graph.openBackend(file, {
      name: "",
      description: "create",
      permissions: { take: Perm.all, share: Perm.all },
    });
    const backing =
      below !== null && !isTarget ? { "backing-file": below, "backing-fmt": "qcow2" } : {};
    const options = { size, "cluster-size": [4, 16, 64][random.below(3)]! * KiB, ...backing };
    await graph.driver("qcow2").create!({ world, options: options as never, file: backend.edge });
    await graph.closeBackend(backend);
    await graph.remove("new");
    await graph.add({
      driver: "qcow2",
      "node-name": name,
      file: { driver: `${name}-store` },
      backing: isTarget ? null : below,
    } as BlockdevOptions);
    below = name;
    if (name === "top" || isTarget) continue;
    const device = open(name, "filler");
    for (let i = 0; i < 12; i++) {
      const offset = random.below(device.length - 1);
      const bytes = 1 + random.below(Math.min(100 * KiB, device.length - offset));
      if (random.below(4) === 0) await device.writeZeroes(offset, bytes);
      else await device.write(fill(random, bytes), offset);
    }
    await device.flush();
    await graph.closeBackend(device);
  }
  const disk = open("top", "vda");
  await disk.flush();
  const starts = new Map<LogStore, Uint8Array>();
  for (const store of stores.values()) {
    starts.set(store, store.bytes.slice());
    store.log.length = 0;
    const apply = store.apply.bind(store);
    store.apply = (entry: LogEntry) => {
      apply(entry);
      order.push(store);
    };
  }

  function open(node: string, name: string): BlockBackend {
    return graph.openBackend(graph.get(node), {
      name,
      description: `device '${name}'`,
      permissions: { take: Perm.consistentRead | Perm.write, share: Perm.all },
    });
  }
  const copyMode = random.below(2) ? ("write-blocking" as const) : ("background" as const);
  return { clock, graph, services, disk, stores, starts, order, bugs, copyMode };
}

function drivers(stores: ReadonlyMap<string, LogStore>): BlockDriver[] {
  const named = [...stores].map(([name, store]) => {
    const driver = logStoreDriver(store);
    return {
      ...driver,
      name: `${name}-store`,
      async open(context: never) {
        const state = await driver.open(context);
        return { ...state, info: () => ({ filename: name }) };
      },
    };
  });
  return [memoryDriver(), qcow2Driver(), copyOnRead, ...named] as BlockDriver[];
}

function fill(random: Random, bytes: number): Uint8Array {
  const buf = new Uint8Array(bytes).fill(1 + random.below(255));
  for (let i = 0; i < bytes; i += 97) buf[i] = 1 + random.below(255);
  return buf;
}

class Guest {
  readonly t: Rig;
  readonly random: Random;
  bytes: Uint8Array | null = null;
  /** What flushes have promised, and what was begun later. */
  readonly promises: {
    readonly from: number;
    readonly bytes: Uint8Array;
    /** The disk that they were on. */
    readonly root: string;
  }[] = [];
  readonly changes: { readonly from: number; readonly offset: number; readonly end: number }[] = [];

  constructor(t: Rig, random: Random) {
    this.t = t;
    this.random = random;
  }

  async acts(count: number): Promise<void> {
    const { t, random } = this;
    const { disk, clock, order } = t;
    if (!this.bytes) {
      this.bytes = new Uint8Array(SIZE);
      await clock.runUntil(disk.read(this.bytes, 0));
    }
    for (let i = 0; i < count; i++) {
      const offset = random.below(SIZE - 1);
      const bytes = 1 + random.below(Math.min(random.below(3) ? 9000 : 200_000, SIZE - offset));
      const kind = random.below(10);
      const from = order.length;
      if (kind >= 7) {
        const promised = this.bytes.slice();
        await clock.runUntil(disk.flush());
        const root = skipFilters(disk.node).name;
        this.promises.push({ from: order.length, bytes: promised, root });
        continue;
      }
      this.changes.push({ from, offset, end: offset + bytes });
      if (kind < 4) {
        const data = fill(random, bytes);
        await clock.runUntil(disk.write(data, offset));
        this.bytes.set(data, offset);
      } else if (kind < 6) {
        await clock.runUntil(disk.writeZeroes(offset, bytes, { mayUnmap: kind === 5 }));
        this.bytes.fill(0, offset, offset + bytes);
      } else {
        await clock.runUntil(disk.discard(offset, bytes));
        const buf = new Uint8Array(bytes);
        await clock.runUntil(disk.read(buf, offset));
        this.bytes.set(buf, offset);
      }
    }
    const buf = new Uint8Array(SIZE);
    await clock.runUntil(disk.read(buf, 0));
    expect(Buffer.compare(buf, this.bytes), "guest reads what it wrote").toBe(0);
  }
}

async function check(
  t: Rig,
  guest: Guest,
  cut: number,
  random: Random,
  what: string,
): Promise<void> {
  const promise = guest.promises.findLast(({ from }) => from <= cut);
  if (!promise) return;
  const { root } = promise;
  const after = new Map<string, LogStore>();
  for (const [name, store] of t.stores) {
    let end = 0;
    for (let i = 0; i < cut; i++) if (t.order[i] === store) end++;
    after.set(name, new LogStore(crashState(t.starts.get(store)!, store.log, end, random)));
  }
  const graph = new Graph(t.graph.world, drivers(after));
  const chain: string[] = [];
  for (let name: string | undefined = root; name; ) {
    chain.unshift(name);
    const node = await graph.add({
      driver: "qcow2",
      "node-name": "look",
      "read-only": true,
      backing: null,
      file: { driver: `${name}-store` },
    });
    name = node.state.info?.()["backing-filename"];
    await graph.remove("look");
  }
  let below: string | null = null;
  for (const name of chain) {
    await graph.add({
      driver: "qcow2",
      "node-name": name,
      "read-only": true,
      backing: below,
      file: { driver: `${name}-store` },
    } as BlockdevOptions);
    below = name;
  }
  const buf = new Uint8Array(SIZE);
  await io.read(graph.get(root), buf, 0, {});
  const touched = new Uint8Array(SIZE);
  for (const { from, offset, end } of guest.changes) {
    if (from >= promise.from && from <= cut) touched.fill(1, offset, end);
  }
  for (let at = 0; at < SIZE; at++) {
    if (touched[at] || buf[at] === promise.bytes[at]) continue;
    expect.fail(
      `${what}, chain ${chain.join(" <- ")}: byte ${at} is ${buf[at]}, not ${promise.bytes[at]}`,
    );
  }
}
