/** blockdev-backup: what is copied, what bitmaps have afterwards, and what is refused. */

import { UNWRITTEN_AT_THE_END } from "../differences.ts";
import { area, script } from "../script.ts";
import type { Args, Talk } from "../talk.ts";
import { CRAWL, chain, disk, failsSecondWrite, faulty, KiB, ONE_BY_ONE, pair } from "./disks.ts";

export const backup = area("backup", [
  script("a whole disk", async (t) => {
    await pair(t);
    await start(t, { sync: "full", "filter-node-name": "cbw", "auto-finalize": false });
    await t.event("BLOCK_JOB_PENDING");
    await t.nodes();
    await t.qmp("query-block-jobs");
    await t.qmp("job-finalize", { id: "b" });
    await t.job("b", "null");
  }),
  script("a whole chain, with holes and zeroes", async (t) => {
    await sparse(t);
    await start(t, { sync: "full" });
    await t.job("b", "null");
  }),
  script("the top of a chain, into an overlay", async (t) => {
    await sparse(t);
    await start(t, { sync: "top", "auto-finalize": false });
    await t.event("BLOCK_JOB_PENDING");
    await t.qmp("query-jobs");
    await t.qmp("job-finalize", { id: "b" });
    await t.job("b", "null");
  }),
  script("a node below the top", async (t) => {
    await chain(t);
    await t.image("target.qcow2");
    await t.open("target", "target.qcow2");
    await start(t, { device: "mid", sync: "top" });
    await t.job("b", "null");
  }),
  script("to a raw file", async (t) => {
    await disk(t);
    await t.image("target.raw", { format: "raw" });
    await t.openRaw("target", "target.raw");
    await start(t, { sync: "full" });
    await t.job("b", "null");
  }),
  script("of a disk that is no multiple of a cluster", async (t) => {
    const size = `${1025 * KiB}`;
    await t.image("top.qcow2", { size, writes: ["-P 1 0 1025k"] });
    await t.image("target.qcow2", { size });
    await t.open("top", "top.qcow2");
    await t.open("target", "target.qcow2");
    await start(t, { sync: "full" });
    await t.job("b", "null");
  }),
  script("of a disk of nothing", async (t) => {
    await t.image("top.qcow2", { size: "0" });
    await t.image("target.qcow2", { size: "0" });
    await t.open("top", "top.qcow2");
    await t.open("target", "target.qcow2");
    await start(t, { sync: "full" });
    await t.job("b", "null");
  }),
  script("into larger and smaller clusters", async (t) => {
    await t.image("top.qcow2", { writes: ["-P 1 100k 8k", "-P 2 3M 8k"] });
    await t.open("top", "top.qcow2");
    for (const [id, bits] of [
      ["large", 20],
      ["small", 9],
    ] as const) {
      await t.image(`${id}.qcow2`, { options: `cluster_size=${2 ** bits}` });
      await t.open(id, `${id}.qcow2`);
      await start(t, { target: id, "job-id": id, sync: "full" });
      await t.job(id, "null");
    }
  }),
  script("compressed", async (t) => {
    await pair(t);
    await start(t, { sync: "full", compress: true });
    await t.job("b", "null");
  }),
  script("compressed into what cannot be", async (t) => {
    await disk(t);
    await t.image("target.raw", { format: "raw" });
    await t.openRaw("target", "target.raw");
    await start(t, { sync: "full", compress: true });
  }),
  script("two of one disk at once", async (t) => {
    await pair(t);
    await t.image("other.qcow2");
    await t.open("other", "other.qcow2");
    const held = { sync: "full", "auto-finalize": false };
    await start(t, held);
    await t.event("BLOCK_JOB_PENDING", { id: "b" });
    await start(t, { ...held, "job-id": "o", target: "other" });
    await t.event("BLOCK_JOB_PENDING", { id: "o" });
    await t.qmp("query-jobs");
    for (const id of ["b", "o"]) {
      await t.qmp("job-finalize", { id });
      await t.job(id, "null");
    }
  }),
  script("a second into the same target", async (t) => {
    await pair(t);
    await start(t, { sync: "full", "auto-finalize": false });
    await t.event("BLOCK_JOB_PENDING");
    await start(t, { sync: "full", "job-id": "o" });
    await t.qmp("job-cancel", { id: "b" });
    await t.job("b", "null");
  }),
  script("with sync none there is nothing to do but to wait", async (t) => {
    await pair(t);
    await start(t, { sync: "none" });
    await t.job("b", "running");
    await t.qmp("query-block-jobs");
    await t.qmp("job-complete", { id: "b" });
    await t.qmp("job-pause", { id: "b" });
    await t.job("b", "paused");
    await t.qmp("job-resume", { id: "b" });
    await t.job("b", "running");
    await t.qmp("block-job-cancel", { device: "b" });
    await t.job("b", "null");
  }),
  script("what guests write is copied before it is written", async (t) => {
    await pair(t);
    await t.serve();
    await t.exportNbd("top");
    await start(t, { sync: "none" });
    await t.job("b", "running");
    await t.io(
      "top",
      "write -P 7 64k 64k",
      "write -P 7 1M 1k",
      "write -P 8 64k 1k",
      "read -P 7 65k 1k",
    );
    await t.qmp("query-block-jobs");
    await t.io("top", "write -z 2M 100k");
    await t.qmp("query-block-jobs");
    await t.qmp("job-cancel", { id: "b" });
    await t.job("b", "null");
  }),
  script("what guests discard is copied before", async (t) => {
    await t.image("top.qcow2", { writes: ["-P 1 0 4M"] });
    await t.image("target.qcow2");
    await t.open("top", "top.qcow2", { discard: "unmap" });
    await t.open("target", "target.qcow2");
    await t.serve();
    await t.exportNbd("top");
    await start(t, { sync: "none" });
    await t.job("b", "running");
    t.parting("filters of QEMU's jobs swallow discards");
    await t.io("top", "discard 3M 128k");
    await t.qmp("query-block-jobs");
    await t.qmp("job-cancel", { id: "b" });
    await t.job("b", "null");
  }),
  script("guests write while a disk is backed up", async (t) => {
    await pair(t);
    await t.serve();
    await t.exportNbd("top");
    await start(t, { sync: "full", speed: CRAWL, "x-perf": ONE_BY_ONE });
    await t.progress("b", 64 * KiB);
    await t.io(
      "top",
      "write -P 7 0 64k",
      "write -P 8 2M 64k",
      "write -P 9 2M 64k",
      "read -P 9 2M 64k",
    );
    await t.qmp("query-block-jobs");
    await t.qmp("block-job-set-speed", { device: "b", speed: 0 });
    await t.job("b", "null");
    await t.io("top", "write -P 10 1M 64k");
  }),
  script("cancelled half-way", async (t) => {
    await pair(t);
    await start(t, { sync: "full", speed: CRAWL, "x-perf": ONE_BY_ONE });
    await t.progress("b", 64 * KiB);
    await t.qmp("query-block-jobs");
    await t.qmp("block-job-cancel", { device: "b" });
    await t.job("b", "null");
  }),
  ...["never", "on-success", "always"].flatMap((mode) => [
    script(`by a bitmap, ${mode}: success`, async (t) => {
      await dirty(t);
      await start(t, { sync: "bitmap", bitmap: "b0", "bitmap-mode": mode, "auto-finalize": false });
      await t.event("BLOCK_JOB_PENDING");
      await t.nodes();
      await t.qmp("job-finalize", { id: "b" });
      await t.job("b", "null");
      await bitmapOf(t);
    }),
    script(`by a bitmap, ${mode}: cancelled half-way`, async (t) => {
      await dirty(t);
      const by = { sync: "bitmap", bitmap: "b0", "bitmap-mode": mode };
      await start(t, { ...by, speed: CRAWL, "x-perf": ONE_BY_ONE });
      await t.progress("b", 64 * KiB);
      await t.qmp("job-cancel", { id: "b" });
      await t.job("b", "null");
      await bitmapOf(t);
    }),
    script(`by a bitmap, ${mode}: failure half-way`, async (t) => {
      await dirty(t, failsSecondWrite("target.qcow2"));
      const by = { sync: "bitmap", bitmap: "b0", "bitmap-mode": mode };
      await start(t, { ...by, "x-perf": ONE_BY_ONE });
      await t.job("b", "null");
      await bitmapOf(t);
    }),
  ]),
  script("always with a bitmap, cancelled when all is copied", async (t) => {
    await dirty(t);
    const by = { sync: "bitmap", bitmap: "b0", "bitmap-mode": "always" };
    await start(t, { ...by, "auto-finalize": false });
    await t.event("BLOCK_JOB_PENDING");
    await t.qmp("job-cancel", { id: "b" });
    await t.job("b", "null");
    await bitmapOf(t);
  }),
  script("a full backup with a bitmap that tells what is not copied", async (t) => {
    await dirty(t, failsSecondWrite("target.qcow2"));
    const by = { bitmap: "b0", "bitmap-mode": "always" };
    await start(t, { ...by, sync: "full", "x-perf": ONE_BY_ONE });
    await t.job("b", "null");
    await bitmapOf(t);
  }),
  script("a full and a top backup with a bitmap", async (t) => {
    await dirty(t);
    for (const sync of ["full", "top"]) {
      for (const mode of ["on-success", "always"]) {
        await start(t, { sync, bitmap: "b0", "bitmap-mode": mode });
        await t.job("b", "null");
        await bitmapOf(t);
      }
    }
  }),
  script("an incremental backup, and another", async (t) => {
    await dirty(t);
    await start(t, { sync: "incremental", bitmap: "b0" });
    await t.job("b", "null");
    await bitmapOf(t);
    await start(t, { sync: "incremental", bitmap: "b0" });
    await t.job("b", "null");
    await start(t, { sync: "incremental", bitmap: "b0", "bitmap-mode": "on-success" });
    await t.job("b", "null");
  }),
  script("what guests write during an incremental backup is for the next one", async (t) => {
    await dirty(t);
    await t.image("second.qcow2");
    await t.open("second", "second.qcow2");
    await t.serve();
    await t.exportNbd("top");
    const by = { sync: "incremental", bitmap: "b0" };
    await start(t, { ...by, "auto-finalize": false });
    await t.event("BLOCK_JOB_PENDING");
    await t.io("top", "write -P 7 3M 64k", "write -P 8 256k 64k");
    await t.nodes();
    await t.qmp("job-finalize", { id: "b" });
    await t.job("b", "null");
    await bitmapOf(t);
    await start(t, { ...by, target: "second" });
    await t.job("b", "null");
    await bitmapOf(t);
  }),
  script("refuses sync modes and bitmaps that do not fit", async (t) => {
    await dirty(t);
    for (const sync of ["full", "top", "none", "incremental", "bitmap"]) {
      for (const mode of [undefined, "never", "on-success", "always"]) {
        for (const bitmap of [undefined, "nope"]) {
          if (bitmap === undefined && mode === undefined && sync !== "incremental") continue;
          await start(t, {
            sync,
            ...(bitmap !== undefined && { bitmap }),
            ...(mode !== undefined && { "bitmap-mode": mode }),
          });
        }
      }
    }
    await start(t, { sync: "none", bitmap: "b0", "bitmap-mode": "always" });
    await start(t, { sync: "full", bitmap: "b0", "bitmap-mode": "never" });
    await start(t, { sync: "top", bitmap: "b0", "bitmap-mode": "never" });
    await start(t, { sync: "incremental", bitmap: "b0", "bitmap-mode": "always" });
    await start(t, { sync: "incremental", bitmap: "b0", "bitmap-mode": "never" });
    await start(t, { sync: "bitmap", bitmap: "b0" });
    await bitmapOf(t);
  }),
  script("refuses disks that do not fit", async (t) => {
    await pair(t);
    for (const size of ["2M", "8M"]) {
      await t.image(`${size}.qcow2`, { size });
      await t.open(`size${size}`, `${size}.qcow2`);
      await start(t, { target: `size${size}`, sync: "full" });
    }
    await start(t, { target: "top", sync: "full" });
    await start(t, { target: "nope", sync: "full" });
    await start(t, { device: "nope", sync: "full" });
    await start(t, { sync: "nonsense" });
    await start(t, { "job-id": "-", sync: "full" });
    await t.qmp("blockdev-backup", { device: "top", target: "target", sync: "full" });
    await t.qmp("blockdev-backup", { device: "top", "job-id": "b", sync: "full" });
    await t.qmp("query-jobs");
    await t.nodes();
  }),
  script("refuses settings that do not fit", async (t) => {
    await pair(t);
    for (const perf of [
      { "max-workers": 0 },
      { "max-workers": -1 },
      { "max-chunk": -1 },
      { "max-chunk": 4096 },
      { "max-workers": "many" },
      { nonsense: 1 },
    ]) {
      await start(t, { sync: "full", "x-perf": perf });
    }
    await start(t, { sync: "full", speed: -1 });
    await start(t, { sync: "full", "on-source-error": "nonsense" });
    await start(t, { sync: "full", "filter-node-name": "target" });
    await start(t, { sync: "full", "filter-node-name": "no good name" });
    await start(t, { sync: "full", nonsense: 1 });
    await t.qmp("query-jobs");
    await t.nodes();
  }),
  script("into a target that cannot be written", async (t) => {
    await disk(t);
    await t.image("target.qcow2");
    const file = { driver: "file", filename: "target.qcow2", "read-only": true };
    await t.open("target", "target.qcow2", { file, "read-only": true });
    await start(t, { sync: "full" });
  }),
  script("nodes that a backup holds", async (t) => {
    await pair(t);
    await start(t, { sync: "full", "filter-node-name": "cbw", "auto-finalize": false });
    await t.event("BLOCK_JOB_PENDING");
    for (const name of ["top", "target", "cbw"]) {
      await t.qmp("blockdev-del", { "node-name": name });
      await t.qmp("block_resize", { "node-name": name, size: 8 * 1024 * KiB });
    }
    await t.qmp("job-cancel", { id: "b" });
    await t.job("b", "null");
    await t.qmp("blockdev-del", { "node-name": "target" });
  }),
  ...(["source", "target"] as const).flatMap((side) =>
    ["report", "stop", "enospc"].flatMap((policy) =>
      [5, 28].map((errno) =>
        script(`error number ${errno} of the ${side} with the policy ${policy}`, async (t) => {
          await failing(t, side, errno);
          const by = { sync: "full", "x-perf": ONE_BY_ONE, "auto-dismiss": false };
          await start(t, { ...by, [`on-${side}-error`]: policy });
          if (policy === "stop" || (policy === "enospc" && errno === 28)) {
            await t.event("BLOCK_JOB_ERROR");
            await t.job("b", "paused");
            await t.qmp("query-block-jobs");
            await t.qmp("job-resume", { id: "b" });
          }
          await t.job("b", "concluded");
          await t.qmp("query-jobs");
          await t.qmp("job-dismiss", { id: "b" });
        }),
      ),
    ),
  ),
  script("a job that an error stopped is cancelled", async (t) => {
    await t.image("top.qcow2", { size: "512k", writes: ["-P 1 0 512k"] });
    await t.image("target.qcow2", { size: "512k" });
    await t.open("top", "top.qcow2", { file: faulty("top.qcow2", { event: "read_aio" }) });
    await t.open("target", "target.qcow2");
    await start(t, { sync: "full", "x-perf": ONE_BY_ONE, "on-source-error": "stop" });
    await t.event("BLOCK_JOB_ERROR");
    await t.job("b", "paused");
    await t.qmp("block-job-cancel", { device: "b" });
    await t.qmp("block-job-cancel", { device: "b", force: true });
    await t.job("b", "null");
  }),
  script(
    "what was copied can no longer be kept at the end",
    async (t) => {
      await failing(t, "target", 5, false);
      await start(t, { sync: "full" });
      await t.job("b", "null");
    },
    { differences: [UNWRITTEN_AT_THE_END] },
  ),
  script("a write whose copy fails: the filter fails the write", async (t) => {
    await cbwFault(t, "break-guest-write");
  }),
  script("a write whose copy fails: the filter lets the write go", async (t) => {
    await cbwFault(t, "break-snapshot");
  }),
]);

