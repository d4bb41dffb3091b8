/** What is on record before a write goes through, and what is taken off it, and when. */

import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { BlockError } from "../../src/base/errors.ts";
import { seededRandom } from "../../src/base/random.ts";
import type { BlockDriver } from "../../src/block/driver.ts";
import { Graph } from "../../src/block/graph.ts";
import { regionBytesFor, regionsOf } from "../../src/block/intent-regions.ts";
import { Perm } from "../../src/block/permissions.ts";
import type { WriteIntent } from "../../src/block/write-intent.ts";
import { WriteIntents } from "../../src/block/write-intents.ts";
import { rawDriver } from "../../src/drivers/format/raw.ts";
import { type MemoryStore, memoryDriver } from "../../src/drivers/protocol/memory.ts";
import { testKernel } from "../kernel/load.ts";
import { testWorld } from "../world.ts";
import { MemoryIntentStore } from "./intent-store.ts";

const SIZE = 4 * MiB;
const REGION = 256 * KiB;
const kernel = await testKernel();

/** An engine's life: what comes before it is in the two stores. */
async function life(
  store = new MemoryIntentStore(),
  stores = new Map<string, MemoryStore>(),
  epoch = 1,
  onWrite: (offset: number) => void = () => {},
) {
  const intents = await WriteIntents.load(store, epoch);
  const memory = told(memoryDriver(stores) as BlockDriver, onWrite);
  const graph = new Graph({ ...(await testWorld()), intents }, [memory, rawDriver()]);
  if (!stores.has("disk")) {
    const options = { name: "disk", size: SIZE };
    await graph.driver("memory").create!({ world: graph.world, options: options as never });
  }
  const node = await graph.add({ driver: "memory", "node-name": "disk", name: "disk" });
  const disk = graph.openBackend(node, {
    name: "vda",
    description: "device 'vda'",
    permissions: { take: Perm.consistentRead | Perm.write, share: Perm.all },
  });
  const begin = (id = intents.newId()): WriteIntent => {
    const intent = intents.begin({ id, nodes: [node], regionBytes: REGION });
    intent.publish();
    return intent;
  };
  const write = (region: number, bytes = 512) =>
    disk.write(new Uint8Array(bytes).fill(7), region * REGION);
  const isWritten = (region: number) =>
    stores.get("disk")!.pages.has((region * REGION) / (64 * KiB));
  return { store, stores, intents, graph, node, disk, begin, write, isWritten };
}

/** Tells of writes when they reach the store. */
function told(driver: BlockDriver, onWrite: (offset: number) => void): BlockDriver {
  return {
    ...driver,
    isVolatile: false,
    async open(context) {
      const state = await driver.open(context);
      const pwrite = state.pwrite!.bind(state);
      state.pwrite = (buf, offset, options) => {
        onWrite(offset);
        return pwrite(buf, offset, options);
      };
      return state;
    },
  };
}

/** Regions on record now. */
function onRecord(store: MemoryIntentStore, id: string): number[] {
  const record = store.record?.records[id];
  const found = record ? regionsOf(kernel, record.regions) : null;
  return found ? [...Array(SIZE / REGION).keys()].filter((region) => found.has(region)) : [];
}

/** A gate of saves. */
function hold(store: MemoryIntentStore): () => void {
  let go = () => {};
  const gate = new Promise<void>((resolve) => {
    go = resolve;
  });
  store.before = () => gate;
  return () => {
    store.before = null;
    go();
  };
}

const turns = async (count = 20) => {
  for (let i = 0; i < count; i++) await null;
};
const never = () => false;

