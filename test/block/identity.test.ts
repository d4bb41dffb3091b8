/** Nodes with the same bytes count as one where users take and share permissions. */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import type { Graph } from "../../src/block/graph.ts";
import type { BlockdevOptions } from "../../src/block/options.ts";
import { Perm } from "../../src/block/permissions.ts";
import { hasQemu, testFolder, testGraph } from "../drivers/format/rig.ts";
import { runWell } from "../spawn.ts";

const folder = testFolder();
const conflict = /has the same bytes as node .*do not share/;

describe.skipIf(!hasQemu)("two nodes on one file (needs qemu-img)", () => {
  const filename = join(folder, "disk.qcow2");
  const options = (name: string, more: object = {}): BlockdevOptions => ({
    driver: "qcow2",
    "node-name": name,
    file: { driver: "file", filename, ...more },
  });
  const withTwo = async (first: object, second: object): Promise<Graph> => {
    const graph = await testGraph();
    await graph.add({ ...options("a"), ...first });
    try {
      await graph.add({ ...options("b"), ...second });
    } catch (error) {
      await graph.remove("a");
      throw error;
    }
    return graph;
  };

  beforeAll(() => {
    runWell("qemu-img", ["create", "-q", "-f", "qcow2", filename, "1M"]);
  });

  it("cannot both write an image, which would destroy it", async () => {
    const graph = await testGraph();
    await graph.add(options("a"));
    await expect(graph.add(options("b"))).rejects.toThrow(conflict);
    expect(graph.nodes.map(({ name }) => name).filter((name) => name === "b")).toEqual([]);
    await graph.remove("a");
    await graph.add(options("b"));
    await graph.remove("b");
  });

  it("cannot read one that is written", async () => {
    await expect(withTwo({}, { "read-only": true })).rejects.toThrow(conflict);
    await expect(withTwo({ "read-only": true }, {})).rejects.toThrow(conflict);
  });

  it("can both read", async () => {
    const graph = await withTwo({ "read-only": true }, { "read-only": true });
    await graph.remove("a");
    await graph.remove("b");
  });

  it("can, where the user says that it is all right", async () => {
    const unlocked = options("b", { locking: "off" });
    const graph = await withTwo({}, { file: unlocked.file! });
    await graph.remove("b");
    await graph.remove("a");
  });
});

it("a hard link is the same file, and so is a named memory store", async () => {
  const graph = await testGraph();
  const [one, other] = [join(folder, "one.raw"), join(folder, "other.raw")];
  writeFileSync(one, new Uint8Array(512));
  runWell("ln", [one, other]);
  const memory = graph.drivers.get("memory")!;
  await memory.create!.call(memory, {
    world: graph.world,
    options: { name: "m", size: 512 } as never,
  });
  for (const [i, files] of [
    [
      { driver: "file", filename: one },
      { driver: "file", filename: other },
    ],
    [
      { driver: "memory", name: "m" },
      { driver: "memory", name: "m" },
    ],
  ].entries()) {
    for (const [at, name] of ["a", "b"].entries()) {
      await graph.add({ ...files[at]!, "node-name": `${name}${i}` });
    }
    const writer = (name: string) =>
      graph.openBackend(graph.get(`${name}${i}`), {
        name: "",
        description: `the writer of ${name}`,
        permissions: { take: Perm.write, share: Perm.consistentRead },
      });
    const backend = writer("a");
    expect(() => writer("b")).toThrow(conflict);
    await graph.closeBackend(backend);
    await graph.closeBackend(writer("b"));
  }
});