/** Job 'b' from 'top' to 'target', unless said. */
async function start(t: Talk, args: Args): Promise<void> {
  const usual = { device: "top", target: "target", "job-id": "b" };
  await t.qmp("blockdev-backup", { ...usual, ...args });
}

/** A disk with an overlay, in each data, zeroes and nothing; and the overlay's empty twin, 'target'. */
async function sparse(t: Talk): Promise<void> {
  await t.image("base.qcow2", { writes: ["-P 1 0 1M", "-P 1 2M 512k"] });
  await t.image("top.qcow2", {
    backing: "base.qcow2",
    writes: ["-P 2 512k 64k", "-z 2M 256k", "-P 3 3M 8k"],
  });
  await t.image("target.qcow2", { backing: "base.qcow2" });
  await t.open("base", "base.qcow2", { "read-only": true, backing: null });
  await t.open("top", "top.qcow2", { backing: "base" });
  await t.open("target", "target.qcow2", { backing: "base" });
}

/** Disk 'top', and its bitmap 'b0' with 256 KiB of writes; and 'target', with a fault. */
async function dirty(t: Talk, file?: Args): Promise<void> {
  await t.image("fill.qcow2", { writes: ["-P 5 256k 128k", "-P 6 2M 128k"] });
  await t.image("top.qcow2", { writes: ["-P 1 0 1M"] });
  await t.image("target.qcow2");
  await t.open("fill", "fill.qcow2", { "read-only": true });
  await t.open("top", "top.qcow2");
  await t.qmp("block-dirty-bitmap-add", { node: "top", name: "b0" });
  await start(t, { device: "fill", target: "top", sync: "top" });
  await t.job("b", "null");
  await t.open("target", "target.qcow2", file && { file });
}

