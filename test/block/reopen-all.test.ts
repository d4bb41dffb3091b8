/** blockdev-reopen on the graph: several nodes with other options, all of them or none. */

import { describe, expect, it } from "vitest";
import type { BlockBackend } from "../../src/block/backend.ts";
import type { BlockDriver } from "../../src/block/driver.ts";
import { Graph } from "../../src/block/graph.ts";
import type { BlockdevOptions } from "../../src/block/options.ts";
import { Perm } from "../../src/block/permissions.ts";
import { throttle } from "../../src/drivers/filter/throttle.ts";
import { qcow2Driver } from "../../src/drivers/format/qcow2/index.ts";
import { rawDriver } from "../../src/drivers/format/raw.ts";
import { type MemoryStore, memoryDriver } from "../../src/drivers/protocol/memory.ts";
import { faultyDriver } from "../blockjob/faulty.ts";
import { testWorld } from "../world.ts";
import { tinyFormat } from "./tiny-format.ts";

const SIZE = 64 * 1024;

describe("Graph.reopenAll()", () => {
  it("sets what is given, and everything else back to its default", async () => {
    const { graph } = await makeGraph();
    await graph.add(raw("disk", { "detect-zeroes": "on", discard: "ignore", offset: 512 }));
    const disk = graph.get("disk");
    await graph.reopenAll([raw("disk", { cache: { direct: true } })]);
    expect(disk.settings).toMatchObject({ detectZeroes: "off", discard: "unmap", direct: true });
    expect(disk.options).toEqual({});
    expect(disk.state.getLength!()).toBe(SIZE);
  });

  it("makes nodes read-only and writable together, in whatever order they are named", async () => {
    const { graph } = await makeGraph();
    await graph.add(store("file"));
    // Whether anybody uses it or not, it writes to its file.
    await graph.add(tiny("disk", { file: "file" }));
    for (const readOnly of [true, false, true]) {
      const both = [
        { ...store("file"), "read-only": readOnly },
        tiny("disk", { file: "file", "read-only": readOnly }),
      ];
      await graph.reopenAll(readOnly ? both : both.reverse());
      expect([graph.get("file").readOnly, graph.get("disk").readOnly]).toEqual([
        readOnly,
        readOnly,
      ]);
    }
    const alone = graph.reopenAll([tiny("disk", { file: "file" })]);
    await expect(alone).rejects.toMatchObject({ errno: "EROFS" });
  });

  it("takes the options of a child that was opened with its parent, and of no other", async () => {
    const { graph } = await makeGraph();
    await graph.add(store("theirs"));
    await graph.add(raw("a", { file: "theirs" }));
    await graph.add(raw("b", { file: store("own") }));
    await graph.reopenAll([
      raw("b", { file: { ...store("own"), "read-only": true }, "read-only": true }),
    ]);
    expect(graph.get("own").readOnly).toBe(true);
    expect(graph.get("own").followsParent).toBe(false);
    const refused = graph.reopenAll([raw("a", { file: store("theirs") })]);
    await expect(refused).rejects.toThrow("Option 'file.driver' of node 'a' cannot be changed");
    const renamed = graph.reopenAll([raw("b", { file: store("other") })]);
    await expect(renamed).rejects.toThrow("Option 'node-name'");
  });

  it("names what cannot be changed or left out", async () => {
    const { graph } = await makeGraph();
    await graph.add(tiny("disk", { backing: tiny("base") }));
    const attempts: readonly [BlockdevOptions, string][] = [
      [
        tiny("disk", { size: 5, backing: "base" }),
        "Option 'size' of node 'disk' cannot be changed",
      ],
      [tiny("disk"), "Parameter 'backing' is missing for node 'disk'"],
      [raw("disk"), "Option 'driver'"],
      [{ driver: "tiny", size: 1, "cluster-size": 1 }, "Parameter 'options[0].file' is missing"],
      [tiny("disk", { backing: "nope" }), "Cannot find node 'nope'"],
      [tiny("disk", { backing: "disk" }), "circle"],
      [tiny("disk", { backing: "base", "force-share": true, "read-only": true }), "'force-share'"],
      [{ driver: "memory", "node-name": "m" }, "Option 'size' of node 'm' cannot go back"],
    ];
    await graph.add(store("m"));
    for (const [options, text] of attempts) {
      await expect(graph.reopenAll([options])).rejects.toThrow(text);
    }
    const nameless = graph.reopenAll([raw("x"), { driver: "raw", file: "m" }]);
    await expect(nameless).rejects.toThrow("Cannot find node 'x'");
  });

  it("gives another backing file, or none, and closes one that nobody needs any more", async () => {
    const { graph } = await makeGraph();
    await graph.add(tiny("other"));
    await graph.add(tiny("disk", { backing: tiny("base") }));
    await graph.reopenAll([tiny("disk", { backing: "other" })]);
    expect(graph.get("disk").children.get("backing")!.node.name).toBe("other");
    expect(graph.find("base")).toBeUndefined();
    await graph.reopenAll([tiny("disk", { backing: null })]);
    expect(graph.get("disk").children.has("backing")).toBe(false);
    await graph.reopenAll([tiny("disk")]);
    expect(graph.find("other")).toBeDefined();
  });

  it("refuses links that a job relies on, and changes nothing else then", async () => {
    const { graph } = await makeGraph();
    await graph.add(tiny("disk", { backing: tiny("base") }));
    await graph.add(store("m"));
    graph.get("disk").children.get("backing")!.frozen++;
    const attempt = graph.reopenAll([
      { ...store("m"), "read-only": true, "detect-zeroes": "on" },
      tiny("disk", { backing: null }),
    ]);
    await expect(attempt).rejects.toMatchObject({ errno: "EBUSY" });
    expect(graph.get("m").readOnly).toBe(false);
    expect(graph.get("m").settings.detectZeroes).toBe("off");
  });

  it("leaves what a job works on where it is, but for filters", async () => {
    const { graph } = await makeGraph();
    for (const name of ["a", "b"]) await graph.add(store(name));
    graph.throttleGroups.add("t0", {});
    await graph.add({ driver: "throttle", "node-name": "slow", "throttle-group": "t0", file: "a" });
    await graph.add(raw("low", { file: "a" }));
    await graph.add(raw("free", { file: "b" }));
    await graph.add(tiny("disk", { backing: "low" }));
    graph.get("disk").blockers.add({ reason: "a job works on it" });
    await expect(graph.reopenAll([raw("low", { file: "b" })])).rejects.toMatchObject({
      errno: "EBUSY",
      message: expect.stringContaining("a job works on it"),
    });
    for (const window of [{ offset: 512 }, { size: 512 }]) {
      const moved = graph.reopenAll([raw("low", { file: "a", ...window })]);
      await expect(moved).rejects.toMatchObject({ errno: "EBUSY" });
    }
    expect(graph.movesBytes([raw("free", { file: "b", offset: 512 })])).toBe(true);
    for (const file of ["slow", "a"]) {
      await graph.reopenAll([raw("low", { file })]);
      expect(graph.get("low").children.get("file")!.node.name).toBe(file);
    }
  });

  it("is taken back whole when the last of it fails, links and windows too", async () => {
    const { graph, faulty } = await makeGraph();
    await graph.add(store("other"));
    await graph.add(raw("disk", { file: store("first"), size: 512 }));
    const last = { ...store("last"), driver: "faulty" };
    await graph.add({ ...last, "read-only": true });
    faulty.fault = { op: "reopen", errno: "EIO" };
    const before = state(graph);
    const attempt = graph.reopenAll([
      raw("disk", { file: "other", offset: 1024, "read-only": true }),
      last,
    ]);
    await expect(attempt).rejects.toMatchObject({ errno: "EIO" });
    expect(state(graph)).toEqual(before);
    expect(graph.get("disk").state.getLength!()).toBe(512);
    const user = device(graph, "disk");
    await user.write(new Uint8Array(512).fill(7), 0);
    const first = device(graph, "first", Perm.consistentRead);
    expect(await content(first, 512)).toEqual(new Uint8Array(512).fill(7));
  });

  it("does not take the right to write from one who uses it", async () => {
    const { graph } = await makeGraph();
    await graph.add(raw("disk"));
    const user = device(graph, "disk");
    const attempt = graph.reopenAll([raw("disk", { "read-only": true })]);
    await expect(attempt).rejects.toMatchObject({ errno: "EPERM" });
    await user.write(new Uint8Array(5), 0);
  });

  it("waits for requests under way, and those to come find the disk changed", async () => {
    const { graph } = await makeGraph();
    await graph.add(store("second"));
    await graph.add(raw("disk", { file: "second", offset: SIZE / 2 }));
    const user = device(graph, "disk");
    const order: string[] = [];
    const write = (byte: number) =>
      user.write(new Uint8Array(512).fill(byte), 0).then(() => order.push(`write ${byte}`));
    const before = write(1);
    const change = graph
      .reopenAll([raw("disk", { file: "second" })])
      .then(() => order.push("reopened"));
    await Promise.all([before, change, write(2)]);
    expect(order[0]).toBe("write 1");
    const below = device(graph, "second", Perm.consistentRead);
    const all = await content(below, SIZE);
    expect([all[0], all[SIZE / 2]]).toEqual([2, 1]);
  });

  it("moves a qcow2 image under a filter and back while it is written", async () => {
    const { graph } = await makeGraph();
    graph.throttleGroups.add("t0", {});
    await graph.add({ driver: "memory", "node-name": "file", name: "image" });
    await graph.add({
      driver: "throttle",
      "node-name": "slow",
      "throttle-group": "t0",
      file: "file",
    });
    await makeQcow2(graph, "file");
    const qcow2 = (more: object = {}) => ({
      driver: "qcow2",
      "node-name": "disk",
      file: "file",
      ...more,
    });
    await graph.add(qcow2());
    const user = device(graph, "disk");
    await user.write(new Uint8Array(4096).fill(1), 0);
    // The filter has a user of the file below it, which is the image itself: it must let go first.
    await graph.reopenAll([qcow2({ file: "slow", "cache-size": 131072 })]);
    await user.write(new Uint8Array(4096).fill(2), 4096);
    await graph.reopenAll([qcow2()]);
    const bytes = await content(user, 8192);
    expect([bytes[0], bytes[4096]]).toEqual([1, 2]);
    expect(graph.get("slow").parents.size).toBe(0);
  });

  it("refuses to put a qcow2 image on a file that has none, and goes on with its own", async () => {
    const { graph } = await makeGraph();
    await graph.add({ driver: "memory", "node-name": "file", name: "image" });
    await graph.add(store("empty"));
    await makeQcow2(graph, "file");
    await graph.add({ driver: "qcow2", "node-name": "disk", file: "file" });
    const user = device(graph, "disk");
    await user.write(new Uint8Array(4096).fill(1), 0);
    const attempt = graph.reopenAll([{ driver: "qcow2", "node-name": "disk", file: "empty" }]);
    await expect(attempt).rejects.toMatchObject({ errno: "EINVAL" });
    await user.write(new Uint8Array(4096).fill(2), 4096);
    const bytes = await content(user, 8192);
    expect([bytes[0], bytes[4096]]).toEqual([1, 2]);
    await graph.closeBackend(user);
    await graph.remove("disk");
    await graph.add({ driver: "qcow2", "node-name": "again", file: "file", "read-only": true });
    expect((await content(device(graph, "again", Perm.consistentRead), 4097))[4096]).toBe(2);
  });

  it("has the bitmaps of the image that it comes to, and leaves the other's where they are", async () => {
    const { graph } = await makeGraph();
    for (const file of ["one", "two"]) {
      await graph.add({ driver: "memory", "node-name": file, size: 0 });
      await makeQcow2(graph, file);
      await keepBitmap(graph, file, `of-${file}`);
    }
    const on = (file: string) => ({ driver: "qcow2", "node-name": "disk", file });
    await graph.add(on("one"));
    const user = device(graph, "disk");
    await user.write(new Uint8Array(512), 0);
    await graph.reopenAll([on("two")]);
    expect(marks(graph)).toEqual([["of-two", 0]]);
    await user.write(new Uint8Array(512), 0);
    await graph.closeBackend(user);
    await graph.remove("disk");
    for (const file of ["one", "two"]) {
      await graph.add(on(file));
      expect(marks(graph)).toEqual([[`of-${file}`, SIZE]]);
      await graph.remove("disk");
    }
  });

  it("has its old bitmaps back, the very same, if it is taken back", async () => {
    const { graph, faulty } = await makeGraph();
    for (const file of ["one", "two"]) {
      await graph.add({ driver: "memory", "node-name": file, size: 0 });
      await makeQcow2(graph, file);
      await keepBitmap(graph, file, `of-${file}`);
    }
    const on = (file: string) => ({ driver: "qcow2", "node-name": "disk", file });
    await graph.add(on("one"));
    await graph.add({ ...store("last"), driver: "faulty", "read-only": true });
    const [bitmap] = graph.get("disk").bitmaps.all();
    faulty.fault = { op: "reopen", errno: "EIO" };
    const attempt = graph.reopenAll([on("two"), { ...store("last"), driver: "faulty" }]);
    await expect(attempt).rejects.toMatchObject({ errno: "EIO" });
    expect(graph.get("disk").bitmaps.all()).toEqual([bitmap]);

    faulty.fault = null;
    bitmap!.setBusy(true);
    await expect(graph.reopenAll([on("two")])).rejects.toMatchObject({ errno: "EBUSY" });
    bitmap!.setBusy(false);
    await graph.remove("disk");
    await graph.add(on("two"));
    expect(marks(graph)).toEqual([["of-two", 0]]);
  });

  it("moves a throttle node to another group, which lets the old one go", async () => {
    const { graph } = await makeGraph();
    graph.throttleGroups.add("t0", { "bps-total": 1 });
    graph.throttleGroups.add("t1", {});
    const node = (group: string) => ({
      driver: "throttle",
      "node-name": "th",
      "throttle-group": group,
      file: store("file"),
    });
    await graph.add(node("t0"));
    const user = device(graph, "th");
    await user.write(new Uint8Array(512), 0);
    const late = user.write(new Uint8Array(512), 0);
    await graph.reopenAll([node("t1")]);
    await late;
    await user.write(new Uint8Array(SIZE), 0);
    graph.throttleGroups.remove("t0");
    expect(() => graph.throttleGroups.remove("t1")).toThrow("in use");
    await expect(graph.reopenAll([node("nope")])).rejects.toThrow("Throttle group 'nope'");
  });
});

