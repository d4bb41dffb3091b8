import { describe, expect, it } from "vitest";
import type { BlockBackend } from "../../src/block/backend.ts";
import { Graph } from "../../src/block/graph.ts";
import type { BlockdevOptions } from "../../src/block/options.ts";
import { Perm } from "../../src/block/permissions.ts";
import { copyOnRead } from "../../src/drivers/filter/copy-on-read.ts";
import { blobDriver } from "../../src/drivers/protocol/blob.ts";
import { memoryDriver } from "../../src/drivers/protocol/memory.ts";
import { faultyDriver } from "../blockjob/faulty.ts";
import { testWorld } from "../world.ts";
import { tinyFormat } from "./tiny-format.ts";

const WRITER = Perm.consistentRead | Perm.write;

describe("Graph.reopen()", () => {
  it("changes a node and what was opened with it, and back", async () => {
    const { graph } = await makeGraph();
    await graph.add(tiny("disk", { "read-only": true, file: store("file") }));
    expect(modes(graph)).toEqual({ disk: "ro", file: "ro" });
    expect(() => device(graph, "disk", WRITER)).toThrow("read-only");

    await graph.reopen(graph.get("disk"), { readOnly: false });
    expect(modes(graph)).toEqual({ disk: "rw", file: "rw" });
    const writer = device(graph, "disk", WRITER);
    await writer.write(new Uint8Array(600).fill(7), 100);
    await graph.closeBackend(writer);

    await graph.reopen(graph.get("disk"), { readOnly: true });
    expect(modes(graph)).toEqual({ disk: "ro", file: "ro" });
    const buf = new Uint8Array(600);
    await device(graph, "disk", Perm.consistentRead).read(buf, 100);
    expect(buf.every((byte) => byte === 7)).toBe(true);
  });

  it("takes the right to write below only while the node has it", async () => {
    const { graph } = await makeGraph();
    await graph.add(tiny("disk", { "read-only": true, file: store("file") }));
    const file = () => graph.get("disk").children.get("file")!.permissions;
    expect(file().take & Perm.write).toBe(0);
    await graph.reopen(graph.get("disk"), { readOnly: false });
    expect(file().take & (Perm.write | Perm.resize)).toBe(Perm.write | Perm.resize);
    await graph.reopen(graph.get("disk"), { readOnly: true });
    expect(file().take & Perm.write).toBe(0);
  });

  it("leaves backing files and nodes of others as they are", async () => {
    const { graph } = await makeGraph();
    await graph.add(store("theirs"));
    await graph.add(tiny("disk", { file: "theirs", backing: tiny("base") }));
    await graph.reopen(graph.get("disk"), { readOnly: true });
    expect(modes(graph)).toMatchObject({ disk: "ro", theirs: "rw", base: "ro" });
    await graph.reopen(graph.get("disk"), { readOnly: false });
    expect(modes(graph)).toMatchObject({ disk: "rw", theirs: "rw", base: "ro" });
  });

  it("does not make another's node writable, nor one that was to be read only, naming it", async () => {
    const { graph } = await makeGraph();
    await graph.add({ ...store("theirs"), "read-only": true });
    await graph.add(tiny("a", { "read-only": true, file: "theirs" }));
    const explicit = { ...store("said"), "read-only": true };
    await graph.add(tiny("b", { "read-only": true, file: explicit }));
    for (const [name, below] of Object.entries({ a: "theirs", b: "said" })) {
      const attempt = graph.reopen(graph.get(name), { readOnly: false });
      await expect(attempt).rejects.toMatchObject({ errno: "EROFS" });
      await expect(attempt).rejects.toThrow(`node '${below}' below it is read-only`);
    }
    expect(modes(graph)).toEqual({ theirs: "ro", a: "ro", said: "ro", b: "ro" });
  });

  it("does not take the right from one who uses it", async () => {
    const { graph } = await makeGraph();
    await graph.add(tiny("disk", { file: store("file") }));
    const writer = device(graph, "disk", WRITER);
    const attempt = graph.reopen(graph.get("disk"), { readOnly: true });
    await expect(attempt).rejects.toThrow("cannot be made read-only: device 'vda'");
    await expect(attempt).rejects.toMatchObject({ errno: "EPERM" });
    expect(modes(graph)).toEqual({ disk: "rw", file: "rw" });
    await writer.write(new Uint8Array(10), 0);
  });

  it("is undone where somebody else does not share the file", async () => {
    const { graph } = await makeGraph();
    await graph.add(tiny("disk", { "read-only": true, file: store("file") }));
    const reader = device(graph, "file", Perm.consistentRead, Perm.consistentRead);
    const before = graph.get("disk").children.get("file")!.permissions;
    const attempt = graph.reopen(graph.get("disk"), { readOnly: false });
    await expect(attempt).rejects.toMatchObject({ errno: "EPERM" });
    await expect(attempt).rejects.toThrow("node 'file'");
    expect(modes(graph)).toEqual({ disk: "ro", file: "ro" });
    expect(graph.get("disk").children.get("file")!.permissions).toEqual(before);
    await graph.closeBackend(reader);
    await graph.reopen(graph.get("disk"), { readOnly: false });
  });

  it.each(["disk", "file", "data"])("is undone when '%s' cannot be changed", async (name) => {
    for (const readOnly of [true, false]) {
      const { graph, faulty } = await makeGraph();
      const file = { ...store("file"), driver: name === "file" ? "faulty" : "memory" };
      const data = { ...store("data"), driver: name === "data" ? "faulty" : "memory" };
      const disk = tiny("disk", { "read-only": !readOnly, file, "data-file": data });
      await graph.add({ ...disk, driver: name === "disk" ? "stubborn" : "tiny" });
      const before = modes(graph);
      faulty.fault = { op: "reopen", errno: "EIO" };
      const attempt = graph.reopen(graph.get("disk"), { readOnly });
      const errno = name === "disk" ? "ENOTSUP" : "EIO";
      await expect(attempt).rejects.toMatchObject({ errno });
      expect(modes(graph), `to ${readOnly ? "ro" : "rw"}`).toEqual(before);
      faulty.fault = null;
      // What it says about permissions is true again, too.
      const writes = graph.get("disk").children.get("file")!.permissions.take & Perm.write;
      expect(writes !== 0).toBe(readOnly);
      if (readOnly) await device(graph, "disk", WRITER).write(new Uint8Array(9), 9);
    }
  });

  it("flushes what was written before it lets go of the right", async () => {
    const { graph, faulty } = await makeGraph();
    await graph.add(tiny("disk", { file: { ...store("file"), driver: "faulty" } }));
    faulty.fault = { op: "flush", errno: "ENOSPC" };
    const attempt = graph.reopen(graph.get("disk"), { readOnly: true });
    await expect(attempt).rejects.toMatchObject({ errno: "ENOSPC" });
    expect(modes(graph)).toEqual({ disk: "rw", file: "rw" });
  });

  it("waits for requests under way, and holds back those to come", async () => {
    const { graph } = await makeGraph();
    await graph.add(tiny("disk", { "read-only": true, file: store("file") }));
    const reader = device(graph, "disk", Perm.consistentRead);
    const order: string[] = [];
    const read = (name: string) =>
      reader.read(new Uint8Array(5000), 0).then(() => order.push(name));
    const before = read("before");
    const reopened = graph.reopen(graph.get("disk"), { readOnly: false });
    const change = reopened.then(() => order.push("reopened"));
    const after = read("after");
    await Promise.all([before, change, after]);
    expect(order[0]).toBe("before");
    expect(order).toContain("after");
  });

  it("takes one after another, and each sees what the one before has done", async () => {
    const { graph } = await makeGraph();
    await graph.add(tiny("disk", { file: store("file") }));
    const disk = graph.get("disk");
    await Promise.all([true, false, true].map((readOnly) => graph.reopen(disk, { readOnly })));
    expect(modes(graph)).toEqual({ disk: "ro", file: "ro" });
  });

  it("goes through filters that were opened with what is below", async () => {
    const { graph } = await makeGraph();
    const filter = { driver: "copy-on-read", "node-name": "cor", file: tiny("below") };
    await graph.add({ ...filter, "read-only": true } as never);
    await graph.reopen(graph.get("cor"), { readOnly: false });
    expect(modes(graph)).toMatchObject({ cor: "rw", below: "rw" });
    await graph.reopen(graph.get("cor"), { readOnly: true });
    expect(modes(graph)).toMatchObject({ cor: "ro", below: "ro" });
  });

  it("keeps the node open until it is done", async () => {
    const { graph } = await makeGraph();
    await graph.add(tiny("disk", { file: store("file") }));
    const reopened = graph.reopen(graph.get("disk"), { readOnly: true });
    await expect(graph.remove("disk")).rejects.toMatchObject({ errno: "EBUSY" });
    await reopened;
    await graph.remove("disk");
    expect(graph.nodes).toEqual([]);
  });

  it("says EROFS of a store that nobody can write to", async () => {
    const { graph } = await makeGraph();
    await graph.add({ driver: "blob", name: "b", "node-name": "blob", "read-only": true });
    const attempt = graph.reopen(graph.get("blob"), { readOnly: false });
    await expect(attempt).rejects.toMatchObject({ errno: "EROFS" });
    expect(modes(graph)).toEqual({ blob: "ro" });
  });
});

