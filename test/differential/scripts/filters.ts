/** Filters by hand: throttle, copy-on-read, copy-before-write, snapshot-access, blkdebug, blklogwrites. */

import { area, script } from "../script.ts";
import { disk, pair } from "./disks.ts";

const file = (filename: string) => ({ driver: "file", filename });

export const filters = area("filters", [
  script("throttle groups as objects", async (t) => {
    const add = (more: object) => t.qmp("object-add", { "qom-type": "throttle-group", ...more });
    await add({ id: "t0", limits: { "bps-total": 1000, "iops-write": 5 } });
    await add({ id: "t0" });
    await add({});
    await add({ id: "1t" });
    await add({ id: "t1", limits: { nonsense: 1 } });
    await add({ id: "t1", limits: { "iops-size": 1 } });
    await add({ id: "t1", limits: { "bps-total": -1 } });
    await add({ id: "t1", limits: { "bps-total": 1, "bps-read": 1 } });
    await add({ id: "t1", limits: { "bps-total": 10, "bps-total-max": 5 } });
    await add({ id: "t1", nonsense: 1 });
    await t.qmp("object-add", { "qom-type": "nonsense", id: "t1" });
    await t.qmp("object-add", { id: "t1" });
    await t.qmp("qom-get", { path: "/objects/t0", property: "limits" });
    await t.qmp("qom-get", { path: "/objects/nope", property: "limits" });
    await t.qmp("qom-get", { path: "/objects/t0", property: "nonsense" });
    await t.qmp("object-del", { id: "t0" });
    await t.qmp("object-del", { id: "t0" });
  }),
  script("limits that are changed", async (t) => {
    await t.qmp("object-add", { "qom-type": "throttle-group", id: "t0" });
    const set = (value: object) =>
      t.qmp("qom-set", { path: "/objects/t0", property: "limits", value });
    await set({ "iops-read": 5, "iops-read-max": 50, "iops-read-max-length": 3 });
    await t.qmp("qom-get", { path: "/objects/t0", property: "limits" });
    await set({ "bps-read": 100 });
    await t.qmp("qom-get", { path: "/objects/t0", property: "limits" });
    await set({ "bps-total": 100 });
    await set({ nonsense: 100 });
    await set({ "iops-write": -1 });
    await set({ "iops-read-max-length": 0 });
    await t.qmp("qom-get", { path: "/objects/t0", property: "limits" });
  }),
  script("a throttle node", async (t) => {
    await disk(t);
    await t.qmp("object-add", { "qom-type": "throttle-group", id: "t0" });
    const add = (more: object) =>
      t.qmp("blockdev-add", { driver: "throttle", "node-name": "th", ...more });
    await add({ file: "top" });
    await add({ "throttle-group": "nope", file: "top" });
    await add({ "throttle-group": "t0" });
    await add({ "throttle-group": "t0", file: "top" });
    await t.nodes();
    await t.qmp("object-del", { id: "t0" });
    await t.qmp("blockdev-del", { "node-name": "top" });
    await t.qmp("blockdev-del", { "node-name": "th" });
    await t.qmp("object-del", { id: "t0" });
  }),
  script("a throttle node as the queries show it", async (t) => {
    await disk(t);
    const limits = { "bps-total": 1048576, "iops-read": 100, "iops-read-max": 200 };
    await t.qmp("object-add", { "qom-type": "throttle-group", id: "t0", limits });
    const own = { driver: "throttle", "node-name": "th", "throttle-group": "t0", file: "top" };
    await t.qmp("blockdev-add", own);
    await t.qmp("query-named-block-nodes", { flat: true });
  }),
  script("copy-on-read", async (t) => {
    await t.image("base.qcow2", { writes: ["-P 1 0 1M"] });
    await t.image("top.qcow2", { backing: "base.qcow2" });
    await t.open("base", "base.qcow2", { "read-only": true });
    await t.open("top", "top.qcow2", { backing: "base" });
    const add = (name: string, more: object) =>
      t.qmp("blockdev-add", { driver: "copy-on-read", "node-name": name, file: "top", ...more });
    await add("n", { bottom: "nope" });
    await add("n", { bottom: "base" });
    await t.qmp("blockdev-del", { "node-name": "n" });
    await add("n", { bottom: "top" });
    await add("cor", {});
    await t.nodes();
    await t.qmp("blockdev-del", { "node-name": "cor" });
  }),
  script("copy-before-write and snapshot-access", async (t) => {
    await pair(t);
    const cbw = { driver: "copy-before-write", "node-name": "cbw", file: "top" };
    await t.qmp("blockdev-add", cbw);
    await t.qmp("blockdev-add", { ...cbw, target: "nope" });
    await t.qmp("blockdev-add", { ...cbw, target: "target", bitmap: { node: "top", name: "b" } });
    await t.qmp("blockdev-add", { ...cbw, target: "target", "on-cbw-error": "nonsense" });
    await t.qmp("blockdev-add", { ...cbw, target: "target", "cbw-timeout": -1 });
    await t.qmp("blockdev-add", { ...cbw, target: "target" });
    const access = { driver: "snapshot-access", "node-name": "access", file: "cbw" };
    await t.qmp("blockdev-add", access);
    await t.nodes();
    await t.qmp("blockdev-del", { "node-name": "cbw" });
    await t.qmp("blockdev-del", { "node-name": "access" });
    await t.qmp("blockdev-del", { "node-name": "cbw" });
    t.parting("a view of a snapshot that nobody keeps is refused at once, not at its first read");
    await t.qmp("blockdev-add", { ...access, file: "top" });
  }),
  script("blkdebug's options", async (t) => {
    await t.image("disk.raw", { format: "raw", size: "1M" });
    const image = file("disk.raw");
    const add = async (options: object) => {
      const own = { driver: "blkdebug", "node-name": "bd", image, ...options };
      if ((await t.qmp("blockdev-add", own)) === undefined) return;
      await t.qmp("blockdev-del", { "node-name": "bd" });
    };
    await add({ align: 3 });
    await add({ align: 512 });
    await add({ align: 512, "max-transfer": 700 });
    await add({ "max-transfer": 65536 });
    await add({ "inject-error": [{ event: "nonsense" }] });
    await add({ "inject-error": [{ state: 1 }] });
    await add({ "inject-error": [{ event: "none", iotype: "nonsense" }] });
    await add({ "inject-error": [{ event: "none", errno: 28, sector: 8, once: true }] });
    await add({ "set-state": [{ event: "none" }] });
    await add({ "set-state": [{ event: "l2_load", new_state: 2 }] });
    await add({ "take-child-perms": ["nonsense"] });
    await add({ "take-child-perms": ["write"], "unshare-child-perms": ["resize"] });
    await add({ file: image });
    await add({ config: "no-such-file" });
  }),
  script("blklogwrites", async (t) => {
    await t.image("disk.raw", { format: "raw", size: "1M" });
    await t.image("log.raw", { format: "raw", size: "4M" });
    const add = (more: object) =>
      t.qmp("blockdev-add", { driver: "blklogwrites", "node-name": "lw", ...more });
    await add({ file: file("disk.raw") });
    await add({ log: file("log.raw") });
    await add({ file: file("disk.raw"), log: file("nope.raw") });
    await add({ file: file("disk.raw"), log: file("log.raw"), "log-sector-size": 100 });
    await add({ file: file("disk.raw"), log: file("log.raw") });
    await t.nodes();
    await t.qmp("blockdev-del", { "node-name": "lw" });
  }),
  script("a job on a throttled disk goes through the filter", async (t) => {
    await pair(t);
    await t.qmp("object-add", { "qom-type": "throttle-group", id: "t0" });
    const own = { driver: "throttle", "node-name": "th", "throttle-group": "t0", file: "top" };
    await t.qmp("blockdev-add", own);
    const to = { device: "th", target: "target", sync: "full", "job-id": "b" };
    await t.qmp("blockdev-backup", to);
    await t.job("b", "null");
  }),
]);
