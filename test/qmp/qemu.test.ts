/**
 * The real qemu-storage-daemon as the judge: both are told the same, line by line, and must agree on
 * the kind of every answer (its error class), on the members of every reply, and on the order of
 * status events. Skipped by name where there is no qemu-storage-daemon.
 */

import { type ChildProcessByStdio, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { afterAll, expect, it } from "vitest";
import { createNodeEngine } from "../../src/engine/node.ts";
import { COMMANDS } from "../../src/qmp/commands/index.ts";
import { kernelBytes } from "../kernel/load.ts";
import { runWell } from "../spawn.ts";
import type { Wire } from "./conversation.ts";

const hasQemu = spawnSync("qemu-storage-daemon", ["--version"]).status === 0;
const withQemu = it.skipIf(!hasQemu);
const directory = mkdtempSync(join(tmpdir(), "blocktab-qmp-"));
afterAll(() => rmSync(directory, { recursive: true }));

/** Ours, and newer than the oldest qemu-storage-daemon that may be installed. */
const NEWER_MEMBERS = new Set([
  ...["children", "active", "zone_append_bytes", "zone_append_operations", "zone_append_merged"],
  ...["zone_append_total_time_ns", "failed_zone_append_operations"],
  "invalid_zone_append_operations",
]);
/** QEMU resolves names that stand in images; we never do. */
const LEFT_OUT_MEMBERS = new Set(["full-backing-filename"]);

withQemu("malformed input is answered in the same way", async () => {
  await compare([
    '{"execute":"query-version"}',
    '{"execute":"nonsense"}',
    '{"execute":"qmp_capabilities","arguments":{"foo":1}}',
    '{"execute":"qmp_capabilities"}',
    '{"execute":"qmp_capabilities"}',
    '{"execute":"nonsense","id":[1,{"a":null}]}',
    '{"execute":"query-version","id":null}',
    '{"arguments":{},"id":1}',
    '{"execute":1,"id":"x"}',
    '{"execute":"query-jobs","extra":1}',
    '{"execute":"query-jobs","arguments":[]}',
    '{"execute":"query-jobs","arguments":{"x":1}}',
    '{"execute":"query-jobs","exec-oob":"query-jobs"}',
    "[]",
    "1 ",
    '"x"',
    "null ",
    '{"a":}',
    '{"execute" "query-jobs"}',
    "{'execute':'query-jobs','id':'it\\'s'}",
    '{"execute":"job-pause"}',
    '{"execute":"job-pause","arguments":{"id":1}}',
    '{"execute":"job-pause","arguments":{"id":null}}',
    '{"execute":"job-pause","arguments":{"id":"x","y":2}}',
  ]);
});

withQemu("what does not fit is refused with the same class", async () => {
  const file = image("a.qcow2", "-f", "qcow2", "1M");
  await compare([
    '{"execute":"qmp_capabilities"}',
    ...["pause", "resume", "cancel", "complete", "finalize", "dismiss"].map((verb) =>
      line(`job-${verb}`, { id: "x" }),
    ),
    line("block-job-set-speed", { device: "x", speed: 1 }),
    line("block-job-set-speed", { device: "x", speed: "1" }),
    line("block-job-set-speed", { device: "x", speed: 1.5 }),
    line("block-job-set-speed", { device: "x", speed: -1 }),
    line("blockdev-add", { driver: "file", "node-name": "f" }),
    line("blockdev-add", { "node-name": "f" }),
    line("blockdev-add", { driver: "bogus", "node-name": "f" }),
    line("blockdev-add", { driver: "file", "node-name": "f", filename: file, bogus: 1 }),
    line("blockdev-add", { driver: "file", "node-name": "f", filename: `${file}.no` }),
    line("blockdev-add", { driver: "file", "node-name": "f", filename: 1 }),
    line("blockdev-add", { driver: "file", "node-name": "9f", filename: file }),
    line("blockdev-add", { driver: "file", filename: file }),
    line("blockdev-add", { driver: "file", "node-name": "f", filename: file }),
    line("blockdev-add", { driver: "file", "node-name": "f", filename: file }),
    line("blockdev-del", { "node-name": "nope" }),
    line("block-stream", { device: "nope", "job-id": "j" }),
    line("block-stream", { device: "f" }),
    line("block-stream", { device: "f", "job-id": "j", "on-error": "bogus" }),
    line("block-stream", { device: "f", "job-id": "j", base: "x", "base-node": "y" }),
    line("blockdev-create", { "job-id": "j", options: { driver: "bogus" } }),
    line("blockdev-create", { "job-id": "j", options: { filename: "x" } }),
    line("blockdev-create", {
      "job-id": "0j",
      options: { driver: "file", filename: file, size: 1 },
    }),
    line("block-export-add", { type: "bogus", id: "e", "node-name": "f" }),
    line("block-export-del", { id: "e" }),
    line("query-jobs"),
  ]);
});

withQemu("a chain is opened, shown, streamed and closed alike", async () => {
  const base = image("base.qcow2", "-f", "qcow2", "4M");
  runWell("qemu-io", ["-c", "write -P 7 64k 1M", base]);
  const qmp = (file: string) => [
    '{"execute":"qmp_capabilities"}',
    line("blockdev-create", {
      "job-id": "c",
      options: { driver: "file", filename: file, size: 0 },
    }),
    line("job-dismiss", { id: "c" }),
    line("blockdev-add", { driver: "file", "node-name": "f", filename: file }),
    line("blockdev-create", {
      "job-id": "c",
      options: {
        driver: "qcow2",
        file: "f",
        size: 4194304,
        "backing-file": base,
        "backing-fmt": "qcow2",
      },
    }),
    line("job-dismiss", { id: "c" }),
    line("blockdev-add", {
      driver: "qcow2",
      "node-name": "top",
      file: "f",
      backing: { driver: "qcow2", "node-name": "base", file: { driver: "file", filename: base } },
    }),
    line("query-named-block-nodes", { flat: true }),
    line("query-named-block-nodes"),
    line("blockdev-del", { "node-name": "f" }),
    line("block-stream", { device: "top", "job-id": "s", speed: 1024, "auto-dismiss": false }),
    line("block-stream", { device: "top", "job-id": "s2" }),
    line("query-block-jobs"),
    line("query-jobs"),
    line("job-pause", { id: "s" }),
    line("job-complete", { id: "s" }),
    line("job-finalize", { id: "s" }),
    line("job-dismiss", { id: "s" }),
    line("blockdev-del", { "node-name": "top" }),
    line("job-cancel", { id: "s" }),
    line("query-jobs"),
    line("job-resume", { id: "s" }),
    line("job-dismiss", { id: "s" }),
    line("block-stream", { device: "top", "job-id": "s", "auto-dismiss": false }),
    line("query-jobs"),
    line("job-dismiss", { id: "s" }),
    line("blockdev-del", { "node-name": "top" }),
    line("blockdev-del", { "node-name": "f" }),
    line("query-named-block-nodes"),
  ];
  const [ours, theirs] = [join(directory, "ours.qcow2"), join(directory, "theirs.qcow2")];
  await compare(qmp(ours), qmp(theirs));
  expect(runWell("qemu-img", ["compare", ours, theirs])).toContain("identical");
});

withQemu("objects, filters and node options are taken, shown and refused alike", async () => {
  const file = image("filters.raw", "-f", "raw", "1M");
  const limits = (value: object) => ({ path: "/objects/t0", property: "limits", value });
  const store = { driver: "file", filename: file };
  const add = (name: string, driver: string, options: object) =>
    line("blockdev-add", { driver, "node-name": name, ...options });
  await compare([
    '{"execute":"qmp_capabilities"}',
    line("object-add", { "qom-type": "throttle-group", id: "t0", limits: { "bps-total": 1000 } }),
    line("object-add", { "qom-type": "throttle-group", id: "t0" }),
    line("object-add", { "qom-type": "bogus", id: "t1" }),
    line("object-add", { "qom-type": "throttle-group" }),
    line("object-add", { "qom-type": "throttle-group", id: "1t" }),
    line("object-add", { "qom-type": "throttle-group", id: "t1", limits: { "bps-x": 1 } }),
    line("object-add", { "qom-type": "throttle-group", id: "t1", limits: { "iops-size": 1 } }),
    line("object-add", { "qom-type": "throttle-group", id: "t1", x: 1 }),
    line("qom-get", { path: "/objects/t0", property: "limits" }),
    line("qom-get", { path: "t0", property: "limits" }),
    line("qom-get", { path: "/objects/nope", property: "limits" }),
    line("qom-get", { path: "/objects/t0", property: "nope" }),
    line("qom-set", limits({ "iops-read": 5, "iops-read-max": 50, "iops-read-max-length": 3 })),
    line("qom-set", limits({ "bps-read": 5 })),
    line("qom-set", limits({ "bps-x": 5 })),
    line("qom-set", limits({ "iops-write": -1 })),
    line("qom-set", { path: "t0", property: "x-bps-total", value: 5 }),
    line("qom-set", { path: "t0", property: "type", value: "x" }),
    line("qom-get", { path: "t0", property: "x-iops-read" }),
    line("qom-get", { path: "t0", property: "type" }),
    line("qom-get", { path: "/objects", property: "t0" }),
    line("qom-get", { path: "/", property: "type" }),
    line("qom-list", { path: "/objects" }),
    line("qom-list", { path: "/objects/t0" }),
    line("qom-list", { path: "t0" }),
    line("qom-list", { path: "/nope" }),
    line("qom-list-properties", { typename: "throttle-group" }),
    line("qom-list-properties", { typename: "nope" }),
    line("object-add", { "qom-type": "throttle-group", id: "t2", "x-bps-read": 100 }),
    line("object-add", { "qom-type": "throttle-group", id: "t3", "x-bps-read": -100 }),
    line("object-add", { "qom-type": "throttle-group", id: "t3", "x-iops-size": 100 }),
    line("object-del", { id: "t2" }),
    line("object-del", { id: "nope" }),
    add("th", "throttle", { "throttle-group": "nope", file: store }),
    add("th", "throttle", { file: store }),
    add("th", "throttle", { "throttle-group": "t0" }),
    add("th", "throttle", { "throttle-group": "t0", file: { ...store, "node-name": "f" } }),
    line("query-named-block-nodes"),
    line("object-del", { id: "t0" }),
    line("blockdev-del", { "node-name": "th" }),
    line("object-del", { id: "t0" }),
    add("bd", "blkdebug", { image: store, align: 3 }),
    add("bd", "blkdebug", { image: store, align: 512, "max-transfer": 700 }),
    add("bd", "blkdebug", { image: store, "inject-error": [{ event: "nope" }] }),
    add("bd", "blkdebug", { image: store, "inject-error": [{ state: 1 }] }),
    add("bd", "blkdebug", { image: store, "set-state": [{ event: "none" }] }),
    add("bd", "blkdebug", { file: store }),
    add("bd", "blkdebug", { image: store, "take-child-perms": ["nope"] }),
    add("bd", "blkdebug", {
      image: store,
      "inject-error": [{ event: "flush_to_os", iotype: "flush", errno: 28, once: true }],
      "set-state": [{ event: "l2_load", new_state: 2 }],
    }),
    line("blockdev-del", { "node-name": "bd" }),
    add("lw", "blklogwrites", { file: store }),
    add("lw", "blklogwrites", { file: store, log: { ...store, filename: `${file}.nope` } }),
    add("dz", "raw", { file: store, "detect-zeroes": "unmap" }),
    add("dz", "raw", { file: store, "detect-zeroes": "bogus" }),
    add("dz", "raw", { file: store, "detect-zeroes": "unmap", discard: "unmap" }),
    line("query-named-block-nodes", { flat: true }),
    line("blockdev-del", { "node-name": "dz" }),
    add("dz", "raw", {
      file: store,
      discard: "ignore",
      cache: { direct: false, "no-flush": false },
    }),
    line("blockdev-del", { "node-name": "dz" }),
  ]);
});

withQemu("nodes are reopened, and refused to be, alike", async () => {
  const store = (name: string) => ({
    driver: "file",
    filename: image(name, "-f", name.replace(/.*\./, ""), "1M"),
  });
  const [f, g, own, b] = ["f.qcow2", "g.raw", "own.qcow2", "b.raw"].map(store);
  const add = (name: string, options: object) =>
    line("blockdev-add", { "node-name": name, ...options });
  const reopen = (...options: object[]) => line("blockdev-reopen", { options });
  const file = (more: object = {}) => ({ "node-name": "f", ...f, ...more });
  const q = (more: object = {}) => ({
    driver: "qcow2",
    "node-name": "q",
    file: "f",
    ...more,
  });
  const r = (more: object = {}) => ({ driver: "raw", "node-name": "r", file: "g", ...more });
  const n = (more: object = {}) => ({ driver: "qcow2", "node-name": "n", file: own, ...more });
  const th = (more: object = {}) => ({
    driver: "throttle",
    "node-name": "th",
    file: "g",
    "throttle-group": "t0",
    ...more,
  });
  const show = line("query-named-block-nodes", { flat: true });
  await compare([
    '{"execute":"qmp_capabilities"}',
    line("object-add", { "qom-type": "throttle-group", id: "t0" }),
    line("object-add", { "qom-type": "throttle-group", id: "t1" }),
    add("f", file()),
    add("g", g!),
    add("b", b!),
    add("q", q()),
    add("n", n()),
    add("r", r()),
    reopen(q({ "read-only": true })),
    reopen(q({ "detect-zeroes": "on" })),
    show,
    reopen({ driver: "qcow2", "node-name": "q" }),
    reopen({ ...q(), file: f }),
    reopen({ ...q(), driver: "raw" }),
    reopen({ ...q(), driver: "bogus" }),
    reopen({ ...q(), "node-name": "nope" }),
    reopen({ driver: "qcow2", file: "f" }),
    reopen(q({ bogus: 1 })),
    reopen(q(), q()),
    reopen(file({ "read-only": true })),
    reopen(file({ filename: g!.filename })),
    reopen(file({ "read-only": true }), q({ "read-only": true })),
    show,
    reopen(q()),
    reopen(q(), file()),
    reopen(q({ file: "nope" })),
    reopen(q({ backing: "q" })),
    reopen(q({ backing: "g" })),
    reopen(q()),
    reopen(q({ backing: null })),
    reopen(q({ "force-share": true })),
    reopen(q({ "force-share": true, "read-only": true })),
    reopen(q({ "auto-read-only": true, cache: { direct: true, "no-flush": true } })),
    show,
    reopen(r({ offset: 512, size: 1024 })),
    show,
    reopen(r({ offset: 512, size: 10240000 })),
    reopen(r({ file: "b" })),
    reopen(r({ file: "r" })),
    reopen(r({ file: b })),
    reopen(n({ "read-only": true })),
    reopen(n({ file: { ...own, "read-only": true } })),
    reopen(n({ file: { ...own, "read-only": true }, "read-only": true })),
    show,
    reopen(n()),
    reopen(n({ backing: b })),
    add("th", th()),
    reopen(th({ "throttle-group": "nope" })),
    reopen(th({ "throttle-group": "t1", "read-only": true })),
    line("object-del", { id: "t1" }),
    line("object-del", { id: "t0" }),
    add("cor", { driver: "copy-on-read", file: "b" }),
    reopen({ driver: "copy-on-read", "node-name": "cor", file: "b" }),
    add("bd", { driver: "blkdebug", image: "b" }),
    reopen({ driver: "blkdebug", "node-name": "bd", image: "b" }),
    reopen({ driver: "blkdebug", "node-name": "bd", image: "g" }),
    reopen({ driver: "blkdebug", "node-name": "bd", image: "b", align: 512 }),
    // QEMU tells no actual-size of it.
    line("blockdev-del", { "node-name": "bd" }),
    show,
  ]);
});

withQemu("figures, thresholds and names in headers are told and changed alike", async () => {
  const chain = ["n0.qcow2", "n1.qcow2", "n2.qcow2"].map((name, i) =>
    i === 0
      ? image(name, "-f", "qcow2", "1M")
      : image(name, "-f", "qcow2", "-F", "qcow2", "-b", `n${i - 1}.qcow2`, "1M"),
  );
  const node = (i: number, more: object = {}) => ({
    driver: "qcow2",
    "node-name": `n${i}`,
    file: { driver: "file", filename: chain[i], "node-name": `f${i}` },
    ...more,
  });
  const change = (device: string, name: string, file?: string) =>
    line("change-backing-file", { device, "image-node-name": name, "backing-file": file });
  const threshold = (name: string, offset?: number) =>
    line("block-set-write-threshold", { "node-name": name, "write-threshold": offset });
  await compare([
    '{"execute":"qmp_capabilities"}',
    line("query-blockstats"),
    line("blockdev-add", node(2, { backing: node(1, { backing: node(0) }) })),
    line("query-blockstats"),
    line("query-blockstats", { "query-nodes": false }),
    line("query-blockstats", { "query-nodes": true }),
    line("query-blockstats", { "query-nodes": 1 }),
    change("n2", "n1", "elsewhere"),
    change("n2", "n2", "elsewhere"),
    change("n2", "n0", "elsewhere"),
    change("n1", "n1", "elsewhere"),
    change("nope", "n1", "elsewhere"),
    change("n2", "nope", "elsewhere"),
    change("n2", "f2", "elsewhere"),
    change("n2", "n1"),
    change("n2", "n2", ""),
    line("query-named-block-nodes", { flat: true }),
    threshold("n2", 4096),
    threshold("f2", 4096),
    threshold("n2", 0),
    threshold("nope", 0),
    threshold("n2"),
    line("query-named-block-nodes"),
  ]);
});

withQemu("what clients pass as a matter of course is taken, or refused, alike", async () => {
  const raw = image("course.raw", "-f", "raw", "1M");
  const two = image("course2.qcow2", "-f", "qcow2", "-o", "compat=0.10", "1M");
  const three = image("course3.qcow2", "-f", "qcow2", "1M");
  const made = (name: string) => ({ driver: "file", filename: join(directory, name) });
  const file = (more: object) => [
    line("blockdev-add", { driver: "file", "node-name": "f", filename: raw, ...more }),
    line("blockdev-del", { "node-name": "f" }),
  ];
  const qcow2 = (filename: string, more: object) => [
    line("blockdev-add", {
      driver: "qcow2",
      "node-name": "q",
      file: { driver: "file", filename },
      ...more,
    }),
    line("blockdev-del", { "node-name": "q" }),
  ];
  const create = (options: object) => [
    line("blockdev-create", { "job-id": "c", options }),
    line("query-jobs"),
    line("job-dismiss", { id: "c" }),
  ];
  const cache = { direct: true, "no-flush": true };
  await compare([
    '{"execute":"qmp_capabilities"}',
    ...file({ "auto-read-only": true, discard: "unmap", cache, aio: "threads", locking: "auto" }),
    ...file({ aio: "native", cache, locking: "off", "drop-cache": true }),
    ...file({ "x-check-cache-dropped": true, "aio-max-batch": 8 }),
    ...file({ aio: "bogus" }),
    ...file({ "read-only": true, "force-share": true }),
    ...file({ "force-share": true }),
    ...qcow2(three, {
      "lazy-refcounts": true,
      "pass-discard-request": true,
      "pass-discard-snapshot": false,
      "pass-discard-other": true,
      "overlap-check": "all",
      "cache-size": 1048576,
      "l2-cache-size": 524288,
      "l2-cache-entry-size": 4096,
      "cache-clean-interval": 60,
    }),
    ...qcow2(two, { "lazy-refcounts": true }),
    ...qcow2(two, { "cache-size": 65536, "l2-cache-size": 131072 }),
    ...qcow2(two, { "cache-size": 65536, "refcount-cache-size": 131072 }),
    ...qcow2(two, { "cache-size": 4e5, "l2-cache-size": 2e5, "refcount-cache-size": 2e5 }),
    ...qcow2(two, { "l2-cache-entry-size": 100 }),
    ...qcow2(two, { "l2-cache-entry-size": 131072 }),
    ...qcow2(two, { "cache-clean-interval": 4294967296 }),
    ...qcow2(two, { "overlap-check": "bogus" }),
    ...qcow2(two, { "overlap-check": { template: "cached", "active-l1": false } }),
    ...qcow2(two, { "overlap-check": { bogus: true } }),
    ...qcow2(two, { encrypt: { format: "aes" } }),
    ...create({ ...made("m0"), size: 65536, preallocation: "falloc", nocow: true }),
    ...create({ ...made("m1"), size: 65536, preallocation: "full" }),
    ...create({ ...made("m2"), size: 65536, preallocation: "metadata" }),
    ...create({ driver: "qcow2", file: made("m0"), size: 1048576, preallocation: "full" }),
    ...create({ driver: "qcow2", file: made("m1"), size: 1048576, preallocation: "falloc" }),
    ...create({ driver: "qcow2", file: made("not there"), size: 1048576 }),
    ...create({ driver: "qcow2", file: "nope", size: 1048576 }),
    line("blockdev-create", { "job-id": "c", options: { driver: "qcow2", size: 1 } }),
    line("blockdev-create", { "job-id": "c", options: { driver: "null-co" } }),
    line("blockdev-add", { driver: "null-co", "node-name": "n", size: 1000 }),
    line("blockdev-add", { driver: "null-aio", "node-name": "n", "read-zeroes": true }),
    line("blockdev-add", { driver: "null-aio", "node-name": "m", "latency-ns": 100 }),
    line("query-named-block-nodes", { flat: true }),
    line("block_resize", { "node-name": "n", size: 100 }),
    line("block_resize", { size: 100 }),
    line("block_resize", { "node-name": "n", device: "nope", size: 100 }),
    ...qcow2(join(directory, "m0"), {}),
  ]);
});

withQemu("dirty bitmaps are made, shown, merged and refused alike", async () => {
  const file = (name: string, size: string) => ({
    driver: "file",
    filename: image(name, "-f", "raw", size),
  });
  const open = (name: string, size: string) =>
    line("blockdev-add", { driver: "raw", "node-name": name, file: file(`${name}.raw`, size) });
  const add = (node: string, name: string, more: object = {}) =>
    line("block-dirty-bitmap-add", { node, name, ...more });
  const merge = (...bitmaps: unknown[]) =>
    line("block-dirty-bitmap-merge", { node: "a", target: "b0", bitmaps });
  const each = (node: string, name: string) =>
    ["clear", "enable", "disable", "remove"].map((verb) =>
      line(`block-dirty-bitmap-${verb}`, { node, name }),
    );
  await compare([
    '{"execute":"qmp_capabilities"}',
    open("a", "1M"),
    open("b", "1M"),
    open("c", "2M"),
    add("a", "b0"),
    add("a", "b0"),
    add("a", ""),
    add("a", "x".repeat(1023)),
    add("a", "x".repeat(1024)),
    add("a", "g", { granularity: 256 }),
    add("a", "g", { granularity: 64000 }),
    add("a", "g", { granularity: 0 }),
    add("a", "g", { granularity: 2 ** 32 }),
    add("a", "g", { granularity: 2 ** 31, disabled: true }),
    add("a", "p", { persistent: true }),
    add("nope", "b0"),
    add("b", "b0", { granularity: 512 }),
    add("c", "b0"),
    line("query-named-block-nodes", { flat: true }),
    merge("g", { node: "b", name: "b0" }),
    merge("g", { node: "c", name: "b0" }),
    merge("nope"),
    merge({ node: "b" }),
    merge(1),
    line("x-debug-block-dirty-bitmap-sha256", { node: "a", name: "b0" }),
    line("x-debug-block-dirty-bitmap-sha256", { node: "a", name: "nope" }),
    ...each("a", "nope"),
    ...each("nope", "b0"),
    ...each("a", "b0"),
    line("query-named-block-nodes", { flat: true }),
  ]);
});

withQemu("commands take the arguments that QEMU's take", async () => {
  const replies = await askQemu(['{"execute":"qmp_capabilities"}', line("query-qmp-schema")]);
  const [answer] = replies.at(-1)!.heard;
  const schema = new Map((answer!["return"] as SchemaInfo[]).map((info) => [info.name, info]));
  const wrong: string[] = [];
  for (const { name, args, open } of COMMANDS.values()) {
    // Unions of what each driver and type takes: they have tests of their own.
    if (open || name === "block-export-add") continue;
    const theirs = schema.get(schema.get(name)?.["arg-type"] ?? "")?.members ?? [];
    for (const member of theirs) {
      const ours = (args as Record<string, { type: string }>)[member.name];
      if (ours && (ours.type === "optional") === "default" in member) continue;
      wrong.push(`${name}: ${member.name}`);
    }
  }
  expect(wrong).toEqual([]);
});

interface SchemaInfo {
  name: string;
  "arg-type"?: string;
  members?: { name: string; default?: null }[];
}

/** One line and what came of it, in the order in which it came. */
interface Exchange {
  readonly line: string;
  readonly heard: Wire[];
}

/** Tells both the same, and expects answers of the same kinds. */
async function compare(lines: readonly string[], theirLines = lines): Promise<void> {
  const ours = (await askOurs(lines)).map(digest);
  const theirs = (await askQemu(theirLines)).map(digest);
  expect(ours).toEqual(theirs);
}

/**
 * The reply and the events of one line. Which of them comes first is not compared: an event that
 * does not wait for anything may be told before or after the reply. See monitor.ts for what is sure.
 */
function digest({ line, heard }: Exchange): object {
  const isEvent = (message: Wire) => "event" in message;
  return {
    line: line.replaceAll(directory, "").replace("theirs", "ours"),
    reply: heard.filter((message) => !isEvent(message)).map(replyKind),
    events: heard.filter(isEvent).map(eventKind),
  };
}

function eventKind({ event, data }: Wire): string {
  const members = data as Wire;
  return `${event} ${members["status"] ?? Object.keys(members).sort()}`;
}

function replyKind(reply: Wire): string {
  const id = "id" in reply ? ` id ${JSON.stringify(reply.id, sorted)}` : "";
  const error = reply["error"] as { class: string } | undefined;
  return error ? `error ${error.class}${id}` : `return ${shape(reply["return"])}${id}`;
}

function sorted(_key: string, value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort());
}

