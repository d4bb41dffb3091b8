/** Dirty bitmaps as a client sees them. */

import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { Perm } from "../../src/block/permissions.ts";
import { Conversation, testEngine, type Wire } from "./conversation.ts";

/** Not a multiple of 4 KiB: the last granule and the last word of the bits are cut. */
const SIZE = 1_000_448;

/** Nodes "n" and "m" of one size, "tiny" of another; `write` is a guest's. */
async function scene() {
  const world = await testEngine();
  const qmp = await new Conversation(world).negotiated();
  const { graph } = world.engine;
  for (const node of ["n", "m"]) {
    await qmp.execute("blockdev-add", { driver: "memory", "node-name": node, size: SIZE });
  }
  await qmp.execute("blockdev-add", { driver: "memory", "node-name": "tiny", size: 512 });
  qmp.transcript();
  const add = (node: string, name: string, more: object = {}) =>
    qmp.execute("block-dirty-bitmap-add", { node, name, ...more });
  return {
    qmp,
    graph,
    add,
    async write(node: string, offset: number, bytes: number): Promise<void> {
      const device = graph.openBackend(graph.get(node), {
        name: "",
        description: "a guest",
        permissions: { take: Perm.write, share: Perm.all },
      });
      await device.write(new Uint8Array(bytes), offset);
      await graph.closeBackend(device);
    },
    async sha256(node: string, name: string): Promise<unknown> {
      const reply = await qmp.execute("x-debug-block-dirty-bitmap-sha256", { node, name });
      return (reply["return"] as { sha256: string } | undefined)?.sha256;
    },
    async shown(node: string): Promise<Wire[] | undefined> {
      const reply = await qmp.execute("query-named-block-nodes");
      const nodes = reply["return"] as Wire[];
      return nodes.find((info) => info["node-name"] === node)?.["dirty-bitmaps"] as Wire[];
    },
  };
}

