import { describe, expect, it } from "vitest";
import { KiB } from "../../src/base/bytes.ts";
import {
  addBitmap,
  type BitmapChange,
  clearBitmap,
  disableBitmap,
  enableBitmap,
  mergeBitmaps,
  removeBitmap,
} from "../../src/block/bitmap-changes.ts";
import { Graph } from "../../src/block/graph.ts";
import { storeBitmaps } from "../../src/block/persistent-bitmaps.ts";
import { memoryDriver } from "../../src/drivers/protocol/memory.ts";
import { testWorld } from "../world.ts";
import { keeperDriver } from "./bitmap-store.ts";

const SIZE = 256 * KiB;
const B0 = { node: "n", name: "b0" };

/** Node "n" with bitmap "b0", dirty in its first granule; node "k", which keeps bitmaps. */
async function scene() {
  const keeper = keeperDriver();
  const graph = new Graph(await testWorld(), [memoryDriver(), keeper.driver]);
  const node = await graph.add({ driver: "memory", "node-name": "n", size: SIZE });
  const k = await graph.add({ driver: "keeper", "node-name": "k", size: SIZE });
  addBitmap(graph, { ...B0, granularity: 4096 }).commit();
  const b0 = node.bitmaps.get("b0");
  b0.set(0, 1);
  return { graph, node, k, b0, kept: keeper.kept };
}

type Scene = Awaited<ReturnType<typeof scene>>;

/** All that can be seen of a node's bitmaps. */
function seen({ node }: Scene): string[] {
  return node.bitmaps.all().map((map) => {
    const bytes = new Uint8Array(8);
    map.bits.serialize(0, bytes);
    const flags = [map.enabled && "enabled", map.busy && "busy"].filter(Boolean).join();
    return `${map.name} ${map.granularity} [${bytes}] ${flags}`;
  });
}

const CHANGES: [string, (scene: Scene) => BitmapChange, string[]][] = [
  [
    "add",
    ({ graph }) => addBitmap(graph, { node: "n", name: "b1", granularity: 512, disabled: true }),
    ["b0 4096 [1,0,0,0,0,0,0,0] enabled", "b1 512 [0,0,0,0,0,0,0,0] "],
  ],
  ["remove", ({ graph }) => removeBitmap(graph, B0), []],
  ["clear", ({ graph }) => clearBitmap(graph, B0), ["b0 4096 [0,0,0,0,0,0,0,0] enabled"]],
  ["enable", ({ graph }) => enableBitmap(graph, B0), ["b0 4096 [1,0,0,0,0,0,0,0] enabled"]],
  ["disable", ({ graph }) => disableBitmap(graph, B0), ["b0 4096 [1,0,0,0,0,0,0,0] "]],
  [
    "merge",
    ({ graph, k }) => {
      k.bitmaps.add({ name: "x", granularity: 8192 }).set(16_384, 1);
      return mergeBitmaps(graph, { node: "n", target: "b0", bitmaps: [{ node: "k", name: "x" }] });
    },
    ["b0 4096 [49,0,0,0,0,0,0,0] enabled"],
  ],
];

describe("a change of bitmaps", () => {
  it.each(CHANGES)("#44 %s followed by abort leaves all as it was", async (_name, change) => {
    const it = await scene();
    const before = seen(it);
    change(it).abort();
    expect(seen(it)).toEqual(before);
  });

  it.each(CHANGES)("%s followed by commit stays", async (_name, change, after) => {
    const it = await scene();
    change(it).commit();
    expect(seen(it)).toEqual(after);
  });

  it("that is taken back gives enabled and disabled back as they were", async () => {
    const it = await scene();
    disableBitmap(it.graph, B0).commit();
    enableBitmap(it.graph, B0).abort();
    expect(it.b0.enabled).toBe(false);
    disableBitmap(it.graph, B0).abort();
    expect(it.b0.enabled).toBe(false);
  });

  it("is there for the next: add, merge into it, and disable what was merged", async () => {
    const it = await scene();
    const changes = [
      addBitmap(it.graph, { node: "n", name: "b1", granularity: 4096 }),
      mergeBitmaps(it.graph, { node: "n", target: "b1", bitmaps: ["b0"] }),
      disableBitmap(it.graph, B0),
    ];
    for (const change of changes) change.commit();
    expect(seen(it)).toEqual(["b0 4096 [1,0,0,0,0,0,0,0] ", "b1 4096 [1,0,0,0,0,0,0,0] enabled"]);
  });

  it("keeps the name of one that is to be removed until the commit", async () => {
    const it = await scene();
    const removal = removeBitmap(it.graph, B0);
    expect(() => addBitmap(it.graph, B0)).toThrow("has a bitmap 'b0' already");
    expect(() => clearBitmap(it.graph, B0)).toThrow("is busy");
    removal.commit();
    expect(() => addBitmap(it.graph, B0)).not.toThrow();
  });

  it("is refused while a job has the bitmap, or where there is none", async () => {
    const it = await scene();
    it.b0.createSuccessor();
    for (const [name, change] of CHANGES) {
      if (name !== "add") expect(() => change(it), name).toThrow("'b0' of node 'n' is busy");
    }
    expect(() => clearBitmap(it.graph, { node: "n", name: "zz" })).toThrow("has no bitmap 'zz'");
    expect(() => clearBitmap(it.graph, { node: "zz", name: "b0" })).toThrow("node 'zz'");
  });
});