async function bitmapOf(t: Talk): Promise<void> {
  await t.nodes();
  await t.qmp("x-debug-block-dirty-bitmap-sha256", { node: "top", name: "b0" });
}

/** A disk of 512 KiB and a target; the first request to one of them fails, or all do. */
async function failing(t: Talk, side: "source" | "target", errno: number, once = true) {
  await t.image("top.qcow2", { size: "512k", writes: ["-P 1 0 512k"] });
  await t.image("target.qcow2", { size: "512k" });
  const fault = (event: string) => ({ event, errno, once });
  const source = side === "source" ? { file: faulty("top.qcow2", fault("read_aio")) } : {};
  const target = side === "target" ? { file: faulty("target.qcow2", fault("write_aio")) } : {};
  await t.open("top", "top.qcow2", source);
  await t.open("target", "target.qcow2", target);
}

/** A guest writes above a copy-before-write filter whose target fails; then the snapshot is read. */
async function cbwFault(t: Talk, policy: string): Promise<void> {
  await disk(t);
  await t.image("snapshot.qcow2");
  const fault = { event: "write_aio", once: true };
  await t.open("snapshot", "snapshot.qcow2", { file: faulty("snapshot.qcow2", fault) });
  await t.qmp("blockdev-add", {
    driver: "copy-before-write",
    "node-name": "cbw",
    file: "top",
    target: "snapshot",
    "on-cbw-error": policy,
  });
  const access = { driver: "snapshot-access", "node-name": "access", file: "cbw" };
  await t.qmp("blockdev-add", access);
  await t.serve();
  await t.exportNbd("cbw");
  await t.exportNbd("access", { writable: false });
  await t.io("cbw", "write -P 7 64k 64k", "read -P 1 64k 64k", "read -P 7 64k 64k");
  await t.io("access", "read -P 1 64k 64k", "read -P 1 1M 64k");
  await t.io("cbw", "write -P 8 64k 64k", "write -P 8 2M 1k");
  await t.io("access", "read -P 1 64k 64k", "read -P 1 2M 64k");
}
