/** NBD: the server, its exports, and the real qemu-io as a guest. */

import {
  discardsArePassedOn,
  EXIT_STATUS,
  MOMENTARY_PAUSES,
  TRUE_FIGURES,
} from "../differences.ts";
import { DRAINED_SPEED } from "../newer.ts";
import { area, script } from "../script.ts";
import type { Talk } from "../talk.ts";
import { CHUNK, CRAWL, chain, disk, faulty, pair } from "./disks.ts";

const MiB = 1024 * 1024;

/** Disk 'top' as an export that can be written. */
async function served(t: Talk): Promise<void> {
  await disk(t);
  await t.serve();
  await t.exportNbd("top");
}

export const exportsArea = area("exports", [
  script("the server is started and stopped", async (t) => {
    const addr = { type: "unix", data: { path: "nbd.sock" } };
    await t.qmp("nbd-server-stop");
    await t.qmp("nbd-server-start", { addr });
    await t.qmp("nbd-server-start", { addr });
    await t.qmp("nbd-server-stop");
    await t.qmp("nbd-server-stop");
    await t.qmp("nbd-server-start", { addr, "max-connections": 2 });
  }),
  script("servers that cannot be", async (t) => {
    const start = (more: object) => t.qmp("nbd-server-start", more as never);
    await start({});
    await start({ addr: { type: "unix", data: { path: "no/such/folder/nbd.sock" } } });
    await start({ addr: { type: "unix", data: {} } });
    await start({ addr: { type: "nonsense", data: {} } });
    await start({ addr: { type: "unix", data: { path: "nbd.sock" } }, "max-connections": -1 });
    await start({ addr: { type: "unix", data: { path: "nbd.sock" } }, "tls-creds": "nope" });
    await start({ addr: { type: "unix", data: { path: "nbd.sock" } }, nonsense: 1 });
  }),
  script("a disk is exported and listed", async (t) => {
    await served(t);
    await t.qmp("query-block-exports");
    await t.io("top", "read -P 1 0 64k", "write -P 5 64k 64k", "read -P 5 64k 64k", "flush");
    await t.qmp("block-export-del", { id: "x-top" });
    await t.event("BLOCK_EXPORT_DELETED", { id: "x-top" });
    await t.qmp("query-block-exports");
    await t.qmp("blockdev-del", { "node-name": "top" });
  }),
  script("exports that do not fit", async (t) => {
    await disk(t);
    const add = (more: object) =>
      t.qmp("block-export-add", { type: "nbd", id: "x", "node-name": "top", ...more });
    await add({});
    await t.serve();
    await add({ "node-name": "nope" });
    await add({ type: "nonsense" });
    await add({ id: "" });
    await add({ id: "1x" });
    await t.qmp(
      "block-export-add",
      { type: "nbd", id: "x", "node-name": "top", name: "x".repeat(5000) },
      { differs: "a name of 5000 letters is not repeated in the error" },
    );
    await add({ nonsense: 1 });
    await add({ bitmaps: ["nope"] });
    await add({ name: "disk", description: "a disk" });
    await add({});
    await add({ id: "y", name: "disk" });
    await t.qmp("query-block-exports");
    await t.qmp("block-export-del", { id: "nope" });
    await t.qmp("block-export-del", { id: "x", mode: "nonsense" });
    await t.qmp("block-export-del", {});
  }),
  script("two exports of one disk", async (t) => {
    await served(t);
    await t.exportNbd("top", { id: "again", name: "again" });
    await t.exportNbd("top", { id: "reader", name: "reader", writable: false });
    await t.io("reader", "read -P 1 0 64k");
    await t.io("again", "write -P 9 0 64k");
    await t.io("reader", "read -P 9 0 64k");
    await t.qmp("query-block-exports");
  }),
  script("a read-only export", async (t) => {
    await disk(t);
    await t.serve();
    await t.exportNbd("top", { writable: false });
    await t.io("top", "read -P 1 0 64k");
    await t.io("top", "write -P 2 0 64k");
  }),
  script("a writable export of a read-only disk", async (t) => {
    await t.image("ro.qcow2", { writes: ["-P 1 0 64k"] });
    await t.open("ro", "ro.qcow2", { "read-only": true });
    await t.serve();
    await t.exportNbd("ro");
    await t.exportNbd("ro", { writable: false });
    await t.io("ro", "read -P 1 0 64k");
  }),
  script("guests write data, zeroes and holes", async (t) => {
    await served(t);
    await t.io(
      "top",
      "write -P 2 100k 300k",
      "write -z 1M 512k",
      "write -z -u 2M 128k",
      "write -f -P 3 3584k 1k",
      "read -P 0 1M 512k",
      "read -P 2 100k 300k",
    );
  }),
  script("guests beyond the end of the disk", async (t) => {
    await served(t);
    await t.io("top", "read 4M 64k");
    await t.io("top", "write 4095k 64k");
    await t.io("top", "read -P 1 4095k 1k");
  }),
  script("an overlay takes what guests write", async (t) => {
    await chain(t);
    await t.serve();
    await t.exportNbd("top");
    await t.io("top", "write -P 9 1000k 200k", "read -P 9 1000k 200k", "read -P 1 0 64k");
    await t.io("top", "write -z 512k 64k", "read -P 0 512k 64k");
  }),
  script("an export that is taken away by force", async (t) => {
    await served(t);
    await t.qmp("block-export-del", { id: "x-top", mode: "hard" });
    await t.event("BLOCK_EXPORT_DELETED", { id: "x-top" });
    await t.io("top", "read 0 64k");
  }),
  script("the server goes with an export in it", async (t) => {
    await served(t);
    await t.qmp("nbd-server-stop");
    await t.event("BLOCK_EXPORT_DELETED", { id: "x-top" });
    await t.qmp("query-block-exports");
  }),
  script("quit with exports", async (t) => {
    await served(t);
    await t.io("top", "write -P 4 0 64k");
  }),
  script(
    "quit with an export and a job",
    async (t) => {
      await chain(t);
      await t.serve();
      await t.exportNbd("top");
      await t.qmp("block-stream", { device: "top", "job-id": "s", speed: CRAWL });
      await t.progress("s", CHUNK);
    },
    { since: DRAINED_SPEED, differences: [MOMENTARY_PAUSES] },
  ),
  script("a disk in use is not removed", async (t) => {
    await served(t);
    await t.qmp("blockdev-del", { "node-name": "top" });
    await t.qmp("block_resize", { "node-name": "top", size: 8 * MiB });
  }),
  script("guests while a stream runs", async (t) => {
    await chain(t);
    await t.serve();
    await t.exportNbd("top");
    await t.qmp("block-stream", { device: "top", "job-id": "s", speed: CRAWL });
    await t.progress("s", CHUNK);
    await t.io("top", "write -P 6 600k 100k", "read -P 6 600k 100k", "read -P 2 1M 64k");
    await t.qmp("block-job-set-speed", { device: "s", speed: 0 });
    await t.job("s", "null");
    await t.io("top", "read -P 6 600k 100k", "read -P 1 0 64k", "read -P 3 1536k 64k");
  }),
  script("guests go to the overlay that is put on top", async (t) => {
    await served(t);
    await t.image("over.qcow2", { backing: "top.qcow2" });
    await t.open("over", "over.qcow2", { backing: null });
    await t.qmp("blockdev-snapshot", { node: "top", overlay: "over" });
    await t.io("top", "write -P 8 0 64k", "read -P 8 0 64k", "read -P 1 64k 64k");
    await t.nodes();
  }),
  script(
    "a fault in the file is the guest's error",
    async (t) => {
      await t.image("disk.qcow2", { writes: ["-P 1 0 4M"] });
      const fault = { event: "read_aio", errno: 5 };
      await t.open("disk", "disk.qcow2", { file: faulty("disk.qcow2", fault) });
      await t.serve();
      await t.exportNbd("disk");
      await t.io("disk", "read 0 64k");
      await t.io("disk", "write -P 2 0 64k");
    },
    { differences: [EXIT_STATUS] },
  ),
  script("a full disk is the guest's error", async (t) => {
    await t.image("disk.qcow2");
    const fault = { event: "write_aio", errno: 28, once: true };
    await t.open("disk", "disk.qcow2", { file: faulty("disk.qcow2", fault) });
    await t.serve();
    await t.exportNbd("disk");
    await t.io("disk", "write -P 2 0 64k");
    await t.io("disk", "write -P 2 0 64k", "read -P 2 0 64k");
  }),
  script("writes through detect-zeroes leave holes", async (t) => {
    await t.image("disk.qcow2", { writes: ["-P 1 0 1M"] });
    await t.open("disk", "disk.qcow2", { "detect-zeroes": "unmap", discard: "unmap" });
    await t.serve();
    await t.exportNbd("disk");
    await t.io("disk", "write -P 0 0 128k", "write -P 3 128k 64k", "write -P 0 2M 64k");
  }),
  script(
    "a discard on a disk that says nothing about discards",
    async (t) => {
      await served(t);
      await t.io("top", "discard 3M 64k", "write -P 2 3M 512");
    },
    { differences: [discardsArePassedOn("top.qcow2")] },
  ),
  script("a discard that is ignored, and one that is not", async (t) => {
    for (const discard of ["ignore", "unmap"]) {
      await t.image(`${discard}.qcow2`, { writes: ["-P 1 0 1M"] });
      await t.open(discard, `${discard}.qcow2`, { discard });
    }
    await t.serve();
    for (const discard of ["ignore", "unmap"]) {
      await t.exportNbd(discard);
      await t.io(discard, "discard 0 128k", "read 0 128k");
    }
  }),
  script("copy-on-read keeps what guests read", async (t) => {
    await t.image("base.qcow2", { writes: ["-P 1 0 1M"] });
    await t.image("top.qcow2", { backing: "base.qcow2" });
    await t.open("base", "base.qcow2", { "read-only": true });
    await t.open("top", "top.qcow2", { backing: "base" });
    await t.qmp("blockdev-add", { driver: "copy-on-read", "node-name": "cor", file: "top" });
    await t.serve();
    await t.exportNbd("cor");
    await t.io("cor", "read -P 1 100k 100k", "read -P 0 2M 64k");
  }),
  script("fleecing: what was, while guests go on", async (t) => {
    await pair(t);
    const cbw = { driver: "copy-before-write", "node-name": "cbw", file: "top", target: "target" };
    await t.qmp("blockdev-add", cbw);
    await t.qmp("blockdev-add", { driver: "snapshot-access", "node-name": "access", file: "cbw" });
    await t.serve();
    await t.exportNbd("cbw");
    await t.exportNbd("access", { writable: false });
    await t.io("cbw", "write -P 9 0 64k", "write -P 9 1000k 10k");
    await t.io("access", "read -P 1 0 64k", "read -P 1 960k 128k", "read -P 1 2M 64k");
    await t.io("cbw", "read -P 9 0 64k", "read -P 9 1000k 10k");
  }),
  script("fleecing within a bitmap", async (t) => {
    await pair(t);
    await t.qmp("block-dirty-bitmap-add", { node: "top", name: "b", granularity: 65536 });
    await t.serve();
    await t.exportNbd("top");
    await t.io("top", "write -P 7 1M 64k");
    await t.qmp("block-export-del", { id: "x-top" });
    await t.event("BLOCK_EXPORT_DELETED", { id: "x-top" });
    await t.qmp("blockdev-add", {
      driver: "copy-before-write",
      "node-name": "cbw",
      file: "top",
      target: "target",
      bitmap: { node: "top", name: "b" },
    });
    await t.qmp("blockdev-add", { driver: "snapshot-access", "node-name": "access", file: "cbw" });
    await t.exportNbd("cbw");
    await t.exportNbd("access", { writable: false });
    await t.io("cbw", "write -P 9 1M 64k", "write -P 9 0 64k");
    await t.io("access", "read -P 7 1M 64k");
    await t.io("access", "read 0 64k");
  }),
  ...["break-guest-write", "break-snapshot"].map((policy) =>
    script(
      `copy-before-write with a target that fails: ${policy}`,
      async (t) => {
        await disk(t);
        await t.image("target.qcow2");
        const fault = { event: "write_aio", errno: 5 };
        await t.open("target", "target.qcow2", { file: faulty("target.qcow2", fault) });
        await t.qmp("blockdev-add", {
          driver: "copy-before-write",
          "node-name": "cbw",
          file: "top",
          target: "target",
          "on-cbw-error": policy,
        });
        await t.qmp("blockdev-add", { driver: "snapshot-access", "node-name": "a", file: "cbw" });
        await t.serve();
        await t.exportNbd("cbw");
        await t.exportNbd("a", { writable: false });
        await t.io("cbw", "write -P 9 0 64k");
        await t.io("a", "read -P 1 0 64k");
        await t.io("cbw", "read 0 64k");
      },
      { differences: [EXIT_STATUS] },
    ),
  ),
  script("a write threshold that is passed", async (t) => {
    await t.image("disk.raw", { format: "raw", size: "4M" });
    const file = { driver: "file", filename: "disk.raw", "node-name": "store" };
    await t.openRaw("disk", "-", { file });
    await t.qmp("block-set-write-threshold", { "node-name": "store", "write-threshold": MiB });
    await t.serve();
    await t.exportNbd("disk");
    await t.io("disk", "write -P 1 0 64k");
    await t.io("disk", "write -P 1 2M 64k");
    await t.event("BLOCK_WRITE_THRESHOLD");
    await t.io("disk", "write -P 1 3M 64k");
    await t.qmp("query-named-block-nodes", { flat: true });
  }),
  script(
    "figures after reads and writes",
    async (t) => {
      await t.image("disk.raw", { format: "raw", size: "4M" });
      await t.openRaw("disk", "disk.raw");
      await t.serve();
      await t.exportNbd("disk");
      await t.io("disk", "write -P 1 0 64k", "write -P 1 2M 64k", "read 0 128k", "flush");
      await t.qmp("query-blockstats", { "query-nodes": true });
    },
    { differences: [TRUE_FIGURES] },
  ),
  script("a bitmap that is exported is busy", async (t) => {
    await t.image("disk.qcow2", { bitmaps: ["b0"] });
    await t.open("disk", "disk.qcow2");
    await t.qmp("block-dirty-bitmap-disable", { node: "disk", name: "b0" });
    await t.serve();
    await t.exportNbd("disk", { bitmaps: ["b0"], writable: false });
    await t.nodes();
    await t.qmp("block-dirty-bitmap-remove", { node: "disk", name: "b0" });
    await t.qmp("block-dirty-bitmap-clear", { node: "disk", name: "b0" });
    await t.qmp("block-export-del", { id: "x-disk" });
    await t.event("BLOCK_EXPORT_DELETED", { id: "x-disk" });
    await t.qmp("block-dirty-bitmap-remove", { node: "disk", name: "b0" });
  }),
  script("nbd-server-add and -remove", async (t) => {
    await disk(t);
    await t.serve();
    await t.qmp("nbd-server-add", { device: "top", name: "disk" });
    await t.qmp("nbd-server-add", { device: "top", name: "disk" });
    await t.qmp("nbd-server-add", { device: "nope" });
    await t.qmp("query-block-exports");
    await t.io("disk", "read -P 1 0 64k");
    await t.qmp("nbd-server-remove", { name: "nope" });
    await t.qmp("nbd-server-remove", { name: "disk" });
    await t.event("BLOCK_EXPORT_DELETED");
  }),
]);