describe("a write", () => {
  it("goes through when its region is on record, and not before", async () => {
    const t = await life();
    const intent = t.begin();
    const go = hold(t.store);
    const written = t.write(3);
    await turns();
    expect(t.store.saves).toBe(1);
    expect(t.isWritten(3)).toBe(false);
    go();
    await written;
    expect(onRecord(t.store, intent.id)).toEqual([3]);
    expect(t.isWritten(3)).toBe(true);
  });

  it("to a region on record saves nothing", async () => {
    const t = await life();
    t.begin();
    await t.write(3);
    for (let i = 0; i < 10; i++) await t.write(3);
    expect(t.store.saves).toBe(1);
  });

  it("that needs nothing but what a save that is under way has waits for that one alone", async () => {
    const t = await life();
    const intent = t.begin();
    intent.mark(0, SIZE);
    const go = hold(t.store);
    const first = t.write(0);
    await turns();
    // Nothing is new about this one: its region is in that save, and so is the disk's generation.
    const second = t.write(1);
    await turns();
    go();
    await Promise.all([first, second]);
    expect(t.store.saves).toBe(1);
    const third = t.write(2);
    await third;
    expect(t.store.saves).toBe(1);
  });

  it("that such a save cannot put on record is not done, and the next one is tried anew", async () => {
    const t = await life();
    t.begin().mark(0, SIZE);
    const go = hold(t.store);
    const writes = [t.write(0)];
    await turns();
    writes.push(t.write(1));
    const outcomes = Promise.allSettled(writes);
    await turns();
    t.store.failure = new BlockError("ENOSPC", "Full");
    go();
    expect((await outcomes).map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    expect([0, 1].some(t.isWritten)).toBe(false);
    t.store.failure = null;
    await t.write(1);
    expect(t.isWritten(1)).toBe(true);
  });

  it("does not take the save that is under way for one that an intent's end is part of", async () => {
    const store = new MemoryIntentStore();
    const seen: (string[] | undefined)[] = [];
    const look = () => seen.push(store.record ? Object.keys(store.record.records) : undefined);
    const t = await life(store, new Map(), 1, look);
    const [ends, stays] = [t.begin(), t.begin()];
    await t.write(0);
    const go = hold(store);
    const written = t.write(3);
    await turns();
    expect(store.saves).toBe(2);
    ends.end();
    // Also one that begins now, in a region that is on record.
    const later = t.write(0);
    go();
    await Promise.all([written, later]);
    expect(seen).toEqual([[ends.id, stays.id], [stays.id], [stays.id]]);
  });

  it("does not take the save that is under way for one that its disk's new generation is in", async () => {
    const old = await life();
    const { id } = old.begin();
    await old.write(0);
    const trusted: boolean[] = [];
    const look = () => {
      const { records, generations } = old.store.record!;
      const images = Object.entries(records[id]!.images);
      trusted.push(images.every(([key, number]) => generations[key] === number));
    };
    const next = await life(old.store, old.stores, 2, look);
    const go = hold(old.store);
    const saved = next.intents.saved();
    await turns();
    const written = next.write(5);
    await turns();
    go();
    await Promise.all([saved, written]);
    expect(trusted).toEqual([false]);
  });

  it("waits for one save with all that come meanwhile", async () => {
    const t = await life();
    const intent = t.begin();
    const go = hold(t.store);
    const all = [t.write(0)];
    await turns();
    for (let region = 1; region < 9; region++) all.push(t.write(region));
    await turns();
    go();
    await Promise.all(all);
    expect(t.store.saves).toBe(2);
    expect(onRecord(t.store, intent.id)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
  });

  it("is not done if it cannot be recorded, and the next one tries again", async () => {
    const t = await life();
    t.begin();
    t.store.failure = new BlockError("ENOSPC", "no room");
    await expect(t.write(2)).rejects.toMatchObject({ errno: "ENOSPC" });
    expect(t.isWritten(2)).toBe(false);
    t.store.failure = null;
    await t.write(2);
    expect(t.isWritten(2)).toBe(true);
  });

  it("of an engine that another one has followed is refused", async () => {
    const old = await life();
    old.begin();
    await old.write(1);
    const next = await life(old.store, old.stores, 2);
    next.begin();
    await next.write(2);
    await expect(old.write(5)).rejects.toMatchObject({ errno: "ESTALE" });
    expect(old.isWritten(5)).toBe(false);
  });

  it("that is called off while it waits is not done", async () => {
    const t = await life();
    t.begin();
    const go = hold(t.store);
    const call = new AbortController();
    const written = t.disk.write(new Uint8Array(512), 0, { signal: call.signal });
    await turns();
    call.abort();
    await expect(written).rejects.toMatchObject({ errno: "ECANCELED" });
    go();
    expect(t.isWritten(0)).toBe(false);
  });

  it("under way when an intent comes is on its record", async () => {
    const t = await life();
    t.begin();
    const go = hold(t.store);
    const written = t.write(6);
    await turns();
    const late = t.begin();
    go();
    await written;
    expect(onRecord(t.store, late.id)).toEqual([6]);
  });

  it("that comes after the end of an intent waits until there is no record of it", async () => {
    const t = await life();
    const intent = t.begin();
    await t.write(1);
    intent.end();
    const go = hold(t.store);
    const both = [t.write(2), t.write(3)];
    await turns();
    expect(t.isWritten(2) || t.isWritten(3)).toBe(false);
    go();
    await Promise.all(both);
    expect(t.store.record?.records).toEqual({});
    await t.write(4);
    expect(t.store.saves).toBe(2);
  });

  it("costs nothing where nobody has to know", async () => {
    const t = await life();
    await t.write(1);
    expect(t.store.saves).toBe(0);
  });
});

describe("a sweep", () => {
  async function scene() {
    const t = await life();
    const intent = t.begin();
    const dirty = t.node.bitmaps.add({ name: null, granularity: 64 * KiB });
    for (const region of [1, 2, 3]) await t.write(region);
    await intent.sweep(dirty, never, async () => {});
    return { ...t, intent, dirty };
  }

  it("takes out what is clean, and leaves what is dirty", async () => {
    const t = await scene();
    t.dirty.reset(1 * REGION, REGION);
    t.dirty.reset(3 * REGION, REGION);
    let flushes = 0;
    await t.intent.sweep(t.dirty, never, async () => void flushes++);
    await t.intents.saved();
    expect(flushes).toBe(1);
    expect(onRecord(t.store, t.intent.id)).toEqual([2]);
  });

  it("leaves what has been written since the last one: it will be again", async () => {
    const t = await scene();
    await t.write(1);
    t.dirty.clear();
    await t.intent.sweep(t.dirty, never, async () => {});
    expect([...t.intent.regions.ranges()]).toEqual([{ offset: REGION, bytes: REGION }]);
    await t.intent.sweep(t.dirty, never, async () => {});
    expect(t.intent.regions.isEmpty).toBe(true);
  });

  it("takes nothing out before the flush, nor if that fails", async () => {
    const t = await scene();
    t.dirty.clear();
    const fails = async () => {
      expect(t.intent.regions.count).toBe(3);
      throw new BlockError("EIO", "broken");
    };
    await expect(t.intent.sweep(t.dirty, never, fails)).rejects.toMatchObject({ errno: "EIO" });
    expect(t.intent.regions.count).toBe(3);
  });

  it("leaves what is written while it flushes, and what somebody is at", async () => {
    const t = await scene();
    t.dirty.clear();
    await t.intent.sweep(
      t.dirty,
      (offset) => offset === 2 * REGION,
      async () => {
        await t.write(1);
        t.dirty.clear();
      },
    );
    await t.intents.saved();
    expect(onRecord(t.store, t.intent.id)).toEqual([1, 2]);
  });

  it("makes the next write to what it took out wait again", async () => {
    const t = await scene();
    t.dirty.clear();
    await t.intent.sweep(t.dirty, never, async () => {});
    const go = hold(t.store);
    void t.intents.saved();
    await turns(); // A save without the region is under way.
    const data = new Uint8Array(512).fill(9);
    const written = t.disk.write(data, 2 * REGION + 64 * KiB);
    await turns();
    const isDone = () => t.stores.get("disk")!.pages.has((2 * REGION) / (64 * KiB) + 1);
    expect(isDone()).toBe(false);
    go();
    await written;
    expect(onRecord(t.store, t.intent.id)).toEqual([2]);
    expect(isDone()).toBe(true);
  });
});

describe("a record", () => {
  it("is found by the next engine", async () => {
    const t = await life();
    const { id } = t.begin();
    await t.write(4);
    await t.write(9);
    const next = await life(t.store, t.stores, 2);
    const found = next.intents.find(id, [next.node], kernel);
    expect([...found!.regions.ranges()]).toEqual([
      { offset: 4 * REGION, bytes: REGION },
      { offset: 9 * REGION, bytes: REGION },
    ]);
  });

  it("goes on under its id, with what was on it", async () => {
    const t = await life();
    const { id } = t.begin();
    await t.write(4);
    const next = await life(t.store, t.stores, 2);
    const found = next.intents.find(id, [next.node], kernel)!;
    const intent = next.begin(id);
    for (const { offset, bytes } of found.regions.ranges()) intent.mark(offset, bytes);
    await next.write(5);
    const last = await life(t.store, t.stores, 3);
    expect(last.intents.find(id, [last.node], kernel)).not.toBe(null);
    expect(onRecord(t.store, id)).toEqual([4, 5]);
  });

  it("is not trusted once its image has been written without it", async () => {
    const t = await life();
    const { id } = t.begin();
    await t.write(4);
    const between = await life(t.store, t.stores, 2);
    await between.write(8);
    expect(between.intents.find(id, [between.node], kernel)).toBe(null);
    const last = await life(t.store, t.stores, 3);
    expect(last.intents.find(id, [last.node], kernel)).toBe(null);
  });

  it("is not trusted once its disk has become another part of its file", async () => {
    const t = await life();
    const raw = { driver: "raw", "node-name": "raw", file: "disk", size: 4 * REGION };
    const node = await t.graph.add(raw);
    const id = t.intents.newId();
    t.intents.begin({ id, nodes: [node], regionBytes: REGION }).publish();
    await t.intents.saved();
    const next = await life(t.store, t.stores, 2);
    const opened = await next.graph.add(raw);
    expect(next.intents.find(id, [opened], kernel)).not.toBe(null);
    await next.graph.reopenAll([{ ...raw, offset: REGION }]);
    expect(next.intents.find(id, [opened], kernel)).toBe(null);
  });

  it("is not trusted for other images than its own", async () => {
    const t = await life();
    const { id } = t.begin();
    await t.write(4);
    const next = await life(t.store, t.stores, 2);
    const other = await next.graph.add({ driver: "memory", "node-name": "other", size: SIZE });
    expect(next.intents.find(id, [next.node, other], kernel)).toBe(null);
    expect(next.intents.find(id, [other], kernel)).toBe(null);
  });

  it("that makes no sense is as good as none", async () => {
    for (const text of ['{"version":2}', "7", '{"version":1,"epoch":1,"seq":-1}']) {
      const store = new MemoryIntentStore();
      store.text = text;
      const t = await life(store, new Map(), 5);
      expect(t.intents.problem).not.toBe(null);
      expect(t.intents.find("i1", [t.node], kernel)).toBe(null);
    }
  });

  it("is small for a large disk", () => {
    expect(regionBytesFor(SIZE, 64 * KiB)).toBe(REGION);
    for (const size of [MiB, 2 ** 34, 2 ** 40, 2 ** 53 - 1]) {
      expect(size / regionBytesFor(size, 64 * KiB)).toBeLessThanOrEqual(65536);
    }
    expect(regionBytesFor(SIZE, MiB)).toBe(MiB);
  });
});

it("has every write that is not flushed yet, at any moment, whatever comes together", async () => {
  const seeds = Number(process.env["INTENT_SEEDS"] ?? 60);
  for (let seed = 1; seed <= seeds; seed++) {
    const random = seededRandom(seed);
    const pause = () => turns(random.below(12));
    const store = new MemoryIntentStore();
    /** Regions with bytes of which a flush has not told that they are copied. */
    const owed = new Map<number, number>();
    let moment = 0;
    const t = await life(store, new Map(), 1, (offset) => {
      owed.set(Math.floor(offset / REGION), ++moment);
      check();
    });
    const intent = t.begin();
    const dirty = t.node.bitmaps.add({ name: null, granularity: 64 * KiB });
    const check = () => {
      const now = onRecord(store, intent.id);
      for (const region of owed.keys()) expect(now, `seed ${seed}`).toContain(region);
    };
    store.before = async () => {
      await pause();
      if (random.below(8) === 0) throw new BlockError("EIO", "a save fails");
    };
    const guest = async () => {
      for (let i = 0; i < 8; i++) {
        const region = random.below(6);
        const data = new Uint8Array(512);
        const written = t.disk.write(data, region * REGION + random.below(500) * 512);
        await written.catch((error) => expect(error).toBeInstanceOf(BlockError));
        check();
        await pause();
      }
    };
    const copied = new Map<number, number>();
    const sweeper = async () => {
      for (let i = 0; i < 6; i++) {
        await pause();
        for (let region = 0; region < 6; region++) {
          if (random.below(3) === 0) continue;
          dirty.reset(region * REGION, REGION);
          copied.set(region, moment);
        }
        await intent.sweep(dirty, never, async () => {
          const before = [...copied];
          await pause();
          // What was copied before the flush began is there to stay.
          for (const [region, at] of before) if ((owed.get(region) ?? 0) <= at) owed.delete(region);
        });
        check();
        if (random.below(2))
          await t.intents.saved().catch((error) => {
            expect(error).toBeInstanceOf(BlockError);
          });
        check();
      }
    };
    await Promise.all([guest(), guest(), guest(), sweeper()]);
    check();
  }
});

it("lets no write through while the store has a record that has been forgotten, also amid its last save", async () => {
  const one = await life();
  one.begin("i1");
  await one.intents.saved();
  const two = await life(one.store, one.stores, 2);
  two.intents.keepOnly(never);
  const letGo = hold(one.store);
  const saved = two.intents.saved();
  await turns();
  const written = two.write(0);
  await turns(200);
  expect(two.isWritten(0)).toBe(false);
  letGo();
  await Promise.all([saved, written]);
  expect(two.isWritten(0)).toBe(true);
  const three = await life(one.store, one.stores, 3);
  expect(three.intents.find("i1", [three.node], kernel)).toBeNull();
});
