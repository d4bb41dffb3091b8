/** blockdev-reopen and change-backing-file. */

import { DRAINED_SPEED } from "../newer.ts";
import { area, script } from "../script.ts";
import type { Talk } from "../talk.ts";
import { CHUNK, CRAWL, chain, disk } from "./disks.ts";

const file = (filename: string) => ({ driver: "file", filename });

function reopen(t: Talk, ...options: object[]): Promise<unknown> {
  return t.qmp("blockdev-reopen", { options });
}

export const reopenArea = area("reopen", [
  script("a node becomes read-only, and writable again", async (t) => {
    await t.image("disk.qcow2");
    const node = { driver: "qcow2", "node-name": "disk" };
    await t.open("disk", "disk.qcow2", { file: { ...file("disk.qcow2"), "node-name": "store" } });
    await reopen(t, { ...node, file: "store", "read-only": true });
    await t.nodes();
    t.parting("a file that became read-only with its image becomes writable with it, too");
    await reopen(t, { ...node, file: "store" });
    await t.nodes();
  }),
  script("options that are not given go back to their defaults", async (t) => {
    await t.image("disk.qcow2");
    const store = { ...file("disk.qcow2"), "node-name": "store" };
    await t.open("disk", "-", { file: store, "detect-zeroes": "on", "lazy-refcounts": true });
    await t.qmp("query-named-block-nodes", { flat: true });
    await reopen(t, { driver: "qcow2", "node-name": "disk", file: "store" });
    await t.qmp("query-named-block-nodes", { flat: true });
  }),
  script("what cannot be reopened", async (t) => {
    await disk(t);
    await t.image("disk.qcow2");
    const store = { ...file("disk.qcow2"), "node-name": "store" };
    await t.open("disk", "-", { file: store });
    await reopen(t, { driver: "qcow2", file: "store" });
    await reopen(t, { driver: "qcow2", "node-name": "nope", file: "store" });
    await reopen(t, { driver: "raw", "node-name": "disk", file: "store" });
    await reopen(t, { driver: "qcow2", "node-name": "disk", file: "nope" });
    await reopen(t, { driver: "qcow2", "node-name": "disk", file: "store", nonsense: 1 });
    await reopen(t, { driver: "qcow2", "node-name": "disk" });
    await reopen(t, { driver: "file", "node-name": "store", filename: "other.qcow2" });
    await t.qmp("blockdev-reopen", {});
    await t.qmp("blockdev-reopen", { options: {} });
  }),
  script("a backing file is taken away, and given back", async (t) => {
    await t.image("base.qcow2", { writes: ["-P 1 0 4M"] });
    await t.image("top.qcow2", { backing: "base.qcow2" });
    await t.open("base", "base.qcow2", { "read-only": true });
    const store = { ...file("top.qcow2"), "node-name": "store" };
    await t.open("top", "-", { file: store, backing: "base" });
    const node = { driver: "qcow2", "node-name": "top", file: "store" };
    await reopen(t, { ...node, backing: null });
    await t.nodes();
    await reopen(t, { ...node, backing: "base" });
    await t.nodes();
    await reopen(t, { ...node, backing: "nope" });
    await reopen(t, { ...node, backing: "top" });
    await reopen(t, node);
  }),
  script("several nodes, all or none", async (t) => {
    for (const name of ["a", "b"]) {
      await t.image(`${name}.qcow2`);
      const store = { ...file(`${name}.qcow2`), "node-name": `${name}-store` };
      await t.open(name, "-", { file: store });
    }
    const node = (name: string, more: object) => ({
      driver: "qcow2",
      "node-name": name,
      file: `${name}-store`,
      ...more,
    });
    await reopen(t, node("a", { "read-only": true }), node("b", { "cache-size": "nonsense" }));
    await t.nodes();
    await reopen(t, node("a", { "read-only": true }), node("b", { "read-only": true }));
    await t.nodes();
  }),
  script(
    "a chain that a job has frozen",
    async (t) => {
      await chain(t);
      await t.qmp("block-stream", { device: "top", "job-id": "s", speed: CRAWL });
      await t.progress("s", CHUNK);
      await reopen(t, {
        driver: "qcow2",
        "node-name": "mid",
        file: file("mid.qcow2"),
        backing: null,
      });
      await t.qmp("job-cancel", { id: "s" });
      await t.job("s", "null");
    },
    { since: DRAINED_SPEED },
  ),
  script("the name of a backing file is changed", async (t) => {
    await chain(t);
    const change = (more: object) =>
      t.qmp("change-backing-file", { device: "top", "backing-file": "./base.qcow2", ...more });
    await change({ "image-node-name": "nope" });
    await change({ "image-node-name": "base" });
    await change({ device: "nope", "image-node-name": "mid" });
    await change({});
    await change({ "image-node-name": "mid" });
    await t.nodes();
  }),
]);
