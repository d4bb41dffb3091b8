/** blockdev-mirror: copies that follow their disk, and what becomes of them. */

import { MOMENTARY_PAUSES } from "../differences.ts";
import { area, script } from "../script.ts";
import type { Args, Talk } from "../talk.ts";
import { CRAWL, chain, disk, failsSecondWrite, faulty, KiB, pair } from "./disks.ts";

export const mirror = area("mirror", [
  script("a whole disk, and over to it", async (t) => {
    await pair(t);
    await start(t, { sync: "full" });
    await t.event("BLOCK_JOB_READY");
    await t.qmp("query-jobs");
    await t.qmp("query-block-jobs");
    await t.nodes();
    await t.qmp("job-complete", { id: "m" });
    await t.job("m", "null");
    await t.qmp("blockdev-del", { "node-name": "top" });
  }),
  script("guests follow over to the target", async (t) => {
    await pair(t);
    await guest(t);
    await start(t, { sync: "full" });
    await t.event("BLOCK_JOB_READY");
    await t.qmp("job-complete", { id: "m" });
    await t.job("m", "null");
    await t.qmp("query-block-exports");
    await t.io("top", "read -P 1 0 64k", "write -P 7 0 64k");
    await t.qmp("blockdev-del", { "node-name": "top" });
  }),
  script("a whole chain into an image of its own", async (t) => {
    await chain(t);
    await t.image("target.qcow2");
    await t.open("target", "target.qcow2", { backing: null });
    await start(t, { sync: "full" });
    await t.event("BLOCK_JOB_READY");
    await t.qmp("job-complete", { id: "m" });
    await t.job("m", "null");
  }),
  script("the top of a chain into an overlay", async (t) => {
    await chain(t);
    await t.image("target.qcow2", { backing: "mid.qcow2" });
    await t.open("target", "target.qcow2", { backing: "mid" });
    await start(t, { sync: "top" });
    await t.event("BLOCK_JOB_READY");
    await t.qmp("query-jobs");
    await t.qmp("job-complete", { id: "m" });
    await t.job("m", "null");
  }),
  script("with sync none only what is new is copied", async (t) => {
    await chain(t);
    await t.image("target.qcow2", { backing: "top.qcow2" });
    await t.open("target", "target.qcow2", { backing: null });
    await guest(t);
    await start(t, { sync: "none" });
    await t.event("BLOCK_JOB_READY");
    await t.io("top", "write -P 7 1M 64k", "write -z 3M 64k");
    await t.qmp("block-job-cancel", { device: "m" });
    await t.job("m", "null");
  }),
  script("a disk with holes and zeroes into one that is full", async (t) => {
    await t.image("top.qcow2", { writes: ["-P 1 0 64k", "-z 1M 512k", "-P 2 3M 100k"] });
    await t.image("target.qcow2", { writes: ["-P 9 0 4M"] });
    await t.open("top", "top.qcow2");
    await t.open("target", "target.qcow2");
    await start(t, { sync: "full" });
    await t.event("BLOCK_JOB_READY");
    await t.qmp("job-complete", { id: "m" });
    await t.job("m", "null");
  }),
  script("a disk of nothing", async (t) => {
    await t.image("top.qcow2", { size: "0" });
    await t.image("target.qcow2", { size: "0" });
    await t.open("top", "top.qcow2");
    await t.open("target", "target.qcow2");
    await start(t, { sync: "full" });
    await t.event("BLOCK_JOB_READY");
    await t.qmp("query-jobs");
    await t.qmp("job-complete", { id: "m" });
    await t.job("m", "null");
  }),
  script("a disk that is no multiple of anything, to a raw file", async (t) => {
    const size = `${1024 * 1025}`;
    await t.image("top.qcow2", { size, writes: ["-P 1 0 1025k"] });
    await t.image("target.raw", { format: "raw", size });
    await t.open("top", "top.qcow2");
    await t.openRaw("target", "target.raw");
    await start(t, { sync: "full" });
    await t.event("BLOCK_JOB_READY");
    await t.qmp("block-job-complete", { device: "m" });
    await t.job("m", "null");
  }),
  script("small buffers, large clusters, small granules", async (t) => {
    await t.image("top.qcow2", { writes: ["-P 1 0 4M", "-P 2 100k 300k"] });
    await t.image("target.qcow2", { options: "cluster_size=1M" });
    await t.open("top", "top.qcow2");
    await t.open("target", "target.qcow2");
    await start(t, { sync: "full", granularity: 8192, "buf-size": 4096 });
    await t.event("BLOCK_JOB_READY");
    await t.qmp("job-complete", { id: "m" });
    await t.job("m", "null");
  }),
  script(
    "a target that has nothing needs no zeroes",
    async (t) => {
      await t.image("top.qcow2", { writes: ["-P 1 100k 300k", "-P 2 2M 1M"] });
      await t.image("target.qcow2");
      await t.open("top", "top.qcow2");
      await t.open("target", "target.qcow2");
      await start(t, { sync: "full" });
      await t.event("BLOCK_JOB_READY");
      await t.qmp("job-complete", { id: "m" });
      await t.job("m", "null");
    },
    { since: { version: "10.1.0", what: "a look at whether the target reads as zeroes" } },
  ),
  script("disks of different sizes", async (t) => {
    await disk(t);
    for (const size of ["2M", "8M"]) {
      await t.image(`${size}.qcow2`, { size });
      await t.open(`size${size}`, `${size}.qcow2`);
      await start(t, { sync: "full", target: `size${size}` });
      await t.job("m", "null");
    }
  }),
  script("cancelled when it is ready, softly", async (t) => {
    await pair(t);
    await guest(t);
    await start(t, { sync: "full" });
    await t.event("BLOCK_JOB_READY");
    await t.io("top", "write -P 7 1M 128k");
    await t.qmp("block-job-cancel", { device: "m", force: false });
    await t.job("m", "null");
    await t.io("top", "write -P 8 1M 128k");
  }),
  script("cancelled when it is ready, by force", async (t) => {
    await pair(t);
    await start(t, { sync: "full", "filter-node-name": "filter" });
    await t.event("BLOCK_JOB_READY");
    await t.nodes();
    await t.qmp("block-job-cancel", { device: "m", force: true });
    await t.job("m", "null");
  }),
  script("cancelled when it is ready, with job-cancel", async (t) => {
    await pair(t);
    await start(t, { sync: "full", "auto-dismiss": false });
    await t.event("BLOCK_JOB_READY");
    await t.qmp("job-cancel", { id: "m" });
    await t.job("m", "concluded");
    await t.qmp("query-jobs");
    await t.qmp("job-dismiss", { id: "m" });
  }),
  script("cancelled softly, and finalized by hand", async (t) => {
    await pair(t);
    await start(t, { sync: "full", "auto-finalize": false });
    await t.event("BLOCK_JOB_READY");
    await t.qmp("block-job-cancel", { device: "m" });
    await t.event("BLOCK_JOB_PENDING");
    await t.qmp("query-block-jobs");
    await t.qmp("job-finalize", { id: "m" });
    await t.job("m", "null");
  }),
  script("completed, and cancelled softly while it is pending", async (t) => {
    await pair(t);
    await start(t, { sync: "full", "auto-finalize": false });
    await t.event("BLOCK_JOB_READY");
    await t.qmp("job-complete", { id: "m" });
    await t.event("BLOCK_JOB_PENDING");
    await t.qmp("job-complete", { id: "m" });
    await t.qmp("block-job-cancel", { device: "m" });
    await t.job("m", "null");
    await t.nodes();
  }),
  script("verbs before it is ready, and in standby", async (t) => {
    await pair(t);
    await slow(t);
    await t.qmp("job-complete", { id: "m" });
    await t.qmp("job-finalize", { id: "m" });
    await t.qmp("job-dismiss", { id: "m" });
    await t.qmp("block-job-set-speed", { device: "m", speed: 0 });
    await t.event("BLOCK_JOB_READY");
    await t.qmp("job-pause", { id: "m" });
    await t.job("m", "standby");
    await t.qmp("query-block-jobs");
    await t.qmp("block-job-cancel", { device: "m" });
    await t.qmp("job-pause", { id: "m" });
    await t.qmp("job-complete", { id: "m" });
    await t.qmp("job-resume", { id: "m" });
    await t.job("m", "null");
  }),
  script("cancelled before it is ready", async (t) => {
    await pair(t);
    await slow(t);
    await t.qmp("block-job-cancel", { device: "m" });
    await t.job("m", "null");
  }),
  script("guests write while it is ready", async (t) => {
    await pair(t);
    await guest(t);
    await start(t, { sync: "full" });
    await t.event("BLOCK_JOB_READY");
    await t.io(
      "top",
      "write -P 7 0 64k",
      "write -P 8 1M 192k",
      "write -z 2M 64k",
      "read -P 8 1M 4k",
    );
    await t.qmp("job-complete", { id: "m" });
    await t.job("m", "null");
    await t.io("top", "read -P 7 0 64k", "read -P 8 1M 192k", "read -P 0 2M 64k");
  }),
  script("guests write to both disks in copy mode write-blocking", async (t) => {
    await pair(t);
    await guest(t);
    await start(t, { sync: "full", "copy-mode": "write-blocking" });
    await t.event("BLOCK_JOB_READY");
    await t.io("top", "write -P 7 0 64k", "write -P 8 1M 1k", "write -z 2M 64k", "flush");
    await t.qmp("query-block-jobs");
    await t.qmp("block-job-cancel", { device: "m" });
    await t.job("m", "null");
  }),
  script(
    "the copy mode is changed",
    async (t) => {
      await pair(t);
      await guest(t);
      await start(t, { sync: "full" });
      await t.event("BLOCK_JOB_READY");
      const change = (mode: string, more: Args = {}) =>
        t.qmp("block-job-change", { id: "m", type: "mirror", "copy-mode": mode, ...more });
      await change("background");
      await change("write-blocking");
      await change("write-blocking");
      await change("background");
      await change("nonsense");
      await change("write-blocking", { id: "nope" });
      await t.qmp("block-job-change", { id: "m", type: "mirror" });
      await t.qmp("block-job-change", { id: "m", "copy-mode": "write-blocking" });
      await t.io("top", "write -P 7 0 64k", "flush");
      await t.synced("m");
      await t.qmp("query-block-jobs");
      await t.qmp("job-complete", { id: "m" });
      await t.job("m", "null");
    },
    { since: { version: "8.2.0", what: "block-job-change" } },
  ),
  script(
    "the copy mode of a job that has none",
    async (t) => {
      await pair(t);
      const to = { device: "top", target: "target", sync: "full", "job-id": "b" };
      await t.qmp("blockdev-backup", { ...to, "auto-finalize": false });
      await t.event("BLOCK_JOB_PENDING");
      await t.qmp("block-job-change", { id: "b", type: "mirror", "copy-mode": "write-blocking" });
      await t.qmp("job-cancel", { id: "b" });
      await t.job("b", "null");
    },
    { since: { version: "8.2.0", what: "block-job-change" } },
  ),
  script("refuses settings that do not fit", async (t) => {
    await pair(t);
    for (const more of [
      { granularity: 100 },
      { granularity: 256 },
      { granularity: 3000 },
      { granularity: 128 * 1024 * KiB },
      { granularity: -512 },
      { "buf-size": -1 },
      { speed: -1 },
      { "copy-mode": "nonsense" },
      { sync: "incremental" },
      { sync: "bitmap" },
      { sync: "nonsense" },
      { "on-target-error": "nonsense" },
      { "job-id": "1" },
      { "filter-node-name": "target" },
      { nonsense: 1 },
    ]) {
      await start(t, { sync: "full", ...more });
    }
    await t.qmp("blockdev-mirror", { device: "top", target: "target", sync: "full" });
    await t.qmp("query-jobs");
    await t.nodes();
  }),
  script("refuses disks that do not fit", async (t) => {
    await chain(t);
    await t.image("target.qcow2");
    await t.open("target", "target.qcow2");
    await start(t, { sync: "full", target: "top" });
    await start(t, { sync: "full", target: "mid" });
    await start(t, { sync: "full", target: "base" });
    await start(t, { sync: "full", target: "nope" });
    await start(t, { sync: "full", device: "nope" });
    await start(t, { sync: "full", device: "mid" });
    await t.qmp("query-jobs");
    await t.nodes();
  }),
  script("into a target that cannot be written", async (t) => {
    await disk(t);
    await t.image("target.qcow2");
    await t.open("target", "target.qcow2", { "read-only": true });
    await start(t, { sync: "full" });
    await t.nodes();
  }),
  script(
    "into a target that guests write",
    async (t) => {
      await pair(t);
      await t.serve();
      await t.exportNbd("target");
      await start(t, { sync: "full" });
      await t.qmp("block-export-del", { id: "x-target" });
      await t.event("BLOCK_EXPORT_DELETED");
      await start(t, { sync: "full" });
      await t.event("BLOCK_JOB_READY");
      await t.exportNbd("target");
      await t.qmp("job-cancel", { id: "m" });
      await t.job("m", "null");
    },
    { differences: [{ ...MOMENTARY_PAUSES, from: "10.0.0" }] },
  ),
  script("what stands above can be replaced", async (t) => {
    await disk(t);
    await t.image("target.qcow2");
    await t.open("target", "target.qcow2");
    await t.qmp("blockdev-add", { driver: "copy-on-read", "node-name": "cor", file: "top" });
    await t.serve();
    await t.exportNbd("cor");
    await start(t, { sync: "full", device: "cor", replaces: "top" });
    await t.event("BLOCK_JOB_READY");
    await t.qmp("job-complete", { id: "m" });
    await t.job("m", "null");
    await t.nodes();
    await t.io("cor", "read -P 1 0 64k", "write -P 7 0 64k");
  }),
  script("what cannot be replaced", async (t) => {
    await pair(t);
    await t.image("other.qcow2", { size: "8M" });
    await t.open("other", "other.qcow2");
    await t.image("third.qcow2");
    await t.open("third", "third.qcow2");
    await start(t, { sync: "full", replaces: "nope" });
    await start(t, { sync: "full", replaces: "other" });
    await start(t, { sync: "full", replaces: "third" });
    await start(t, { sync: "full", replaces: "target" });
    await t.qmp("query-jobs");
    await t.nodes();
  }),
  script("a job that cannot go over at its end", async (t) => {
    await pair(t);
    await start(t, { sync: "full", "auto-finalize": false });
    await t.event("BLOCK_JOB_READY");
    await t.qmp("job-complete", { id: "m" });
    await t.event("BLOCK_JOB_PENDING");
    await t.qmp("block_resize", { "node-name": "target", size: 8 * 1024 * KiB });
    await t.qmp("block_resize", { "node-name": "top", size: 8 * 1024 * KiB });
    await t.qmp("blockdev-del", { "node-name": "target" });
    await t.qmp("job-finalize", { id: "m" });
    await t.job("m", "null");
  }),
  ...(["source", "target"] as const).flatMap((side) =>
    (
      [
        ["report", 5],
        ["ignore", 5],
        ["stop", 5],
        ["stop", 28],
        ["enospc", 28],
        ["enospc", 5],
      ] as const
    ).map(([policy, errno]) =>
      script(`error number ${errno} of the ${side} with the policy ${policy}`, async (t) => {
        await failing(t, side, errno);
        await start(t, { sync: "full", "auto-dismiss": false, [`on-${side}-error`]: policy });
        if (policy === "stop" || (policy === "enospc" && errno === 28)) {
          await t.event("BLOCK_JOB_ERROR");
          await t.job("m", "paused");
          await t.qmp("query-block-jobs");
          await t.qmp("job-resume", { id: "m" });
        }
        if (policy === "ignore" || policy === "stop" || errno === 28) {
          await t.event("BLOCK_JOB_READY");
          await t.qmp("job-complete", { id: "m" });
        }
        await t.job("m", "concluded");
        await t.qmp("query-jobs");
        await t.qmp("job-dismiss", { id: "m" });
      }),
    ),
  ),
  script("an error after it was ready leaves it ready", async (t) => {
    await t.image("top.qcow2", { size: "64k", writes: ["-P 1 0 64k"] });
    await t.image("target.qcow2", { size: "64k" });
    await t.open("top", "top.qcow2");
    await t.open("target", "target.qcow2", { file: failsSecondWrite("target.qcow2") });
    await guest(t);
    await start(t, { sync: "full", "on-target-error": "stop" });
    await t.event("BLOCK_JOB_READY");
    await t.io("top", "write -P 7 0 64k");
    await t.event("BLOCK_JOB_ERROR");
    await t.job("m", "standby");
    await t.qmp("query-block-jobs");
    await t.qmp("job-complete", { id: "m" });
    await t.qmp("job-resume", { id: "m" });
    await t.job("m", "null");
  }),
  script(
    "nodes that a mirror holds",
    async (t) => {
      await pair(t);
      await start(t, { sync: "full", "filter-node-name": "filter" });
      await t.event("BLOCK_JOB_READY");
      await t.image("overlay.qcow2");
      await t.open("overlay", "overlay.qcow2", { backing: null });
      for (const name of ["top", "target", "filter"]) {
        await t.qmp("blockdev-del", { "node-name": name });
        await t.qmp("block_resize", { "node-name": name, size: 8 * 1024 * KiB });
        await t.qmp("blockdev-snapshot", { node: name, overlay: "overlay" });
        await t.qmp("block-stream", { device: name, "job-id": "s" });
        await start(t, { sync: "full", device: name, target: "overlay", "job-id": "n" });
      }
      await t.qmp("job-cancel", { id: "m" });
      await t.job("m", "null");
    },
    { differences: [MOMENTARY_PAUSES] },
  ),
  script("two of one disk, one into the other", async (t) => {
    await pair(t);
    await t.image("other.qcow2");
    await t.open("other", "other.qcow2");
    await start(t, { sync: "full" });
    await t.event("BLOCK_JOB_READY");
    await start(t, { sync: "full", "job-id": "n", target: "other" });
    await start(t, { sync: "full", "job-id": "n", device: "target", target: "other" });
    await start(t, { sync: "full", "job-id": "n", device: "other", target: "target" });
    await t.qmp("job-cancel", { id: "m" });
    await t.job("m", "null");
  }),
]);

