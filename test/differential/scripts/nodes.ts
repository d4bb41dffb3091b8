/** blockdev-add and blockdev-del. */

import { IN_USE } from "../differences.ts";
import { area, script } from "../script.ts";
import { chain, disk } from "./disks.ts";

const file = (filename: string) => ({ driver: "file", filename });

export const nodes = area("nodes", [
  script("a chain in one command", async (t) => {
    await t.image("base.qcow2", { writes: ["-P 1 0 1M"] });
    await t.image("mid.qcow2", { backing: "base.qcow2" });
    await t.image("top.qcow2", { backing: "mid.qcow2" });
    const base = { driver: "qcow2", file: file("base.qcow2") };
    const mid = { driver: "qcow2", file: file("mid.qcow2"), backing: base };
    await t.open("top", "top.qcow2", { backing: mid });
    await t.nodes();
    await t.qmp("blockdev-del", { "node-name": "top" });
  }),
  script("nodes that are nested, with names of their own", async (t) => {
    await t.image("base.qcow2");
    await t.image("top.qcow2", { backing: "base.qcow2" });
    const base = { driver: "qcow2", "node-name": "base", file: file("base.qcow2") };
    const store = { ...file("top.qcow2"), "node-name": "store" };
    await t.open("top", "top.qcow2", { file: store, backing: base });
    await t.qmp("blockdev-del", { "node-name": "store" });
    await t.qmp("blockdev-del", { "node-name": "base" });
    await t.qmp("blockdev-del", { "node-name": "top" });
    await t.qmp("blockdev-del", { "node-name": "base" });
  }),
  script("nodes that are named by others", async (t) => {
    await t.image("top.qcow2");
    await t.qmp("blockdev-add", { ...file("top.qcow2"), "node-name": "store" });
    await t.open("top", "-", { file: "store" });
    await t.open("again", "-", { file: "store" });
    await t.qmp("blockdev-del", { "node-name": "store" });
    await t.qmp("blockdev-del", { "node-name": "top" });
    await t.qmp("blockdev-del", { "node-name": "store" });
  }),
  script("names that do not fit", async (t) => {
    await disk(t);
    await t.image("other.qcow2");
    const names = ["", "1a", "a b", "a/b", "#a", "x".repeat(32), "top", "_a", "a#b", "-a", "a:b"];
    for (const name of names) {
      await t.qmp("blockdev-add", { ...file("other.qcow2"), "node-name": name });
    }
  }),
  script("names that fit", async (t) => {
    await t.image("other.qcow2");
    for (const name of ["x".repeat(31), "a-b_c.d", "Z9"]) {
      await t.qmp("blockdev-add", { ...file("other.qcow2"), "node-name": name });
      await t.qmp("blockdev-del", { "node-name": name });
    }
  }),
  script("a root without a name", async (t) => {
    await t.image("other.qcow2");
    await t.qmp("blockdev-add", file("other.qcow2"));
  }),
  script("drivers and members that are none", async (t) => {
    await t.image("other.qcow2");
    const add = (options: object) => t.qmp("blockdev-add", { "node-name": "n", ...options });
    await add({});
    await add({ driver: "nonsense" });
    await add({ driver: 1 });
    await add({ driver: "file" });
    await add({ driver: "file", filename: 1 });
    await add({ driver: "file", filename: null });
    await add({ ...file("other.qcow2"), nonsense: true });
    await add({ driver: "qcow2" });
    await add({ driver: "qcow2", file: "nope" });
    await add({ driver: "qcow2", file: 1 });
    await add({ driver: "qcow2", file: { driver: "file" } });
    await add({ driver: "qcow2", file: { ...file("other.qcow2"), nonsense: 1 } });
    await add({ ...file("other.qcow2"), "read-only": "yes" });
    await add({ ...file("other.qcow2"), "detect-zeroes": "maybe" });
    await add({ ...file("other.qcow2"), discard: "maybe" });
    await add({ ...file("other.qcow2"), cache: { direct: 1 } });
    await add({ ...file("other.qcow2"), cache: { nonsense: true } });
  }),
  script("a file that is not there", async (t) => {
    await t.qmp("blockdev-add", { ...file("nope.raw"), "node-name": "n" });
    await t.open("n", "nope.qcow2");
    await t.qmp("blockdev-add", { ...file("."), "node-name": "n" });
    await t.qmp("blockdev-add", { ...file(""), "node-name": "n" });
  }),
  script("an image of another format", async (t) => {
    await t.image("disk.raw", { format: "raw", writes: ["-P 1 0 1M"] });
    await t.open("n", "disk.raw");
    await t.image("empty.raw", { format: "raw", size: "0" });
    await t.open("n", "empty.raw");
  }),
  script("backing files that do not fit", async (t) => {
    await t.image("base.qcow2");
    await t.image("top.qcow2", { backing: "base.qcow2" });
    await t.image("alone.qcow2");
    await t.open("base", "base.qcow2", { "read-only": true });
    await t.open("n", "top.qcow2", { backing: "nope" });
    await t.open("n", "top.qcow2", { backing: 1 });
    await t.open("n", "top.qcow2", { backing: null });
    await t.qmp("blockdev-del", { "node-name": "n" });
    await t.open("n", "alone.qcow2", { backing: "base" });
    await t.qmp("blockdev-del", { "node-name": "n" });
    await t.open("n", "alone.qcow2", { backing: null });
  }),
  script("read-only images are opened for reading", async (t) => {
    await disk(t);
    await t.image("ro.qcow2");
    await t.open("ro", "ro.qcow2", { "read-only": true });
    const store = { ...file("ro.qcow2"), "read-only": true };
    await t.open("rw", "ro.qcow2", { file: store });
    await t.open("auto", "ro.qcow2", { file: store, "auto-read-only": true });
    await t.qmp("block_resize", { "node-name": "ro", size: 8388608 });
  }),
  script("removes only what nobody uses", async (t) => {
    await chain(t);
    await t.qmp("blockdev-del", { "node-name": "nope" });
    await t.qmp("blockdev-del", { "node-name": "base" });
    await t.qmp("blockdev-del", { "node-name": "mid" });
    await t.qmp("blockdev-del", {});
    await t.qmp("blockdev-del", { "node-name": "top", force: true });
    await t.qmp("blockdev-del", { "node-name": "top" });
    await t.qmp("blockdev-del", { "node-name": "top" });
    await t.qmp("blockdev-del", { "node-name": "mid" });
    await t.qmp("blockdev-del", { "node-name": "base" });
  }),
  script("a raw node that shows a part of its file", async (t) => {
    await t.image("disk.raw", { format: "raw", size: "4M", writes: ["-P 1 1M 1M"] });
    await t.openRaw("part", "disk.raw", { offset: 1048576, size: 1048576 });
    await t.openRaw("tail", "disk.raw", { offset: 3145728, "read-only": true });
    await t.openRaw("n", "disk.raw", { offset: 4194304 + 512 });
    await t.openRaw("n", "disk.raw", { size: 4194304 + 512 });
    await t.openRaw("n", "disk.raw", { offset: 1048576, size: 4194304 });
    await t.openRaw("n", "disk.raw", { size: 100 });
    await t.openRaw("n", "disk.raw", { offset: -512 });
    await t.openRaw("n", "disk.raw", { offset: "1M" });
  }),
  script("a raw disk whose length is no multiple of a sector", async (t) => {
    await t.image("disk.raw", { format: "raw", size: "1000" });
    await t.openRaw("disk", "disk.raw");
    await t.nodes();
  }),
  script("all about nodes", async (t) => {
    await chain(t);
    await t.image("disk.raw", { format: "raw", size: "1M" });
    await t.openRaw("raw", "disk.raw", { "detect-zeroes": "unmap", discard: "unmap" });
    await t.qmp("query-named-block-nodes");
    await t.qmp("query-named-block-nodes", { flat: true });
    await t.qmp("query-named-block-nodes", { flat: 1 });
    await t.qmp("query-named-block-nodes", { nonsense: true });
    await t.qmp("query-block");
  }),
  script("images of every sort as nodes", async (t) => {
    const sorts = {
      old: "compat=0.10",
      small: "cluster_size=512",
      big: "cluster_size=2M",
      lazy: "lazy_refcounts=on",
      wide: "refcount_bits=64",
      narrow: "refcount_bits=1",
      subclusters: "extended_l2=on,cluster_size=128k",
      zstd: "compression_type=zstd",
      full: "preallocation=metadata",
    };
    for (const [name, options] of Object.entries(sorts)) {
      await t.image(`${name}.qcow2`, { options, size: "1M" });
      await t.open(name, `${name}.qcow2`);
    }
    await t.qmp("query-named-block-nodes", { flat: true });
  }),
  script(
    "an image with snapshots and bitmaps as a node",
    async (t) => {
      const has = { bitmaps: ["b0", "-g 32k --disable b1"], snapshots: ["one", "two"] };
      await t.image("disk.qcow2", { writes: ["-P 1 0 1M"], ...has });
      await t.open("disk", "disk.qcow2");
      await t.qmp("query-named-block-nodes", { flat: true });
    },
    { differences: [IN_USE] },
  ),
  script("a node twice in one chain", async (t) => {
    await disk(t);
    await t.image("over.qcow2");
    await t.open("over", "over.qcow2", { backing: "top" });
    await t.open("n", "over.qcow2", { file: "over" });
    await t.qmp("blockdev-add", { driver: "raw", "node-name": "r", file: "over" });
    await t.qmp("blockdev-add", { driver: "raw", "node-name": "r2", file: "r" });
    await t.qmp("blockdev-add", { driver: "raw", "node-name": "r3", file: "top" });
  }),
  script("two writers of one node", async (t) => {
    await t.image("disk.raw", { format: "raw" });
    await t.qmp("blockdev-add", { ...file("disk.raw"), "node-name": "store" });
    await t.openRaw("a", "-", { file: "store" });
    await t.openRaw("b", "-", { file: "store" });
    await t.openRaw("c", "-", { file: "store", "read-only": true });
  }),
  script("one file in two nodes", async (t) => {
    await t.image("disk.raw", { format: "raw" });
    await t.openRaw("a", "disk.raw");
    await t.openRaw("b", "disk.raw");
    await t.openRaw("c", "disk.raw", { "read-only": true });
    await t.openRaw("d", "disk.raw", { "read-only": true, "force-share": true });
    await t.openRaw("e", "disk.raw", { "force-share": true });
  }),
  script("two images in one file", async (t) => {
    await t.image("disk.qcow2");
    await t.open("a", "disk.qcow2");
    await t.open("b", "disk.qcow2");
    await t.open("c", "disk.qcow2", { "read-only": true });
    await t.qmp("blockdev-del", { "node-name": "a" });
    await t.open("d", "disk.qcow2", { "read-only": true });
    await t.open("e", "disk.qcow2", { "read-only": true });
    await t.open("f", "disk.qcow2");
    const file = { driver: "file", filename: "disk.qcow2", locking: "off" };
    await t.open("g", "disk.qcow2", { "read-only": true, file });
  }),
  script("nodes without a file", async (t) => {
    await t.qmp("blockdev-add", { driver: "null-co", "node-name": "n", size: 1048576 });
    await t.qmp("blockdev-add", { driver: "null-aio", "node-name": "z", "read-zeroes": true });
    await t.qmp("query-named-block-nodes", { flat: true });
    await t.qmp("blockdev-add", { driver: "raw", "node-name": "r", file: "n" });
  }),
]);
