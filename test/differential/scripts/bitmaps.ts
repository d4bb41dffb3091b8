/** Dirty bitmaps: what is recorded, what is kept, and who may touch them when. */

import { area, script } from "../script.ts";
import type { Args, Talk } from "../talk.ts";
import { disk, KiB, pair } from "./disks.ts";

export const bitmaps = area("bitmaps", [
  script("granularities", async (t) => {
    await disk(t);
    for (const granularity of [512, 4096, 65536, 1024 * KiB, 512 * 1024 * KiB]) {
      await add(t, `g${granularity}`, { granularity });
    }
    for (const granularity of [0, 256, 3000, 64000, -512, 4294967296, 2147483648]) {
      await add(t, `g${granularity}`, { granularity });
    }
    await t.nodes();
  }),
  script("the granularity unless said follows the clusters of the image", async (t) => {
    for (const bits of [9, 14, 21]) {
      const size = 2 ** bits;
      await t.image(`c${bits}.qcow2`, { options: `cluster_size=${size}` });
      await t.open(`c${bits}`, `c${bits}.qcow2`);
      await t.qmp("block-dirty-bitmap-add", { node: `c${bits}`, name: "b" });
    }
    await t.image("raw.img", { format: "raw" });
    await t.openRaw("raw", "raw.img");
    await t.qmp("block-dirty-bitmap-add", { node: "raw", name: "b" });
    await t.nodes();
  }),
  script("names", async (t) => {
    await disk(t);
    await add(t, "b");
    await add(t, "b");
    await add(t, "");
    await add(t, "ä b/c'd");
    await add(t, "x".repeat(1023));
    await add(t, "y".repeat(1024));
    await add(t, "p".repeat(1023), { persistent: true });
    await add(t, "q".repeat(1024), { persistent: true });
    await t.nodes();
  }),
  script("of nodes and names that are not there", async (t) => {
    await disk(t);
    const verbs = ["add", "remove", "clear", "enable", "disable"];
    for (const verb of verbs) {
      await t.qmp(`block-dirty-bitmap-${verb}`, { node: "nope", name: "b" });
    }
    for (const verb of verbs.slice(1)) {
      await t.qmp(`block-dirty-bitmap-${verb}`, { node: "top", name: "nope" });
    }
    for (const verb of verbs) await t.qmp(`block-dirty-bitmap-${verb}`, { node: "top" });
    await t.qmp("block-dirty-bitmap-merge", { node: "nope", target: "a", bitmaps: ["b"] });
    await t.qmp("block-dirty-bitmap-merge", { node: "top", target: "a", bitmaps: ["b"] });
    await t.qmp("x-debug-block-dirty-bitmap-sha256", { node: "nope", name: "b" });
    await t.qmp("x-debug-block-dirty-bitmap-sha256", { node: "top", name: "b" });
  }),
  script("of a node that is named by its file", async (t) => {
    await t.image("top.qcow2");
    await t.open("top", "top.qcow2", {
      file: { driver: "file", filename: "top.qcow2", "node-name": "file" },
    });
    await t.qmp("block-dirty-bitmap-add", { node: "file", name: "b" });
    await t.qmp("block-dirty-bitmap-add", { node: "file", name: "p", persistent: true });
    await t.nodes();
    await t.qmp("block-dirty-bitmap-remove", { node: "file", name: "b" });
  }),
  script("are enabled and disabled", async (t) => {
    await disk(t);
    await add(t, "on");
    await add(t, "off", { disabled: true });
    await add(t, "not", { disabled: false });
    for (const name of ["on", "off", "not"]) {
      await t.qmp("block-dirty-bitmap-disable", { node: "top", name });
      await t.qmp("block-dirty-bitmap-disable", { node: "top", name });
      await t.nodes();
      await t.qmp("block-dirty-bitmap-enable", { node: "top", name });
      await t.qmp("block-dirty-bitmap-enable", { node: "top", name });
    }
    await t.nodes();
  }),
  script("record what a job writes into their node", async (t) => {
    await t.image("top.qcow2", { writes: ["-P 1 64k 64k", "-P 2 1M 100k", "-P 3 3M 1M"] });
    await t.image("target.qcow2");
    await t.open("top", "top.qcow2");
    await t.open("target", "target.qcow2");
    for (const [name, more] of RECORDERS) await add(t, name, { ...more, node: "target" });
    const to = { device: "top", target: "target", sync: "top", "job-id": "b" };
    await t.qmp("blockdev-backup", to);
    await t.job("b", "null");
    await t.nodes();
    for (const [name] of RECORDERS) await sum(t, name, "target");
    await t.qmp("block-dirty-bitmap-clear", { node: "target", name: "fine" });
    await sum(t, "fine", "target");
    await t.nodes();
  }),
  script("are merged", async (t) => {
    await written(t);
    await add(t, "sum", { granularity: 65536 });
    await t.qmp("block-dirty-bitmap-merge", { node: "top", target: "sum", bitmaps: ["a"] });
    await sum(t, "sum");
    await t.qmp("block-dirty-bitmap-merge", { node: "top", target: "sum", bitmaps: ["a", "b"] });
    await sum(t, "sum");
    await sum(t, "a");
    await t.nodes();
  }),
  script("are merged into one that is finer, and one that is coarser", async (t) => {
    await written(t);
    await add(t, "fine", { granularity: 4096 });
    await add(t, "coarse", { granularity: 256 * KiB });
    for (const target of ["fine", "coarse"]) {
      await t.qmp("block-dirty-bitmap-merge", { node: "top", target, bitmaps: ["a", "b"] });
      await sum(t, target);
    }
    await t.qmp("block-dirty-bitmap-merge", { node: "top", target: "fine", bitmaps: ["coarse"] });
    await sum(t, "fine");
    await t.nodes();
  }),
  script("are merged across nodes", async (t) => {
    await written(t);
    await t.image("other.qcow2");
    await t.image("longer.qcow2", { size: "8M" });
    await t.open("other", "other.qcow2");
    await t.open("longer", "longer.qcow2");
    for (const node of ["other", "longer"]) {
      await t.qmp("block-dirty-bitmap-add", { node, name: "sum" });
      await t.qmp("block-dirty-bitmap-merge", {
        node,
        target: "sum",
        bitmaps: [
          { node: "top", name: "a" },
          { node: "top", name: "b" },
        ],
      });
      await sum(t, "sum", node);
    }
    await t.nodes();
  }),
  script("stay as they were when one of those to be merged is missing", async (t) => {
    await written(t);
    await add(t, "sum");
    const merge = (bitmaps: unknown[]) =>
      t.qmp("block-dirty-bitmap-merge", { node: "top", target: "sum", bitmaps });
    await merge(["a", "nope"]);
    await merge([{ node: "nope", name: "a" }]);
    await merge([{ node: "top", name: "nope" }]);
    await merge([{ node: "top" }]);
    await merge([1]);
    await t.qmp("block-dirty-bitmap-merge", { node: "top", target: "sum" });
    await sum(t, "sum");
    await t.nodes();
  }),
  script("are merged into themselves", async (t) => {
    await written(t);
    await t.qmp("block-dirty-bitmap-merge", { node: "top", target: "a", bitmaps: ["a"] });
    await sum(t, "a");
  }),
  script("that a job uses are not touched", async (t) => {
    await pair(t);
    await add(t, "b");
    await add(t, "other");
    const to = { device: "top", target: "target", sync: "incremental", bitmap: "b" };
    await t.qmp("blockdev-backup", { ...to, "job-id": "j", "auto-finalize": false });
    await t.event("BLOCK_JOB_PENDING");
    await t.nodes();
    for (const verb of ["remove", "clear", "enable", "disable"]) {
      await t.qmp(`block-dirty-bitmap-${verb}`, { node: "top", name: "b" });
    }
    await t.qmp("block-dirty-bitmap-merge", { node: "top", target: "b", bitmaps: ["other"] });
    await t.qmp("block-dirty-bitmap-merge", { node: "top", target: "other", bitmaps: ["b"] });
    await t.qmp("block-dirty-bitmap-add", { node: "top", name: "b" });
    await t.qmp("blockdev-backup", { ...to, "job-id": "k" });
    await t.qmp("job-finalize", { id: "j" });
    await t.job("j", "null");
    await t.qmp("block-dirty-bitmap-remove", { node: "top", name: "b" });
  }),
  script("that persist are there when their image is opened again", async (t) => {
    await written(t, { persistent: true });
    await add(t, "off", { persistent: true, disabled: true, granularity: 4096 });
    await add(t, "gone");
    await t.qmp("blockdev-del", { "node-name": "top" });
    await t.open("top", "top.qcow2");
    await t.nodes();
    for (const name of ["a", "b", "off"]) await sum(t, name);
    await t.qmp("block-dirty-bitmap-remove", { node: "top", name: "a" });
    await t.qmp("block-dirty-bitmap-clear", { node: "top", name: "b" });
    await t.qmp("block-dirty-bitmap-disable", { node: "top", name: "b" });
    await t.qmp("blockdev-del", { "node-name": "top" });
    await t.open("again", "top.qcow2");
    await t.nodes();
  }),
  script("that qemu-img made", async (t) => {
    await t.image("top.qcow2", { bitmaps: ["b0", "-g 32k b1"], writes: ["-P 1 0 1M"] });
    await t.open("top", "top.qcow2");
    await t.nodes();
    await sum(t, "b0");
    await add(t, "b0");
    await t.qmp("block-dirty-bitmap-remove", { node: "top", name: "b1" });
    await add(t, "b1", { persistent: true, granularity: 65536 });
    await t.nodes();
  }),
  script("of an image that is only read", async (t) => {
    await t.image("top.qcow2", { bitmaps: ["kept"] });
    await t.open("top", "top.qcow2", { "read-only": true });
    await add(t, "b");
    await t.nodes();
    for (const verb of ["clear", "enable", "disable", "remove"]) {
      await t.qmp(`block-dirty-bitmap-${verb}`, { node: "top", name: "kept" });
    }
    await t.qmp("block-dirty-bitmap-merge", { node: "top", target: "kept", bitmaps: ["b"] });
    await t.qmp("block-dirty-bitmap-merge", { node: "top", target: "b", bitmaps: ["kept"] });
    await t.qmp("block-dirty-bitmap-clear", { node: "top", name: "b" });
    await t.qmp("block-dirty-bitmap-remove", { node: "top", name: "b" });
    await t.nodes();
  }),
  script("persist in a qcow2 of version 3 only", async (t) => {
    await t.image("old.qcow2", { options: "compat=0.10" });
    await t.image("raw.img", { format: "raw" });
    await t.open("old", "old.qcow2");
    await t.openRaw("raw", "raw.img");
    for (const node of ["old", "raw"]) {
      await t.qmp("block-dirty-bitmap-add", { node, name: "p", persistent: true });
      await t.qmp("block-dirty-bitmap-add", { node, name: "b" });
    }
    await t.nodes();
  }),
  script("stay with their node when the disk grows", async (t) => {
    await written(t);
    await add(t, "p", { persistent: true });
    await t.qmp("block_resize", { "node-name": "top", size: 6 * 1024 * KiB });
    await t.nodes();
    for (const name of ["a", "b", "p"]) await sum(t, name);
    await t.qmp("block_resize", { "node-name": "top", size: 8 * 1024 * KiB + 512 });
    await t.nodes();
  }),
  script("keep their node from nothing", async (t) => {
    await disk(t);
    await add(t, "b");
    await t.qmp("blockdev-del", { "node-name": "top" });
    await t.open("top", "top.qcow2");
    await t.nodes();
  }),
  script("are added while a job works on the disk", async (t) => {
    await pair(t);
    const to = { device: "top", target: "target", sync: "full", "auto-finalize": false };
    await t.qmp("blockdev-mirror", { ...to, "job-id": "m", "filter-node-name": "filter" });
    await t.event("BLOCK_JOB_READY");
    await add(t, "b");
    await add(t, "p", { persistent: true });
    await t.qmp("block-dirty-bitmap-add", { node: "target", name: "b" });
    await t.qmp("block-dirty-bitmap-add", { node: "filter", name: "b" });
    await t.qmp("job-cancel", { id: "m" });
    await t.job("m", "null");
    await t.nodes();
  }),
]);

