/** Changes of the graph that come while others are under way, or that fail half way. */

import { describe, expect, it } from "vitest";
import { BlockError } from "../../src/base/errors.ts";
import type { BlockBackend } from "../../src/block/backend.ts";
import type { BlockDriver } from "../../src/block/driver.ts";
import { Graph } from "../../src/block/graph.ts";
import { Perm } from "../../src/block/permissions.ts";
import { copyOnRead } from "../../src/drivers/filter/copy-on-read.ts";
import { memoryDriver } from "../../src/drivers/protocol/memory.ts";
import { testWorld } from "../world.ts";
import { tinyFormat } from "./tiny-format.ts";

describe("Graph.setBacking()", () => {
  it("makes no circle", async () => {
    const graph = await makeGraph();
    for (const name of ["a", "b"]) await graph.add(tiny(name));
    graph.setBacking(graph.get("a"), graph.get("b"));
    for (const name of ["a", "b"]) {
      expect(() => graph.setBacking(graph.get("b"), graph.get(name))).toThrow("circle");
    }
    graph.setBacking(graph.get("a"), null);
    graph.setBacking(graph.get("b"), graph.get("a"));
  });
});

describe("Graph.insertFilter()", () => {
  it("is refused when the node gets an overlay before the filter is in its place", async () => {
    const graph = await makeGraph();
    for (const name of ["disk", "over"]) await graph.add(tiny(name));
    const [disk, over] = [graph.get("disk"), graph.get("over")];
    const device = open(graph, "disk", "vda");
    const section = await graph.drain([disk, over]);
    const inserting = graph.insertFilter({ driver: "copy-on-read" }, disk);
    const refused = expect(inserting).rejects.toMatchObject({ errno: "EBUSY" });
    // Its edge is there by now, and it waits no longer: the node is drained already.
    await Promise.resolve();
    graph.setBacking(over, disk);
    graph.replaceNode(disk, over);
    section.end();
    await refused;
    expect(device.node).toBe(over);
    expect(graph.nodes.filter(({ driver }) => driver.kind === "filter")).toEqual([]);
    expect(disk.parents.size).toBe(1);
  });
});

describe("a drained section", () => {
  it("holds back who comes to stand above its nodes while it lasts", async () => {
    const graph = await makeGraph();
    for (const name of ["from", "to"]) await graph.add(tiny(name));
    const [from, to] = [graph.get("from"), graph.get("to")];
    const device = open(graph, "from", "vda");
    const still = await graph.drain([to]);
    await graph.drained([from, to], () => graph.replaceNode(from, to));
    let isDone = false;
    const write = device.write(new Uint8Array(10), 0).then(() => {
      isDone = true;
    });
    for (let i = 0; i < 10; i++) await graph.world.clock.yield();
    expect(isDone).toBe(false);
    still.end();
    await write;
  });
});

describe("closing a node", () => {
  it("lets go of all that it had below, also when one of them cannot be closed", async () => {
    const memory = memoryDriver() as BlockDriver;
    const stuck: BlockDriver = {
      ...memory,
      name: "stuck",
      async open(context) {
        const state = await memory.open(context);
        state.close = async () => {
          throw new BlockError("EIO", "It cannot be closed");
        };
        return state;
      },
    };
    const graph = await makeGraph(stuck);
    await graph.add(tiny("base"));
    await graph.add(tiny("top", { file: { driver: "stuck", size: 0 }, backing: "base" }));
    await expect(graph.remove("top")).rejects.toThrow("It cannot be closed");
    expect(graph.nodes.map(({ name }) => name)).toEqual(["#block1", "base"]);
    await graph.remove("base");
    expect(graph.nodes).toEqual([]);
  });
});

async function makeGraph(...more: BlockDriver[]): Promise<Graph> {
  return new Graph(await testWorld(), [memoryDriver(), tinyFormat, copyOnRead, ...more] as never);
}

function tiny(name: string, more: object = {}) {
  return {
    driver: "tiny",
    "node-name": name,
    file: { driver: "memory", size: 0 },
    size: 1024,
    "cluster-size": 64,
    ...more,
  };
}

function open(graph: Graph, node: string, name: string): BlockBackend {
  return graph.openBackend(graph.get(node), {
    name,
    description: `device '${name}'`,
    permissions: { take: Perm.consistentRead | Perm.write, share: Perm.all },
  });
}
