import { expect, test } from "vitest";
import { chainBoxes, imageUnder } from "../../web/chain.ts";
import type { NodeInfo } from "../../web/wire.ts";

const NODES = [
  node("disk", "qcow2", { size: 100, children: { file: "disk-file", backing: "template" } }),
  node("disk-file", "opfs", { size: 30, filename: "disk.qcow2" }),
  node("template", "qcow2", { size: 100, children: { file: "template-file", backing: "base" } }),
  node("template-file", "http", { size: 70, filename: "http://host/a%20b/top.qcow2?x=1" }),
  node("base", "raw", { size: 90, children: { file: "base-file" } }),
  node("base-file", "http", { size: 90, filename: "http://host/100%.raw" }),
];

test("boxes go from base to top, named after their stores", () => {
  expect(chainBoxes(NODES, "disk").map(({ store, name }) => `[${store} ${name}]`)).toEqual([
    "[http 100%.raw]",
    "[http top.qcow2]",
    "[opfs disk.qcow2]",
  ]);
});

test("a box knows the disk's size and how much its store holds", () => {
  expect(chainBoxes(NODES, "disk").at(-1)).toMatchObject({
    format: "qcow2",
    virtualSize: 100,
    actualSize: 30,
  });
});

test("without its backing file the overlay stands alone", () => {
  const whole = node("disk", "qcow2", { size: 100, children: { file: "disk-file" } });
  expect(chainBoxes([whole, NODES[1]!], "disk")).toHaveLength(1);
  expect(chainBoxes(NODES, "gone")).toEqual([]);
});

test("the filters that jobs put in have no box, wherever they are", () => {
  const nodes = [
    ...NODES.slice(1).map((below) =>
      below["node-name"] === "template" ? { ...below, "node-name": "template-1" } : below,
    ),
    node("disk", "qcow2", { size: 100, children: { file: "disk-file", backing: "commit" } }),
    node("commit", "commit_top", { size: 100, children: { backing: "template-1" } }),
    node("#block7", "mirror_top", { size: 100, children: { file: "disk" } }),
  ];
  expect(imageUnder(nodes, "#block7")?.["node-name"]).toBe("disk");
  expect(imageUnder(nodes, "gone")).toBeUndefined();
  expect(chainBoxes(nodes, "#block7").map(({ nodeName }) => nodeName)).toEqual([
    "base",
    "template-1",
    "disk",
  ]);
  const loop = node("a", "throttle", { size: 1, children: { file: "a" } });
  expect(chainBoxes([loop], "a")).toHaveLength(1);
});

test("a box tells of snapshots and of bitmaps that have a name", () => {
  const plain = node("disk", "qcow2", { size: 100 });
  const image = { ...plain.image, snapshots: [{ name: "one" }, { name: "two" }] };
  const bitmaps = [{ name: "since", count: 65536 }, { count: 1 }];
  const full = { ...plain, image, "dirty-bitmaps": bitmaps } as unknown as NodeInfo;
  expect(chainBoxes([full], "disk")).toMatchObject([
    { snapshots: ["one", "two"], bitmaps: [{ name: "since", dirtyBytes: 65536 }] },
  ]);
  expect(chainBoxes([plain], "disk")).toMatchObject([{ snapshots: [], bitmaps: [] }]);
});

interface Facts {
  readonly size: number;
  readonly filename?: string;
  readonly children?: Readonly<Record<string, string>>;
}

function node(name: string, drv: string, { size, filename = "", children = {} }: Facts): NodeInfo {
  const links = Object.entries(children).map(([child, below]) => ({ child, "node-name": below }));
  return {
    "node-name": name,
    drv,
    ro: false,
    children: links,
    image: { filename, format: drv, "virtual-size": size },
  } as Partial<NodeInfo> as NodeInfo;
}