const RECORDERS: readonly (readonly [string, Args])[] = [
  ["fine", { granularity: 4096 }],
  ["usual", {}],
  ["coarse", { granularity: 1024 * KiB }],
  ["off", { disabled: true }],
  ["kept", { persistent: true }],
];

async function add(t: Talk, name: string, more: Args = {}): Promise<void> {
  await t.qmp("block-dirty-bitmap-add", { node: "top", name, ...more });
}

async function sum(t: Talk, name: string, node = "top"): Promise<void> {
  await t.qmp("x-debug-block-dirty-bitmap-sha256", { node, name });
}

/**
 * Disk 'top' with two bitmaps: 'a' has what a first job wrote into it, 'b', which is on, has what a
 * second one wrote.
 */
async function written(t: Talk, more: Args = {}): Promise<void> {
  await t.image("first.qcow2", { writes: ["-P 1 0 64k", "-P 1 2M 192k"] });
  await t.image("second.qcow2", { writes: ["-P 2 64k 64k", "-P 2 3M 128k"] });
  await t.image("top.qcow2");
  await t.open("top", "top.qcow2");
  for (const [node, name] of [
    ["first", "a"],
    ["second", "b"],
  ] as const) {
    await t.open(node, `${node}.qcow2`, { "read-only": true });
    await add(t, name, { granularity: 65536, ...more });
    const to = { device: node, target: "top", sync: "top", "job-id": `copy-${name}` };
    await t.qmp("blockdev-backup", to);
    await t.job(`copy-${name}`, "null");
    if (name === "a") await t.qmp("block-dirty-bitmap-disable", { node: "top", name });
  }
}