describe("dirty bitmaps", () => {
  it("are made, switched, cleared, merged and removed by name", async () => {
    const { qmp, write } = await scene();
    const b0 = { node: "n", name: "b0" };
    await qmp.execute("block-dirty-bitmap-add", { ...b0, granularity: 4096 });
    await qmp.execute("block-dirty-bitmap-add", { node: "n", name: "b1", disabled: true });
    await write("n", 4095, 2);
    await qmp.execute("block-dirty-bitmap-disable", b0);
    await write("n", 500_000, 1);
    await qmp.execute("block-dirty-bitmap-enable", b0);
    await write("n", SIZE - 1, 1);
    await qmp.execute("block-dirty-bitmap-merge", { node: "n", target: "b1", bitmaps: ["b0"] });
    const named = await qmp.execute("query-named-block-nodes");
    const [node] = (named["return"] as Wire[]).filter((info) => info["node-name"] === "n");
    expect(node!["dirty-bitmaps"]).toEqual([
      {
        name: "b1",
        count: 131_072,
        granularity: 65_536,
        recording: false,
        busy: false,
        persistent: false,
      },
      {
        name: "b0",
        count: 12_288,
        granularity: 4096,
        recording: true,
        busy: false,
        persistent: false,
      },
    ]);
    qmp.transcript();
    await qmp.execute("block-dirty-bitmap-clear", b0);
    await qmp.execute("block-dirty-bitmap-remove", b0);
    await qmp.execute("block-dirty-bitmap-remove", b0);
    await qmp.execute("block-dirty-bitmap-clear", { node: "nope", name: "b0" });
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"block-dirty-bitmap-clear","arguments":{"node":"n","name":"b0"}}
      <- {"return":{}}
      -> {"execute":"block-dirty-bitmap-remove","arguments":{"node":"n","name":"b0"}}
      <- {"return":{}}
      -> {"execute":"block-dirty-bitmap-remove","arguments":{"node":"n","name":"b0"}}
      <- {"error":{"class":"GenericError","desc":"Node 'n' has no bitmap 'b0'"}}
      -> {"execute":"block-dirty-bitmap-clear","arguments":{"node":"nope","name":"b0"}}
      <- {"error":{"class":"GenericError","desc":"Cannot find device or node 'nope'"}}
      "
    `);
  });

  it("are in the answers of both queries, and not in those of nodes that have none", async () => {
    const { qmp, add, shown, graph } = await scene();
    await add("n", "b0");
    const granularity = 512;
    const info = { count: 0, granularity, busy: false, persistent: false };
    graph.get("n").bitmaps.add({ name: null, granularity, enabled: false });
    const inconsistent = { persistent: true, inconsistent: true, enabled: false };
    graph.get("n").bitmaps.add({ name: "bad", granularity, ...inconsistent });
    graph.get("n").bitmaps.get("b0").createSuccessor();
    const wanted = [
      { ...info, name: "bad", recording: false, persistent: true, inconsistent: true },
      { ...info, recording: false },
      { ...info, granularity: 65_536, recording: true },
      { ...info, name: "b0", granularity: 65_536, recording: true, busy: true },
    ];
    expect(await shown("n")).toEqual(wanted);
    expect(await shown("m")).toBe(undefined);

    const permissions = { take: Perm.write, share: Perm.all };
    graph.openBackend(graph.get("n"), { name: "vda", description: "vda", permissions });
    const reply = await qmp.execute("query-block");
    const [device] = reply["return"] as { inserted: Wire }[];
    expect(device!.inserted["dirty-bitmaps"]).toEqual(wanted);
  });

  it("are found by the name of a device, too", async () => {
    const { qmp, graph, shown } = await scene();
    const permissions = { take: Perm.write, share: Perm.all };
    graph.openBackend(graph.get("n"), { name: "vda", description: "vda", permissions });
    await qmp.execute("block-dirty-bitmap-add", { node: "vda", name: "b0" });
    expect(await shown("n")).toHaveLength(1);
  });

  it("hash as QEMU's do: whole words, and nothing set past the end", async () => {
    const { add, write, sha256 } = await scene();
    await add("n", "b0", { granularity: 512 });
    await write("n", 0, SIZE);
    // What qemu-storage-daemon 7.2 answers for a raw disk of that size, written from end to end.
    expect(await sha256("n", "b0")).toBe(
      "61387e0d98b6a520f86e66c684c9589a1f76e3c46405728fcdf4e4d8140ce37c",
    );
    await add("n", "b1", { granularity: 65_536 });
    await write("n", 65_536, 1);
    expect(await sha256("n", "b1")).toBe(hash([2, 0, 0, 0, 0, 0, 0, 0]));
    expect(await sha256("n", "nope")).toBe(undefined);
  });

  it("are refused where a client asks for what cannot be", async () => {
    const { qmp, add } = await scene();
    await add("n", "p", { persistent: true });
    await add("n", "b", { granularity: "4096" });
    await qmp.execute("block-dirty-bitmap-merge", { node: "n", target: "b", bitmaps: [1] });
    await qmp.execute("block-dirty-bitmap-add", { node: "n" });
    expect(qmp.transcript()).toMatchInlineSnapshot(`
      "
      -> {"execute":"block-dirty-bitmap-add","arguments":{"node":"n","name":"p","persistent":true}}
      <- {"error":{"class":"GenericError","desc":"Bitmap 'p' cannot be kept in the image of node 'n': driver 'memory' has no place for bitmaps"}}
      -> {"execute":"block-dirty-bitmap-add","arguments":{"node":"n","name":"b","granularity":"4096"}}
      <- {"error":{"class":"GenericError","desc":"Invalid parameter type for 'granularity', expected: integer"}}
      -> {"execute":"block-dirty-bitmap-merge","arguments":{"node":"n","target":"b","bitmaps":[1]}}
      <- {"error":{"class":"GenericError","desc":"Invalid parameter type for 'bitmaps[0]', expected: string or object"}}
      -> {"execute":"block-dirty-bitmap-add","arguments":{"node":"n"}}
      <- {"error":{"class":"GenericError","desc":"Parameter 'name' is missing"}}
      "
    `);
  });
});

it("#118 bitmaps of other granularities merge, those of another size do not, and of all or none", async () => {
  const { qmp, add, write, sha256 } = await scene();
  await add("n", "fine", { granularity: 512 });
  await add("m", "coarse", { granularity: 65_536 });
  await write("n", 131_071, 2);
  const merge = (...bitmaps: unknown[]) =>
    qmp.execute("block-dirty-bitmap-merge", { node: "m", target: "coarse", bitmaps });
  const fine = { node: "n", name: "fine" };
  expect(await merge(fine)).toEqual({ return: {} });
  const merged = hash([6, 0, 0, 0, 0, 0, 0, 0]);
  expect(await sha256("m", "coarse")).toBe(merged);

  await write("n", 0, SIZE);
  await add("tiny", "t");
  qmp.transcript();
  await merge({ node: "tiny", name: "t" });
  await merge(fine, { node: "tiny", name: "t" });
  await merge(fine, "missing");
  await merge(fine, { node: "missing", name: "fine" });
  expect(qmp.transcript()).toMatchInlineSnapshot(`
    "
    -> {"execute":"block-dirty-bitmap-merge","arguments":{"node":"m","target":"coarse","bitmaps":[{"node":"tiny","name":"t"}]}}
    <- {"error":{"class":"GenericError","desc":"Bitmap 't' of node 'tiny' covers 512 bytes and cannot be merged into bitmap 'coarse' of node 'm', which covers 1000448"}}
    -> {"execute":"block-dirty-bitmap-merge","arguments":{"node":"m","target":"coarse","bitmaps":[{"node":"n","name":"fine"},{"node":"tiny","name":"t"}]}}
    <- {"error":{"class":"GenericError","desc":"Bitmap 't' of node 'tiny' covers 512 bytes and cannot be merged into bitmap 'coarse' of node 'm', which covers 1000448"}}
    -> {"execute":"block-dirty-bitmap-merge","arguments":{"node":"m","target":"coarse","bitmaps":[{"node":"n","name":"fine"},"missing"]}}
    <- {"error":{"class":"GenericError","desc":"Node 'm' has no bitmap 'missing'"}}
    -> {"execute":"block-dirty-bitmap-merge","arguments":{"node":"m","target":"coarse","bitmaps":[{"node":"n","name":"fine"},{"node":"missing","name":"fine"}]}}
    <- {"error":{"class":"GenericError","desc":"Cannot find device or node 'missing'"}}
    "
  `);
  expect(await sha256("m", "coarse")).toBe(merged);
});

it("#119 a bitmap with a granularity or a name that cannot be is refused", async () => {
  const { qmp, add, shown } = await scene();
  await add("n", "b", { granularity: 256 });
  await add("n", "b", { granularity: 64_000 });
  await add("n", "b", { granularity: 2 ** 32 });
  await add("n", "");
  await add("n", "x".repeat(1023));
  await add("n", "x".repeat(1023));
  await add("n", "x".repeat(1024));
  const text = qmp.transcript().replace(/x{1023,}/g, (name) => `(${name.length} x)`);
  expect(text).toMatchInlineSnapshot(`
    "
    -> {"execute":"block-dirty-bitmap-add","arguments":{"node":"n","name":"b","granularity":256}}
    <- {"error":{"class":"GenericError","desc":"Bitmap 'b' of node 'n' cannot have a granularity of 256: it takes a power of two from 512 to 2147483648"}}
    -> {"execute":"block-dirty-bitmap-add","arguments":{"node":"n","name":"b","granularity":64000}}
    <- {"error":{"class":"GenericError","desc":"Bitmap 'b' of node 'n' cannot have a granularity of 64000: it takes a power of two from 512 to 2147483648"}}
    -> {"execute":"block-dirty-bitmap-add","arguments":{"node":"n","name":"b","granularity":4294967296}}
    <- {"error":{"class":"GenericError","desc":"Bitmap 'b' of node 'n' cannot have a granularity of 4294967296: it takes a power of two from 512 to 2147483648"}}
    -> {"execute":"block-dirty-bitmap-add","arguments":{"node":"n","name":""}}
    <- {"error":{"class":"GenericError","desc":"A bitmap's name has 1 to 1023 bytes; the one for node 'n' has 0"}}
    -> {"execute":"block-dirty-bitmap-add","arguments":{"node":"n","name":"(1023 x)"}}
    <- {"return":{}}
    -> {"execute":"block-dirty-bitmap-add","arguments":{"node":"n","name":"(1023 x)"}}
    <- {"error":{"class":"GenericError","desc":"Node 'n' has a bitmap '(1023 x)' already"}}
    -> {"execute":"block-dirty-bitmap-add","arguments":{"node":"n","name":"(1024 x)"}}
    <- {"error":{"class":"GenericError","desc":"A bitmap's name has 1 to 1023 bytes; the one for node 'n' has 1024"}}
    "
  `);
  expect(await shown("n")).toHaveLength(1);
});

function hash(words: readonly number[]): string {
  return createHash("sha256").update(new Uint8Array(words)).digest("hex");
}