/** Job 'm' from 'top' to 'target', unless said. */
async function start(t: Talk, args: Args): Promise<void> {
  const usual = { device: "top", target: "target", "job-id": "m" };
  await t.qmp("blockdev-mirror", { ...usual, ...args });
}

/** One that has copied its first request, and then waits for longer than any script lasts. */
async function slow(t: Talk): Promise<void> {
  await start(t, { sync: "full", speed: CRAWL, "buf-size": 64 * KiB });
  await t.progress("m", 64 * KiB);
}

/** Disk 'top' for guests. */
async function guest(t: Talk): Promise<void> {
  await t.serve();
  await t.exportNbd("top");
}

/** A disk of 64 KiB and a target; the first request to one of them fails. */
async function failing(t: Talk, side: "source" | "target", errno: number): Promise<void> {
  await t.image("top.qcow2", { size: "64k", writes: ["-P 1 0 64k"] });
  await t.image("target.qcow2", { size: "64k" });
  const fault = (event: string) => ({ event, errno, once: true });
  const source = side === "source" ? { file: faulty("top.qcow2", fault("read_aio")) } : {};
  const target = side === "target" ? { file: faulty("target.qcow2", fault("write_aio")) } : {};
  await t.open("top", "top.qcow2", source);
  await t.open("target", "target.qcow2", target);
}
