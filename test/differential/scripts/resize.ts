/** block_resize. */

import { area, script } from "../script.ts";
import { CHUNK, CRAWL, chain, disk } from "./disks.ts";

const MiB = 1024 * 1024;

export const resize = area("resize", [
  script("grows an image and a raw disk", async (t) => {
    await disk(t);
    await t.image("disk.raw", { format: "raw", size: "1M" });
    await t.openRaw("raw", "disk.raw");
    await t.qmp("block_resize", { "node-name": "top", size: 8 * MiB });
    await t.qmp("block_resize", { "node-name": "raw", size: 2 * MiB });
    await t.qmp("block_resize", { "node-name": "raw", size: 2 * MiB });
    await t.nodes();
  }),
  script("shrinks a raw disk", async (t) => {
    await t.image("disk.raw", { format: "raw", size: "2M", writes: ["-P 1 0 2M"] });
    await t.openRaw("raw", "disk.raw");
    await t.qmp("block_resize", { "node-name": "raw", size: MiB });
  }),
  script("shrinks an image", async (t) => {
    await disk(t);
    await t.qmp("block_resize", { "node-name": "top", size: MiB });
  }),
  script("an overlay that outgrows its backing file reads zeroes there", async (t) => {
    await t.image("base.qcow2", { size: "2M", writes: ["-P 1 0 2M"] });
    await t.image("top.qcow2", { backing: "base.qcow2", size: "1M" });
    await t.open("base", "base.qcow2", { "read-only": true });
    await t.open("top", "top.qcow2", { backing: "base" });
    await t.qmp("block_resize", { "node-name": "top", size: 3 * MiB });
  }),
  script("refuses what does not fit", async (t) => {
    await disk(t);
    await t.qmp("block_resize", { "node-name": "top", size: -1 });
    await t.qmp("block_resize", { "node-name": "top" });
    await t.qmp("block_resize", { size: MiB });
    await t.qmp("block_resize", { "node-name": "nope", size: MiB });
    await t.qmp("block_resize", { device: "nope", size: MiB });
    await t.qmp("block_resize", { device: "top", "node-name": "top", size: 8 * MiB });
    await t.qmp("block_resize", { "node-name": "top", size: "1M" });
    await t.qmp("block_resize", { "node-name": "top", size: 8 * MiB + 100 });
  }),
  script("refuses while a job works on the disk", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s", speed: CRAWL });
    await t.progress("s", CHUNK);
    await t.qmp("block_resize", { "node-name": "top", size: 8 * MiB });
    await t.qmp("block_resize", { "node-name": "base", size: 8 * MiB });
  }),
  script("a bitmap grows with its disk", async (t) => {
    await t.image("disk.qcow2", { bitmaps: ["b0"] });
    await t.open("disk", "disk.qcow2");
    await t.qmp("block-dirty-bitmap-add", { node: "disk", name: "b1", granularity: 4096 });
    await t.qmp("block_resize", { "node-name": "disk", size: 8 * MiB });
    await t.nodes();
  }),
]);