async function makeGraph() {
  const faulty = faultyDriver("faulty");
  const stores = new Map<string, MemoryStore>();
  const memory = memoryDriver(stores);
  const world = await testWorld();
  const openable = { ...tinyFormat, reopenOptions: [] };
  const drivers = [memory, rawDriver(), openable, { ...faulty, reopenOptions: [] }, throttle];
  await memory.create!({ world, options: { name: "image", size: 0 } });
  const graph = new Graph(world, [...drivers, qcow2Driver()] as BlockDriver[]);
  return { graph, faulty };
}

async function makeQcow2(graph: Graph, file: string): Promise<void> {
  const all = { take: Perm.all, share: Perm.consistentRead };
  const maker = graph.openBackend(graph.get(file), {
    name: "",
    description: "mkfs",
    permissions: all,
  });
  const { world } = graph;
  await qcow2Driver().create!({ world, options: { size: SIZE }, file: maker.edge });
  await graph.closeBackend(maker);
}

/** An image gets a bitmap that outlives its node. */
async function keepBitmap(graph: Graph, file: string, name: string): Promise<void> {
  const node = await graph.add({ driver: "qcow2", "node-name": "maker", file });
  node.bitmaps.add({ name, persistent: true });
  await graph.remove("maker");
}

function marks(graph: Graph): (string | number | null)[][] {
  return graph
    .get("disk")
    .bitmaps.all()
    .map(({ name, count }) => [name, count]);
}

function raw(name: string, more: object = {}): BlockdevOptions {
  return { driver: "raw", "node-name": name, file: { driver: "memory", size: SIZE }, ...more };
}

function tiny(name: string, more: object = {}): BlockdevOptions {
  const common = { driver: "tiny", "node-name": name, size: SIZE, "cluster-size": 4096 };
  return { ...common, file: { driver: "memory", size: 0 }, ...more };
}

function store(name: string): BlockdevOptions {
  return { driver: "memory", "node-name": name, size: SIZE };
}

function device(
  graph: Graph,
  node: string,
  take: number = Perm.consistentRead | Perm.write,
): BlockBackend {
  return graph.openBackend(graph.get(node), {
    name: "",
    description: `user of '${node}'`,
    permissions: { take, share: Perm.all },
  });
}

async function content(backend: BlockBackend, bytes: number): Promise<Uint8Array> {
  const buf = new Uint8Array(bytes);
  await backend.read(buf, 0);
  return buf;
}

function state(graph: Graph): object[] {
  return graph.nodes.map((node) => ({
    name: node.name,
    readOnly: node.readOnly,
    settings: node.settings,
    options: node.options,
    children: [...node.children].map(([role, edge]) => [role, edge.node.name, edge.permissions]),
  }));
}