async function makeGraph() {
  const faulty = faultyDriver("faulty");
  const withData = { ...tinyFormat, roles: { ...tinyFormat.roles, "data-file": false } };
  const stubborn = {
    ...withData,
    name: "stubborn",
    async open(context: never) {
      const { reopen: _, ...state } = await tinyFormat.open(context);
      return state;
    },
  };
  const blob = blobDriver(new Map([["b", new Blob(["bytes"])]]));
  const drivers = [memoryDriver(), withData, stubborn, copyOnRead, faulty, blob];
  return { graph: new Graph(await testWorld(), drivers as never), faulty };
}

function tiny(name: string, more: object = {}): BlockdevOptions {
  const common = { driver: "tiny", "node-name": name, size: 65536, "cluster-size": 4096 };
  return { ...common, file: { driver: "memory", size: 0 }, ...more };
}

function store(name: string): BlockdevOptions {
  return { driver: "memory", "node-name": name, size: 0 };
}

function device(graph: Graph, node: string, take: number, share: number = Perm.all): BlockBackend {
  return graph.openBackend(graph.get(node), {
    name: "vda",
    description: "device 'vda'",
    permissions: { take, share },
  });
}

/** Of the nodes with a name. */
function modes(graph: Graph): Record<string, string> {
  const named = graph.nodes.filter((node) => !node.name.startsWith("#"));
  return Object.fromEntries(named.map((node) => [node.name, node.readOnly ? "ro" : "rw"]));
}
