import { describe, expect, it } from "vitest";
import { Bell } from "../../src/base/bell.ts";
import { KiB } from "../../src/base/bytes.ts";
import { seededRandom } from "../../src/base/random.ts";
import type { BlockBackend } from "../../src/block/backend.ts";
import type { BitmapList, NewBitmap } from "../../src/block/bitmap-list.ts";
import type { DirtyBitmap } from "../../src/block/dirty-bitmap.ts";
import type { BlockDriver, RequestOptions } from "../../src/block/driver.ts";
import { Graph } from "../../src/block/graph.ts";
import { Perm } from "../../src/block/permissions.ts";
import { blkdebug } from "../../src/drivers/filter/blkdebug.ts";
import { copyOnRead } from "../../src/drivers/filter/copy-on-read.ts";
import { memoryDriver } from "../../src/drivers/protocol/memory.ts";
import { faultyDriver } from "../blockjob/faulty.ts";
import { range } from "../kernel/chance.ts";
import { testWorld } from "../world.ts";
import { tinyFormat } from "./tiny-format.ts";

const SIZE = 1024 * KiB;
const GRANULARITY = 4 * KiB;
const CLUSTER = 16 * KiB;

/** Stores whose writes come to a stop in the middle while the gate is shut. */
function gatedDriver() {
  const memory = memoryDriver() as BlockDriver;
  const bell = new Bell();
  const self = {
    ...memory,
    name: "gated",
    /** Writes that have come in. */
    entered: 0,
    shut: false,
    release() {
      self.shut = false;
      bell.ring();
    },
    async open(context: never) {
      const state = await memory.open(context);
      return {
        limits: state.limits,
        getLength: () => state.getLength!(),
        pread: (buf: Uint8Array, offset: number, options: RequestOptions) =>
          state.pread!(buf, offset, options),
        async pwrite(buf: Uint8Array, offset: number, options: RequestOptions) {
          self.entered++;
          while (self.shut) await bell.rung();
          await state.pwrite!(buf, offset, options);
        },
        pwriteCompressed: (buf: Uint8Array, offset: number) => state.pwrite!(buf, offset, {}),
        pdiscard: (offset: number, bytes: number, options: RequestOptions) =>
          state.pdiscard!(offset, bytes, options),
        truncate: (length: number) => state.truncate!(length),
      };
    },
  };
  return self;
}

/** copy-on-read ─▶ top ─▶ base, as nodes "filter", "top", "base"; and "store", all by itself. */
async function scene() {
  const world = await testWorld();
  const faulty = faultyDriver("faulty");
  const gated = gatedDriver();
  const drivers = [memoryDriver(), faulty, gated as BlockDriver, tinyFormat, copyOnRead, blkdebug];
  const graph = new Graph(world, drivers);
  const tiny = { driver: "tiny", size: SIZE, "cluster-size": CLUSTER };
  await graph.add({ ...tiny, "node-name": "base", file: { driver: "memory", size: 0 } });
  const file = { driver: "faulty", "node-name": "file", size: 0 };
  await graph.add({ ...tiny, "node-name": "top", file, backing: "base" });
  await graph.add({ driver: "copy-on-read", "node-name": "filter", file: "top" });
  await graph.add({ driver: "gated", "node-name": "store", size: SIZE });
  return {
    world,
    graph,
    faulty,
    gated,
    disk: (node: string): BlockBackend =>
      graph.openBackend(graph.get(node), {
        name: "",
        description: `device of '${node}'`,
        permissions: { take: Perm.consistentRead | Perm.write | Perm.resize, share: Perm.all },
      }),
    add: (node: string, more: Partial<NewBitmap> = {}): DirtyBitmap =>
      graph.get(node).bitmaps.add({ name: null, granularity: GRANULARITY, ...more }),
  };
}

/** Dirty granules, as "first-last …". */
function granules(map: DirtyBitmap): string {
  const found: string[] = [];
  for (let at = 0; at < map.size; ) {
    const area = map.nextDirtyArea(at, map.size, Number.MAX_SAFE_INTEGER);
    if (!area) break;
    at = area.offset + area.bytes;
    found.push(`${area.offset / GRANULARITY}-${Math.ceil(at / GRANULARITY) - 1}`);
  }
  return found.join(" ");
}