/** What a value looks like: types instead of values, members in order. */
function shape(value: unknown): string {
  // In what order nodes are listed is no promise.
  if (Array.isArray(value)) return `[${value.map(shape).sort().join(" ")}]`;
  if (typeof value !== "object" || value === null) return typeof value;
  const members = Object.entries(value)
    // Newer, too: a file that has nothing to tell of itself.
    .filter(([member, inner]) => member !== "format-specific" || inner.type !== "file")
    .filter(([member]) => !NEWER_MEMBERS.has(member) && !LEFT_OUT_MEMBERS.has(member))
    .sort()
    .map(([member, inner]) => `${member}:${shape(inner)}`);
  return `{${members.join(" ")}}`;
}

async function askOurs(lines: readonly string[]): Promise<Exchange[]> {
  const engine = await createNodeEngine({ kernelBytes: kernelBytes() });
  const session = new Session();
  const monitor = engine.openMonitor((message) => session.hear(message as Wire));
  await session.say(lines, (text) => monitor.receiveText(text));
  await engine.close();
  return session.exchanges;
}

async function askQemu(lines: readonly string[]): Promise<Exchange[]> {
  const args = ["--chardev", "stdio,id=c", "--monitor", "chardev=c"];
  const daemon: ChildProcessByStdio<Writable, Readable, null> = spawn("qemu-storage-daemon", args, {
    stdio: ["pipe", "pipe", "ignore"],
  });
  try {
    const session = new Session();
    createInterface(daemon.stdout).on("line", (text) => session.hear(JSON.parse(text)));
    await session.say(lines, (text) => daemon.stdin.write(text));
    return session.exchanges;
  } finally {
    daemon.kill();
  }
}