describe("a merge", () => {
  it("takes all sources or none", async () => {
    const it = await scene();
    const before = seen(it);
    it.k.bitmaps.add({ name: "x" }).setAll();
    const x = { node: "k", name: "x" };
    const merge = (...bitmaps: (string | typeof x)[]) =>
      mergeBitmaps(it.graph, { node: "n", target: "b0", bitmaps });
    expect(() => merge(x, "missing")).toThrow("no bitmap 'missing'");
    const inconsistent = { persistent: true, inconsistent: true, enabled: false };
    it.k.bitmaps.add({ name: "bad", ...inconsistent });
    expect(() => merge(x, { node: "k", name: "bad" })).toThrow("is inconsistent");
    it.k.bitmaps.truncate(SIZE + 1);
    expect(() => merge(x)).toThrow(
      "Bitmap 'x' of node 'k' covers 262145 bytes and cannot be merged into bitmap 'b0' " +
        "of node 'n', which covers 262144",
    );
    expect(seen(it)).toEqual(before);
  });

  it("of a bitmap with itself, or of nothing, changes nothing", async () => {
    const it = await scene();
    const before = seen(it);
    mergeBitmaps(it.graph, { node: "n", target: "b0", bitmaps: ["b0"] }).commit();
    mergeBitmaps(it.graph, { node: "n", target: "b0", bitmaps: [] }).commit();
    expect(seen(it)).toEqual(before);
  });
});

describe("a persistent bitmap", () => {
  it("is refused where an image has no place or no room for it, or cannot be written", async () => {
    const { graph } = await scene();
    const add = (node: string, name: string) => () =>
      addBitmap(graph, { node, name, persistent: true }).commit();
    expect(add("n", "p")).toThrow(
      "Bitmap 'p' cannot be kept in the image of node 'n': driver 'memory' has no place for bitmaps",
    );
    for (const name of ["p", "q", "r"]) add("k", name)();
    expect(add("k", "s")).toThrow("No room for a bitmap 's'");
    expect(graph.get("k").bitmaps.find("s")).toBe(undefined);
    await graph.add({ driver: "keeper", "node-name": "ro", size: SIZE, "read-only": true });
    expect(add("ro", "z")).toThrow("it is not open for writing");
    expect(() => addBitmap(graph, { node: "ro", name: "z" })).not.toThrow();
  });

  it("is found again when the image is opened the next time, with its bits and flags", async () => {
    const { graph, k, kept } = await scene();
    const options = { node: "k", granularity: 4096, persistent: true };
    addBitmap(graph, { ...options, name: "p" }).commit();
    addBitmap(graph, { ...options, name: "off", disabled: true }).commit();
    addBitmap(graph, { node: "k", name: "gone" }).commit();
    k.bitmaps.record(8192, 1);
    await storeBitmaps(k);
    expect([...kept.keys()]).toEqual(["p", "off"]);

    const again = await graph.add({ driver: "keeper", "node-name": "again", size: SIZE });
    const flags = again.bitmaps.all().map((map) => [map.name, map.enabled, map.count]);
    expect(flags).toEqual([
      ["p", true, 4096],
      ["off", false, 0],
    ]);
    expect(again.bitmaps.all().every((map) => map.persistent && !map.readOnly)).toBe(true);

    removeBitmap(graph, { node: "again", name: "p" }).commit();
    await storeBitmaps(again);
    expect([...kept.keys()]).toEqual(["off"]);
  });

  it("that was not put back is there without bits, and stays inconsistent until it is removed", async () => {
    const { graph, kept } = await scene();
    const words = new Uint8Array(8).fill(0xff);
    kept.set("bad", { granularity: 4096, enabled: true, inconsistent: true, words });
    const k = await graph.add({ driver: "keeper", "node-name": "k2", size: SIZE });
    const bad = k.bitmaps.get("bad");
    expect([bad.inconsistent, bad.recording, bad.count]).toEqual([true, false, 0]);
    expect(() => enableBitmap(graph, { node: "k2", name: "bad" })).toThrow("is inconsistent");
    await storeBitmaps(k);
    expect(kept.get("bad")!.inconsistent).toBe(true);
    removeBitmap(graph, { node: "k2", name: "bad" }).commit();
    await storeBitmaps(k);
    expect(kept.size).toBe(0);
  });

  it("is read-only as long as its node is", async () => {
    const { graph, k } = await scene();
    addBitmap(graph, { node: "k", name: "p", persistent: true }).commit();
    const p = k.bitmaps.get("p");
    await graph.reopen(k, { readOnly: true });
    expect(() => p.checkUsable("clear")).toThrow("is read-only");
    await graph.reopen(k, { readOnly: false });
    expect(() => p.checkUsable("clear")).not.toThrow();
  });

  it("is not stored while a job has it: what it is to be is not known yet", async () => {
    const { k, graph } = await scene();
    addBitmap(graph, { node: "k", name: "p", persistent: true }).commit();
    k.bitmaps.get("p").createSuccessor();
    await expect(storeBitmaps(k)).rejects.toMatchObject({ errno: "EBUSY" });
    k.bitmaps.get("p").reclaim();
    await storeBitmaps(k);
  });
});