describe("a node's bitmaps record", () => {
  it("writes, zero writes, compressed writes and discards, and neither reads nor flushes", async () => {
    const { disk, add } = await scene();
    const map = add("store");
    const store = disk("store");
    await store.read(new Uint8Array(4096), 0);
    await store.flush();
    expect(granules(map)).toBe("");
    await store.write(new Uint8Array(2), 3 * GRANULARITY - 1);
    expect(granules(map)).toBe("2-3");
    await store.writeZeroes(8 * GRANULARITY, GRANULARITY);
    expect(granules(map)).toBe("2-3 8-8");
    await store.writeCompressed(new Uint8Array(GRANULARITY), 10 * GRANULARITY);
    await store.discard(12 * GRANULARITY, 2 * GRANULARITY);
    expect(granules(map)).toBe("2-3 8-8 10-10 12-13");
  });

  it("what was asked of a filter, of an overlay and of its file, each in its own bytes", async () => {
    const { disk, add } = await scene();
    const filter = disk("filter");
    const maps = ["filter", "top", "file", "base"].map((node) => add(node));
    await filter.write(new Uint8Array(1), 5 * GRANULARITY);
    // The file gets the first cluster, whole.
    expect(maps.map(granules)).toEqual(["5-5", "5-5", "0-3", ""]);
    await filter.writeZeroes(40 * GRANULARITY, 2 * GRANULARITY);
    await filter.discard(0, CLUSTER);
    expect(granules(maps[0]!)).toBe("0-3 5-5 40-41");
    expect(granules(maps[1]!)).toBe("5-5 40-41");
  });

  it("nothing when what shows through is copied up, nor a write that changes nothing", async () => {
    const { disk, add } = await scene();
    const maps = ["filter", "top"].map((node) => add(node));
    await disk("base").write(new Uint8Array(SIZE).fill(1), 0);
    await disk("filter").read(new Uint8Array(SIZE), 0);
    await disk("top").copyUp(0, SIZE);
    await disk("top").write(new Uint8Array(10), 0, { unchanged: true });
    expect(maps.map(granules)).toEqual(["", ""]);
  });

  it("a write that has failed: a part of it may have been written", async () => {
    const { disk, add, faulty } = await scene();
    // Zeroes in the middle of it will be data.
    await disk("top").write(new Uint8Array(CLUSTER).fill(1), 48 * GRANULARITY);
    const maps = ["filter", "top", "file"].map((node) => add(node));
    faulty.fault = { op: "write", errno: "EIO", after: 1 };
    const write = disk("filter").write(new Uint8Array(3 * CLUSTER), 0);
    await expect(write).rejects.toMatchObject({ errno: "EIO" });
    expect(maps.slice(0, 2).map(granules)).toEqual(["0-11", "0-11"]);
    faulty.fault = { op: "write", errno: "ENOSPC" };
    await expect(disk("top").writeZeroes(50 * GRANULARITY, 1)).rejects.toThrow("Injected");
    expect(granules(maps[1]!)).toBe("0-11 50-50");
  });

  it("nothing of what is refused before it begins", async () => {
    const { graph, disk, add } = await scene();
    const map = add("top");
    await expect(disk("top").write(new Uint8Array(2), SIZE - 1)).rejects.toThrow("not within");
    const gone = AbortSignal.abort();
    const locked = await graph.get("top").ranges.acquire(0, SIZE, true, undefined);
    const late = disk("top").write(new Uint8Array(2), 0, { signal: gone });
    await expect(late).rejects.toMatchObject({ errno: "ECANCELED" });
    graph.get("top").ranges.release(locked);
    expect(granules(map)).toBe("");
  });

  it("all but the one that a request leaves out, through filters of either kind", async () => {
    const { graph, disk, add } = await scene();
    await graph.add({ driver: "blkdebug", "node-name": "debug", image: "filter" });
    const [out, other, above] = [add("top"), add("top"), add("debug")];
    const debug = disk("debug");
    const options = { unrecorded: out };
    await debug.write(new Uint8Array(1), 0, options);
    await debug.writeZeroes(CLUSTER, CLUSTER, options);
    await debug.discard(2 * CLUSTER, CLUSTER, options);
    expect(granules(out)).toBe("");
    expect(granules(other)).toBe("0-0 4-7");
    expect(granules(above)).toBe("0-0 4-11");
    await debug.write(new Uint8Array(1), 0);
    expect(granules(out)).toBe("0-0");
  });

  it("only while they are enabled; a busy one leaves it to its successor", async () => {
    const { disk, add } = await scene();
    const [off, frozen] = [add("top", { enabled: false }), add("top")];
    frozen.createSuccessor();
    await disk("top").write(new Uint8Array(1), 0);
    expect([off, frozen, frozen.successor!].map(granules)).toEqual(["", "", "0-0"]);
    off.enable();
    await disk("top").write(new Uint8Array(1), 0);
    expect(granules(off)).toBe("0-0");
  });
});

describe("the size of a bitmap is that of its disk", () => {
  it("after a truncate, of a filter's child too; the grown part is clean until it is written", async () => {
    const { graph, disk, add } = await scene();
    await graph.add({ driver: "copy-on-read", "node-name": "above", file: "store" });
    const maps = ["store", "above"].map((node) => add(node));
    const above = disk("above");
    await disk("store").truncate(2 * SIZE);
    expect(maps.map((map) => map.size)).toEqual([2 * SIZE, 2 * SIZE]);
    expect(maps.map(granules)).toEqual(["", ""]);
    await above.write(new Uint8Array(1), 2 * SIZE - 1);
    expect(maps.map(granules)).toEqual(["511-511", "511-511"]);
    await above.truncate(SIZE);
    await above.truncate(2 * SIZE);
    expect(maps.map(granules)).toEqual(["", ""]);
  });

  it("after a write that has made a store longer", async () => {
    const { disk, add } = await scene();
    const map = add("file");
    expect(map.size).toBe(0);
    await disk("top").write(new Uint8Array(2 * CLUSTER), 0);
    expect(map.size).toBe(2 * CLUSTER);
    expect(granules(map)).toBe("0-7");
  });
});