/** Says one line after the other, each when the one before it was answered and all jobs rest. */
class Session {
  readonly exchanges: Exchange[] = [];
  readonly #statuses = new Map<string, string>();
  #isAnswered = false;
  #wake = () => {};

  hear(message: Wire): void {
    if ("QMP" in message) return;
    this.exchanges.at(-1)!.heard.push(message);
    const { event, data } = message as { event?: string; data?: { id: string; status: string } };
    if (event === "JOB_STATUS_CHANGE") this.#statuses.set(data!.id, data!.status);
    if ("return" in message || "error" in message) this.#isAnswered = true;
    this.#wake();
  }

  async say(lines: readonly string[], send: (text: string) => void): Promise<void> {
    // With a speed of next to nothing a running job rests, too, until it is paused.
    let rest = REST;
    for (const line of lines) {
      if (line.includes('"speed":1024')) rest = [...REST, "running"];
      if (line.includes("job-pause")) rest = REST;
      this.exchanges.push({ line, heard: [] });
      this.#isAnswered = false;
      send(`${line}\n`);
      while (!this.#isAnswered || [...this.#statuses.values()].some((now) => !rest.includes(now))) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }
}

const REST = ["paused", "concluded", "null"];

function line(execute: string, args?: object): string {
  return JSON.stringify({ execute, ...(args && { arguments: args }) });
}

function image(name: string, ...args: string[]): string {
  const path = join(directory, name);
  const size = args.pop()!;
  runWell("qemu-img", ["create", "-q", ...args, path, size]);
  return path;
}
