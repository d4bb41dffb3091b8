import { describe, expect, it } from "vitest";
import type { BlockBackend } from "../../src/block/backend.ts";
import { Graph } from "../../src/block/graph.ts";
import type { BlockdevOptions } from "../../src/block/options.ts";
import { Perm } from "../../src/block/permissions.ts";
import { chainOf } from "../../src/block/status.ts";
import { copyOnRead } from "../../src/drivers/filter/copy-on-read.ts";
import { memoryDriver } from "../../src/drivers/protocol/memory.ts";
import { testWorld } from "../world.ts";
import { tinyFormat } from "./tiny-format.ts";

describe("Graph.add()", () => {
  it("opens nested options and closes them with their parent", async () => {
    const graph = await makeGraph();
    await graph.add(tiny("top", { backing: tiny("base") }));
    expect(graph.nodes.map((node) => node.name).sort()).toEqual([
      "#block1",
      "#block2",
      "base",
      "top",
    ]);
    await graph.remove("top");
    expect(graph.nodes).toEqual([]);
  });

  it("leaves a node that was added on its own when its user goes", async () => {
    const graph = await makeGraph();
    await graph.add(tiny("base"));
    await graph.add(tiny("top", { backing: "base" }));
    await expect(graph.remove("base")).rejects.toThrow("Node 'base' is in use by node 'top'");
    await graph.remove("top");
    expect(graph.nodes.map((node) => node.name)).toContain("base");
  });

  it("names what is wrong with the options, and leaves nothing open", async () => {
    const graph = await makeGraph();
    const wrong: [object, string][] = [
      [{ driver: "nope", "node-name": "n" }, "Unknown driver 'nope'"],
      [{ driver: "memory", size: 1 }, "'node-name' is missing"],
      [{ driver: "memory", "node-name": "1st" }, "Invalid node name '1st'"],
      [{ driver: "memory", "node-name": "n".repeat(32) }, "Invalid node name"],
      [{ driver: "memory", "node-name": "n", size: "1" }, "'size'"],
      [{ driver: "memory", "node-name": "n", nope: 1 }, "'nope' is unexpected"],
      [tiny("n", { file: undefined }), "'file' is missing"],
      [tiny("n", { file: "nope" }), "Cannot find node 'nope'"],
      [tiny("n", { backing: { driver: "nope" } }), "Unknown driver 'nope'"],
      [tiny("n", { backing: { driver: "memory", size: -1 } }), "'size'"],
    ];
    for (const [options, text] of wrong) {
      await expect(graph.add(options as never), text).rejects.toThrow(text);
      expect(graph.nodes).toEqual([]);
    }
    await graph.add(tiny("n"));
    await expect(graph.add(tiny("n"))).rejects.toMatchObject({ errno: "EEXIST" });
  });

  it("refuses nesting without end", async () => {
    const graph = await makeGraph();
    let options: object = tiny("deep");
    for (let i = 0; i < 300; i++)
      options = { ...tiny("x"), "node-name": undefined, backing: options };
    const named = { ...options, "node-name": "root" };
    await expect(graph.add(JSON.parse(JSON.stringify(named)))).rejects.toThrow("nest deeper");
    expect(graph.nodes).toEqual([]);
  });
});

describe("permissions", () => {
  it("keep a second image off the file of a writable one, naming both", async () => {
    const graph = await makeGraph();
    await graph.add({ driver: "memory", "node-name": "store", size: 0 });
    await graph.add(tiny("one", { file: "store" }));
    await expect(graph.add(tiny("two", { file: "store" }))).rejects.toThrow(
      /conflict on node 'store': node 'one' .*needs write.*node 'two' .*does not share/,
    );
    expect(graph.nodes.map((node) => node.name).sort()).toEqual(["one", "store"]);
  });

  it("keep writers off a backing file in use, and let them when its user has gone", async () => {
    const graph = await makeGraph();
    await graph.add(tiny("base"));
    await graph.add(tiny("top", { backing: "base" }));
    const reader = device(graph, "top", "vda", Perm.consistentRead, Perm.consistentRead);
    expect(() => device(graph, "base", "vdb", Perm.write)).toThrow("does not share");
    await graph.closeBackend(reader);
    device(graph, "base", "vdb", Perm.write);
  });
});