describe("of writes that are under way", () => {
  it("none is missed by a bitmap that is added in the middle", async () => {
    const { disk, add, gated, world } = await scene();
    const store = disk("store");
    gated.shut = true;
    const writes = [0, 5, 9].map((i) => store.write(new Uint8Array(1), i * GRANULARITY));
    await world.clock.advance(0);
    expect(gated.entered).toBe(3);
    const map = add("store");
    gated.release();
    await Promise.all(writes);
    expect(granules(map)).toBe("0-0 5-5 9-9");
  });

  it("none is lost when a copier clears the mark before it reads", async () => {
    // Marked before the write: the copier would clear the mark, read old bytes, and never come back.
    const { disk, add, gated, world } = await scene();
    const store = disk("store");
    const map = add("store");
    gated.shut = true;
    const write = store.write(new Uint8Array(1).fill(7), 0);
    await world.clock.advance(0);
    map.clear();
    const copy = new Uint8Array(1);
    await store.read(copy, 0);
    gated.release();
    await write;
    expect(copy[0]).toBe(0);
    expect(granules(map)).toBe("0-0");
  });

  it("each is marked when it is over, wherever they overlap", async () => {
    for (let seed = 1; seed <= 25; seed++) {
      const random = seededRandom(seed);
      const { disk, add } = await scene();
      const map = add("top");
      const wanted = new Set<number>();
      const top = disk("top");
      const writes = Array.from({ length: 20 }, () => {
        const { start, count } = range(random, SIZE);
        const bytes = Math.min(count, 5 * CLUSTER);
        for (let at = start - (start % GRANULARITY); at < start + bytes; at += GRANULARITY) {
          if (bytes > 0) wanted.add(at / GRANULARITY);
        }
        if (random.below(2) === 0) return top.writeZeroes(start, bytes);
        return top.write(new Uint8Array(bytes).fill(1), start);
      });
      await Promise.all(writes);
      for (let i = 0; i < SIZE / GRANULARITY; i++) {
        const dirty = map.isDirty(i * GRANULARITY);
        expect(dirty, `seed ${seed}: granule ${i}`).toBe(wanted.has(i));
      }
    }
  });
});

describe("a node's list of bitmaps", () => {
  it("refuses names and granularities that cannot be, and names that are taken", async () => {
    const { bitmaps } = await listed();
    const add = (more: Partial<NewBitmap>) => () => bitmaps.add({ name: "b", ...more });
    expect(add({ name: "" })).toThrow("1 to 1023 bytes; the one for node 'top' has 0");
    // Of two bytes each.
    expect(add({ name: "ß".repeat(512) })).toThrow("has 1024");
    expect(add({ name: `${"ß".repeat(511)}x` })).not.toThrow();
    for (const granularity of [0, 1, 256, 511, 513, 64_000, 2 ** 32, -512, 0.5]) {
      expect(add({ granularity }), `${granularity}`).toThrow(`of ${granularity}: it takes a power`);
    }
    expect(add({ granularity: 512 })).not.toThrow();
    expect(add({})).toThrow("Node 'top' has a bitmap 'b' already");
    expect(add({ name: "c", granularity: 2 ** 31 })).not.toThrow();
    expect(() => bitmaps.get("zz")).toThrow("Node 'top' has no bitmap 'zz'");
  });

  it("takes the cluster size for granularity, within 4 and 64 KiB, and 64 KiB without", async () => {
    const { graph } = await scene();
    const of = (name: string) => graph.get(name).bitmaps.add({ name: null }).granularity;
    expect([of("top"), of("filter"), of("store")]).toEqual([CLUSTER, CLUSTER, 64 * KiB]);
    for (const [size, granularity] of [
      [512, 4 * KiB],
      [2048 * KiB, 64 * KiB],
    ]) {
      const file = { driver: "memory", size: 0 };
      const name = `c${size}`;
      await graph.add({
        driver: "tiny",
        "node-name": name,
        size: SIZE,
        "cluster-size": size,
        file,
      });
      expect(of(name)).toBe(granularity);
    }
  });

  it("shows all, the named ones, and forgets what is removed", async () => {
    const { bitmaps } = await listed();
    const a = bitmaps.add({ name: "a" });
    const own = bitmaps.add({ name: null });
    expect(bitmaps.all()).toEqual([a, own]);
    expect(bitmaps.named()).toEqual([a]);
    bitmaps.remove(a);
    expect(bitmaps.find("a")).toBe(undefined);
    expect(() => bitmaps.remove(a)).toThrow("in its node's list");
    bitmaps.remove(own);
    expect(bitmaps.isEmpty).toBe(true);
  });

  async function listed(): Promise<{ bitmaps: BitmapList }> {
    const { graph } = await scene();
    return graph.get("top");
  }
});
