/** Names and numbers that a fuzzer fills in: most of them mean something in this engine. */

import type { Dice } from "../../model/dice.ts";
import type { Leaves } from "../../qmp/introspect/generate.ts";

const numbered = (prefix: string, count: number) =>
  Array.from({ length: count }, (_, i) => `${prefix}${i}`);

export const NODES = numbered("n", 6);
export const JOBS = numbered("j", 4);
export const EXPORTS = numbered("e", 2);
export const BITMAPS = numbered("b", 3);
export const STORES = numbered("s", 4);
export const OBJECTS = numbered("t", 2);

const ANY = [...NODES, ...JOBS, ...EXPORTS, ...BITMAPS, ...STORES, ...OBJECTS];
const WILD = [
  "",
  "é😀",
  "\u0000",
  "__proto__",
  "constructor",
  "#block1",
  "x".repeat(5000),
  "../../etc",
];

const BY_MEMBER: Readonly<Record<string, readonly string[]>> = {
  "node-name": NODES,
  node: NODES,
  device: [...NODES, ...JOBS, ...EXPORTS],
  devices: NODES,
  vmstate: NODES,
  target: [...NODES, ...BITMAPS, ...STORES.map((name) => `memory:${name}`)],
  overlay: NODES,
  base: [...NODES, "memory:s0"],
  top: NODES,
  "base-node": NODES,
  "top-node": NODES,
  bottom: NODES,
  file: NODES,
  backing: NODES,
  image: NODES,
  log: NODES,
  replaces: NODES,
  "filter-node-name": NODES,
  "snapshot-node-name": NODES,
  "image-node-name": NODES,
  "snapshot-file": STORES.map((name) => `memory:${name}`),
  "backing-file": ["memory:s0", "s1", "nowhere.qcow2"],
  "backing-fmt": ["qcow2", "raw"],
  format: ["qcow2", "raw"],
  "job-id": JOBS,
  id: [...JOBS, ...EXPORTS, ...OBJECTS, "1", "2"],
  name: [...BITMAPS, ...STORES, "snap"],
  tag: ["snap", "other"],
  bitmap: BITMAPS,
  bitmaps: BITMAPS,
  path: OBJECTS.map((name) => `/objects/${name}`),
  property: ["limits"],
  "throttle-group": OBJECTS,
};

const SIZES = [0, 1, 511, 512, 4096, 65536, 65537, 2 ** 20];
const WILD_NUMBERS = [
  -1,
  -(2 ** 53 - 1),
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32,
  2 ** 40,
  2 ** 53 - 1,
  12345,
];

/** A disk that is taken, and has no end, would be copied for as long as one likes to wait. */
const WILD_SIZES = [-1, -(2 ** 53 - 1), 2 ** 53, 2 ** 63, 1.5];

/** Most are what the member is about, some are others', some are wild. */
export function leavesOf(dice: Dice): Leaves {
  return {
    text(member) {
      if (dice.oneIn(10)) return dice.pick(WILD);
      if (dice.oneIn(10)) return dice.pick(ANY);
      return dice.pick(BY_MEMBER[member] ?? ANY);
    },
    integer(member) {
      if (!dice.oneIn(6)) return dice.pick(SIZES);
      return dice.pick(member === "size" ? WILD_SIZES : WILD_NUMBERS);
    },
  };
}