describe("filters", () => {
  it("slide in under all users of a node, and out again", async () => {
    const graph = await makeGraph();
    await graph.add(tiny("top"));
    const disk = device(graph, "top", "vda", Perm.consistentRead | Perm.write);
    const filter = await graph.insertFilter({ driver: "copy-on-read" }, graph.get("top"));
    expect(disk.node).toBe(filter);
    expect(chainOf(disk.node).map((node) => node.name)).toEqual(["top"]);
    await disk.write(Uint8Array.of(1, 2, 3), 0);
    await graph.removeFilter(filter);
    expect(disk.node.name).toBe("top");
    const buf = new Uint8Array(3);
    await disk.read(buf, 0);
    expect([...buf]).toEqual([1, 2, 3]);
  });

  it("come in one over the other when they come at once", async () => {
    const graph = await makeGraph();
    await graph.add(tiny("top"));
    const disk = device(graph, "top", "vda", Perm.consistentRead);
    const options = ["a", "b"].map((name) => ({ driver: "copy-on-read", "node-name": name }));
    const top = graph.get("top");
    await Promise.all(options.map((filter) => graph.insertFilter(filter, top)));
    const below = (name: string) => graph.get(name).children.get("file")!.node.name;
    expect([disk.node.name, below(disk.node.name)].sort()).toEqual(["a", "b"]);
    expect(below(below(disk.node.name))).toBe("top");
  });

  it("do not move a link that a job has frozen", async () => {
    const graph = await makeGraph();
    await graph.add(tiny("top"));
    const disk = device(graph, "top", "vda", Perm.consistentRead);
    disk.edge.frozen++;
    const inserting = graph.insertFilter({ driver: "copy-on-read" }, graph.get("top"));
    await expect(inserting).rejects.toMatchObject({ errno: "EBUSY" });
    expect(disk.node.name).toBe("top");
    expect(graph.nodes.map((node) => node.name).sort()).toEqual(["#block1", "top"]);
  });
});

describe("Graph.drained()", () => {
  it("waits for what is under way and holds back what comes, until it is over", async () => {
    const graph = await makeGraph();
    await graph.add(tiny("top"));
    const disk = device(graph, "top", "vda", Perm.consistentRead | Perm.write);
    const story: string[] = [];
    const first = disk.write(new Uint8Array(100), 0).then(() => story.push("first"));
    let late: Promise<unknown> = Promise.resolve();
    await graph.drained([graph.get("top")], async () => {
      await graph.world.clock.yield();
      story.push("quiet");
      late = disk.write(new Uint8Array(100), 0).then(() => story.push("late"));
      for (let i = 0; i < 5; i++) await graph.world.clock.yield();
      story.push("still quiet");
    });
    await Promise.all([first, late]);
    expect(story).toEqual(["first", "quiet", "still quiet", "late"]);
  });

  it("holds back who is opened while it lasts, too", async () => {
    const graph = await makeGraph();
    await graph.add(tiny("top"));
    const story: string[] = [];
    let late: Promise<unknown> = Promise.resolve();
    await graph.drained([graph.get("top")], async () => {
      const disk = device(graph, "top", "vda", Perm.write);
      late = disk.write(new Uint8Array(1), 0).then(() => story.push("written"));
      for (let i = 0; i < 5; i++) await graph.world.clock.yield();
      story.push("quiet");
    });
    await late;
    expect(story).toEqual(["quiet", "written"]);
  });

  it("lets a request that waits be called off", async () => {
    const graph = await makeGraph();
    await graph.add(tiny("top"));
    const disk = device(graph, "top", "vda", Perm.consistentRead | Perm.write);
    const abort = new AbortController();
    await graph.drained([graph.get("top")], async () => {
      const late = disk.write(new Uint8Array(1), 0, { signal: abort.signal });
      abort.abort();
      await expect(late).rejects.toMatchObject({ errno: "ECANCELED" });
    });
  });

  it("drains from below: a change of the file holds the disk's requests back", async () => {
    const graph = await makeGraph();
    await graph.add(tiny("top"));
    const disk = device(graph, "top", "vda", Perm.consistentRead | Perm.write);
    const file = graph.get("top").children.get("file")!.node;
    let done = false;
    let late: Promise<unknown> = Promise.resolve();
    await graph.drained([file], async () => {
      late = disk.write(new Uint8Array(1), 0).then(() => {
        done = true;
      });
      for (let i = 0; i < 5; i++) await graph.world.clock.yield();
      expect(done).toBe(false);
    });
    await late;
  });
});

async function makeGraph(): Promise<Graph> {
  return new Graph(await testWorld(), [memoryDriver(), tinyFormat, copyOnRead]);
}

function tiny(name: string, more: object = {}): BlockdevOptions {
  return {
    driver: "tiny",
    "node-name": name,
    file: { driver: "memory", size: 0 },
    size: 1000,
    "cluster-size": 64,
    ...more,
  };
}

function device(
  graph: Graph,
  node: string,
  name: string,
  take: number,
  share: number = Perm.all,
): BlockBackend {
  return graph.openBackend(graph.get(node), {
    name,
    description: `device '${name}'`,
    permissions: { take, share },
  });
}
