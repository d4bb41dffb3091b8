/** External and internal snapshots. */

import { FILE_LENGTH, MOMENTARY_PAUSES } from "../differences.ts";
import { DRAINED_SPEED } from "../newer.ts";
import { area, script } from "../script.ts";
import { CHUNK, CRAWL, disk } from "./disks.ts";

export const snapshots = area("snapshots", [
  script("an overlay is put on top", async (t) => {
    await disk(t);
    await t.image("over.qcow2", { backing: "top.qcow2" });
    await t.open("over", "over.qcow2", { backing: null });
    await t.qmp("blockdev-snapshot", { node: "top", overlay: "over" });
    await t.nodes();
    await t.qmp("blockdev-del", { "node-name": "over" });
    await t.qmp("blockdev-del", { "node-name": "top" });
  }),
  script("two overlays, one after the other, and a commit of both", async (t) => {
    await disk(t);
    for (const [over, below] of [
      ["o1", "top"],
      ["o2", "o1"],
    ] as const) {
      await t.image(`${over}.qcow2`, { backing: `${below}.qcow2`, writes: ["-P 7 64k 64k"] });
      await t.open(over, `${over}.qcow2`, { backing: null });
      await t.qmp("blockdev-snapshot", { node: below, overlay: over });
    }
    await t.nodes();
    await t.qmp("block-commit", { device: "o2", "job-id": "c" });
    await t.event("BLOCK_JOB_READY");
    await t.qmp("job-complete", { id: "c" });
    await t.job("c", "null");
  }),
  script("overlays that do not fit", async (t) => {
    await disk(t);
    await t.image("has.qcow2", { backing: "top.qcow2" });
    await t.image("over.qcow2");
    await t.image("disk.raw", { format: "raw" });
    await t.image("base.qcow2");
    await t.open("base", "base.qcow2", { "read-only": true });
    await t.open("has", "has.qcow2", { backing: "base" });
    await t.openRaw("raw", "disk.raw");
    await t.open("over", "over.qcow2");
    await t.qmp("blockdev-snapshot", { node: "nope", overlay: "over" });
    await t.qmp("blockdev-snapshot", { node: "top", overlay: "nope" });
    await t.qmp("blockdev-snapshot", { node: "top", overlay: "has" });
    await t.qmp("blockdev-snapshot", { node: "top", overlay: "raw" });
    await t.qmp("blockdev-snapshot", { node: "top", overlay: "top" });
    await t.qmp("blockdev-snapshot", { node: "top" });
    await t.qmp("blockdev-snapshot", { overlay: "over" });
  }),
  script(
    "an overlay while a job works on the disk",
    async (t) => {
      await disk(t);
      await t.image("target.qcow2");
      await t.image("over.qcow2");
      await t.open("target", "target.qcow2");
      await t.open("over", "over.qcow2");
      const to = { device: "top", target: "target", sync: "none", "job-id": "b" };
      await t.qmp("blockdev-backup", to);
      await t.qmp("blockdev-snapshot", { node: "top", overlay: "over" });
      await t.qmp("job-cancel", { id: "b" });
      await t.job("b", "null");
    },
    { differences: [MOMENTARY_PAUSES] },
  ),
  script("an image and its overlay in one command", async (t) => {
    await disk(t);
    const own = { "node-name": "top", "snapshot-node-name": "over" };
    await t.qmp("blockdev-snapshot-sync", { ...own, "snapshot-file": "over.qcow2" });
    await t.nodes();
  }),
  script("an overlay in a file that is there", async (t) => {
    await disk(t);
    await t.image("over.qcow2", { backing: "top.qcow2", writes: ["-P 3 0 64k"] });
    const own = { "node-name": "top", "snapshot-node-name": "over", "snapshot-file": "over.qcow2" };
    await t.qmp("blockdev-snapshot-sync", { ...own, mode: "existing" });
    await t.nodes();
  }),
  script("blockdev-snapshot-sync's wrong arguments", async (t) => {
    await disk(t);
    const attempt = (more: object) =>
      t.qmp("blockdev-snapshot-sync", { "snapshot-file": "over.qcow2", ...more });
    await attempt({});
    await attempt({ "node-name": "nope", "snapshot-node-name": "over" });
    await attempt({ device: "nope" });
    await attempt({ "node-name": "top" });
    await attempt({ "node-name": "top", "snapshot-node-name": "top" });
    await attempt({ "node-name": "top", "snapshot-node-name": "1" });
    await attempt({ "node-name": "top", "snapshot-node-name": "over", format: "raw" });
    await attempt({ "node-name": "top", "snapshot-node-name": "over", format: "nonsense" });
    await attempt({ "node-name": "top", "snapshot-node-name": "over", mode: "nonsense" });
    await t.qmp("blockdev-snapshot-sync", { "node-name": "top", "snapshot-node-name": "over" });
  }),
  script("snapshot-save, which QEMU's daemon leaves to machines", async (t) => {
    await disk(t);
    t.parting("snapshots as jobs are there without a machine, too");
    await t.qmp("snapshot-save", { "job-id": "s", tag: "one", vmstate: "top", devices: ["top"] });
  }),
  script(
    "blockdev-snapshot-internal-sync",
    async (t) => {
      await disk(t);
      await t.qmp("blockdev-snapshot-internal-sync", { device: "top", name: "one" });
      await t.qmp("blockdev-snapshot-internal-sync", { device: "top", name: "two" });
      await t.qmp("blockdev-snapshot-internal-sync", { device: "top", name: "one" });
      await t.qmp("blockdev-snapshot-internal-sync", { device: "top", name: "" });
      await t.qmp("blockdev-snapshot-internal-sync", { device: "nope", name: "x" });
      await t.qmp("blockdev-snapshot-delete-internal-sync", { device: "top", name: "nope" });
      await t.qmp("blockdev-snapshot-delete-internal-sync", { device: "top" });
      await t.qmp("blockdev-snapshot-delete-internal-sync", {
        device: "top",
        id: "2",
        name: "one",
      });
      await t.qmp("blockdev-snapshot-delete-internal-sync", { device: "top", id: "2" });
      await t.qmp("query-named-block-nodes", { flat: true });
    },
    { differences: [FILE_LENGTH] },
  ),
  script("internal snapshots of what has none", async (t) => {
    await t.image("disk.raw", { format: "raw" });
    await t.openRaw("raw", "disk.raw");
    await t.image("ro.qcow2");
    await t.open("ro", "ro.qcow2", { "read-only": true });
    await t.qmp("blockdev-snapshot-internal-sync", { device: "raw", name: "one" });
    await t.qmp("blockdev-snapshot-internal-sync", { device: "ro", name: "one" });
  }),
  script(
    "an internal snapshot while a job works on the disk",
    async (t) => {
      await disk(t);
      await t.image("over.qcow2", { backing: "top.qcow2" });
      await t.open("over", "over.qcow2", { backing: "top" });
      await t.qmp("block-stream", { device: "over", "job-id": "s", speed: CRAWL });
      await t.progress("s", CHUNK);
      await t.qmp("blockdev-snapshot-internal-sync", { device: "over", name: "one" });
      await t.qmp("job-cancel", { id: "s" });
      await t.job("s", "null");
    },
    { since: DRAINED_SPEED, differences: [MOMENTARY_PAUSES] },
  ),
]);
