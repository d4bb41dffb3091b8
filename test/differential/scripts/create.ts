/** blockdev-create and x-blockdev-amend. */

import { area, script } from "../script.ts";
import type { Talk } from "../talk.ts";

const MiB = 1024 * 1024;

/** Creates, waits, shows the job, dismisses it. */
async function create(t: Talk, options: object): Promise<void> {
  const reply = await t.qmp("blockdev-create", { "job-id": "c", options });
  if (reply === undefined) return;
  await t.job("c", "concluded");
  await t.qmp("query-jobs");
  await t.qmp("job-dismiss", { id: "c" });
  await t.job("c", "null");
}

/** An empty file as node 'store'. */
async function store(t: Talk, filename = "new.qcow2"): Promise<void> {
  await create(t, { driver: "file", filename, size: 0 });
  await t.qmp("blockdev-add", { driver: "file", "node-name": "store", filename });
}

export const createArea = area("create", [
  script("a file, and an image in it", async (t) => {
    await store(t);
    await create(t, { driver: "qcow2", file: "store", size: 4 * MiB });
    await t.open("new", "-", { file: "store" });
    await t.qmp("query-named-block-nodes", { flat: true });
  }),
  ...Object.entries({
    "of version 2": { version: "v2" },
    "with small clusters": { "cluster-size": 4096 },
    "with large clusters": { "cluster-size": 2 * MiB },
    "with narrow refcounts": { "refcount-bits": 1 },
    "with lazy refcounts": { "lazy-refcounts": true },
    "with extended L2 entries": { "extended-l2": true },
    "with zstd": { "compression-type": "zstd" },
    "with metadata in advance": { preallocation: "metadata" },
    "of no length": { size: 0 },
    "of a length that is no multiple of a cluster": { size: 4 * MiB + 512 },
    "of a length that is no multiple of a sector": { size: 4 * MiB + 100 },
    "with a backing file": { "backing-file": "base.qcow2", "backing-fmt": "qcow2" },
  }).map(([what, options]) =>
    script(`an image ${what}`, async (t) => {
      await t.image("base.qcow2", { writes: ["-P 1 0 1M"] });
      await store(t);
      await create(t, { driver: "qcow2", file: "store", size: 4 * MiB, ...options });
    }),
  ),
  script("options that do not go together, or are none", async (t) => {
    await store(t);
    const attempt = (options: object) =>
      create(t, { driver: "qcow2", file: "store", size: 4 * MiB, ...options });
    await attempt({ "cluster-size": 1000 });
    await attempt({ "cluster-size": 256 });
    await attempt({ "cluster-size": 4 * MiB });
    await attempt({ "refcount-bits": 3 });
    await attempt({ "refcount-bits": 128 });
    await attempt({ version: "v2", "refcount-bits": 8 });
    await attempt({ version: "v2", "lazy-refcounts": true });
    await attempt({ version: "v2", "compression-type": "zstd" });
    await attempt({ version: "v2", "extended-l2": true });
    await attempt({ "backing-fmt": "qcow2" });
    await attempt({ version: "v4" });
    await attempt({ preallocation: "some" });
    await attempt({ size: "4M" });
    await attempt({ "extended-l2": true, "cluster-size": 4096 });
    await attempt({ file: "nope" });
    await attempt({ nonsense: 1 });
  }),
  script("drivers that cannot create", async (t) => {
    await create(t, { driver: "blkdebug", size: 1 });
    await create(t, { driver: "throttle", size: 1 });
    await create(t, { driver: "nonsense", size: 1 });
    await create(t, { size: 1 });
    await create(t, { driver: "file", size: 1 });
    await create(t, { driver: "file", filename: "x.raw" });
    await t.qmp("blockdev-create", { options: { driver: "file", filename: "x.raw", size: 1 } });
    await t.qmp("blockdev-create", { "job-id": "c" });
  }),
  script("a file where none can be", async (t) => {
    await create(t, { driver: "file", filename: "no/such/folder.raw", size: 0 });
  }),
  script("a file that is there already", async (t) => {
    await t.image("old.raw", { format: "raw", size: "1M", writes: ["-P 7 0 1M"] });
    await create(t, { driver: "file", filename: "old.raw", size: 2 * MiB });
  }),
  script("files of several lengths", async (t) => {
    await create(t, { driver: "file", filename: "a.raw", size: MiB });
    await create(t, { driver: "file", filename: "b.raw", size: MiB, preallocation: "off" });
    await create(t, { driver: "file", filename: "d.raw", size: 1000 });
  }),
  script("raw in a file", async (t) => {
    await store(t, "new.raw");
    t.parting("raw disks can be made in a node, too: in a browser there are no other tools for it");
    await create(t, { driver: "raw", file: "store", size: MiB });
  }),
  ...["qcow2", "file"].map((driver) =>
    script(`a negative length, ${driver}`, async (t) => {
      await store(t);
      t.parting("a size below zero is refused at once, not taken for one of 16 EiB");
      await create(t, {
        driver,
        size: -1,
        ...(driver === "file" ? { filename: "x" } : { file: "store" }),
      });
    }),
  ),
  script("verbs for a create job", async (t) => {
    const options = { driver: "file", filename: "new.raw", size: 0 };
    await t.qmp("blockdev-create", { "job-id": "c", options });
    await t.job("c", "concluded");
    await t.qmp("blockdev-create", { "job-id": "c", options });
    await t.qmp("blockdev-create", { "job-id": "0", options });
    await t.qmp("query-block-jobs");
    await t.qmp("block-job-dismiss", { id: "c" });
    await t.qmp("block-job-cancel", { device: "c" });
    await t.qmp("job-cancel", { id: "c" });
    await t.qmp("job-complete", { id: "c" });
    await t.qmp("job-finalize", { id: "c" });
    await t.qmp("job-pause", { id: "c" });
    await t.qmp("job-dismiss", { id: "c" });
    await t.job("c", "null");
    await t.qmp("job-dismiss", { id: "c" });
  }),
  script("an image in a file that somebody uses", async (t) => {
    await t.image("disk.qcow2", { writes: ["-P 1 0 1M"] });
    const file = { driver: "file", filename: "disk.qcow2", "node-name": "store" };
    await t.open("disk", "-", { file });
    await create(t, { driver: "qcow2", file: "store", size: 4 * MiB });
  }),
  script("an image in a file that is read-only", async (t) => {
    await t.image("disk.raw", { format: "raw", size: "1M" });
    const file = { driver: "file", filename: "disk.raw", "node-name": "store" };
    await t.qmp("blockdev-add", { ...file, "read-only": true });
    await create(t, { driver: "qcow2", file: "store", size: 4 * MiB });
  }),
  script("amends what cannot be amended", async (t) => {
    await t.image("disk.qcow2");
    await t.image("disk.raw", { format: "raw" });
    await t.open("disk", "disk.qcow2");
    await t.openRaw("raw", "disk.raw");
    const amend = (node: string, options: object) =>
      t.qmp("x-blockdev-amend", { "job-id": "a", "node-name": node, options });
    await amend("nope", { driver: "qcow2" });
    await amend("raw", { driver: "qcow2" });
    await amend("raw", { driver: "raw" });
    await amend("disk", { driver: "nonsense" });
    await amend("disk", {});
  }),
]);
