/** What of links counts, while sections overlap in which they change: all of what belongs together, or nothing. */

import { beforeEach, expect, it } from "vitest";
import type { DrainedSection } from "../../src/block/drain.ts";
import { Graph } from "../../src/block/graph.ts";
import { memoryDriver } from "../../src/drivers/protocol/memory.ts";
import { testWorld } from "../world.ts";
import { tinyFormat } from "./tiny-format.ts";

let graph: Graph;
let settled: number;

/** p, q and o, each over x; files of their own. */
beforeEach(async () => {
  graph = new Graph(await testWorld(), [memoryDriver(), tinyFormat] as never);
  settled = 0;
  graph.watchLinks({
    async linksSettled() {
      settled++;
    },
  });
  await add("x", { "read-only": true });
  for (const name of ["y", "z"]) await add(name);
  for (const name of ["p", "q", "o"]) await add(name, { backing: "x" });
});

async function add(name: string, more: object = {}): Promise<void> {
  const file = `${name}-file`;
  await graph.add({ driver: "memory", "node-name": file, size: 0 });
  const options = { driver: "tiny", "node-name": name, file, size: 1024, "cluster-size": 64 };
  await graph.add({ ...options, ...more });
}

const drain = (...names: string[]): Promise<DrainedSection> =>
  graph.drain(names.map((name) => graph.get(name)));

/** To a node, or none. */
function move(name: string, backing: string | null): void {
  graph.setBacking(graph.get(name), backing === null ? null : graph.get(backing));
}

/** As it would be on record now. */
function recorded(name: string): Record<string, unknown> {
  return graph.describe().find(({ options }) => options["node-name"] === name)!.options;
}

it("two sections that change a link which both hold count together, from the last end on", async () => {
  const [one, two] = [await drain("p", "o"), await drain("q", "o")];
  move("p", "y");
  move("q", "z");
  move("o", null);
  one.end();
  expect([settled, recorded("p"), recorded("o")]).toMatchObject([
    0,
    { backing: "x" },
    { backing: "x" },
  ]);
  two.end();
  expect(settled).toBe(1);
  expect(["p", "q", "o"].map((name) => recorded(name)["backing"])).toEqual(["y", "z", null]);
});

it("a link that moves once more counts with what it moved with before", async () => {
  const [one, two] = [await drain("p", "o"), await drain("q", "o")];
  move("p", "y");
  move("o", null);
  one.end();
  const three = await drain("p");
  move("p", "z");
  two.end();
  // Not o alone: it and p changed together.
  expect(["p", "o"].map((name) => recorded(name)["backing"])).toEqual(["x", "x"]);
  three.end();
  expect(["p", "o"].map((name) => recorded(name)["backing"])).toEqual(["z", null]);
});

it("a node that two sections take links from is as it was before the first, until both count", async () => {
  const second = await drain("q", "o");
  const first = await drain("p", "o");
  move("p", null);
  await graph.reopen(graph.get("x"), { readOnly: false });
  move("q", null);
  expect(recorded("x")).toMatchObject({ "read-only": true });
  move("o", null);
  expect(recorded("x")).toMatchObject({ "read-only": true });
  first.end();
  expect(recorded("x")).toMatchObject({ "read-only": true });
  second.end();
  expect(recorded("x")).toMatchObject({ "read-only": false });
});

it("links of one node in two roles that changed apart are both as they were when the sections meet", async () => {
  await graph.add({ driver: "memory", "node-name": "new-file", size: 0 });
  const [one, two] = [await drain("p", "o"), await drain("q", "o")];
  move("p", "y");
  move("o", null);
  one.end();
  const three = await drain("p-file", "new-file", "q");
  graph.replaceNode(graph.get("p-file"), graph.get("new-file"));
  expect(recorded("p")).toMatchObject({ backing: "x", file: "p-file" });
  // Held by both.
  move("q", null);
  expect(recorded("p")).toMatchObject({ backing: "x", file: "p-file" });
  two.end();
  expect(recorded("p")).toMatchObject({ backing: "x", file: "p-file" });
  three.end();
  expect(recorded("p")).toMatchObject({ backing: "y", file: "new-file" });
});
