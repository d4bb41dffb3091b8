/** block-stream. */

import { MOMENTARY_PAUSES, readOnlyAgain, zeroesAreSkipped } from "../differences.ts";
import { DRAINED_SPEED } from "../newer.ts";
import { area, script } from "../script.ts";
import type { Args, Talk } from "../talk.ts";
import { CHUNK, CRAWL, chain, disk, faulty } from "./disks.ts";

export const stream = area("stream", [
  script("a whole chain", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s" });
    await t.job("s", "null");
    await t.qmp("blockdev-del", { "node-name": "mid" });
  }),
  script("to a base", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s", "base-node": "base" });
    await t.job("s", "null");
  }),
  script("to a base that is named by its file", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s", base: "base.qcow2" });
    await t.job("s", "null");
  }),
  script("down to a bottom", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s", bottom: "mid" });
    await t.job("s", "null");
  }),
  script(
    "into a node in the middle",
    async (t) => {
      await chain(t);
      await t.qmp("block-stream", { device: "mid", "job-id": "s" });
      await t.job("s", "null");
    },
    { differences: [readOnlyAgain("mid.qcow2")] },
  ),
  script("with nothing between top and base", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s", "base-node": "mid" });
    await t.job("s", "null");
  }),
  script("of a disk without a backing file", async (t) => {
    await disk(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s" });
    await t.job("s", "null");
  }),
  script("from a backing file that is shorter", async (t) => {
    await t.image("base.qcow2", { size: "1M", writes: ["-P 1 512k 512k"] });
    await t.image("top.qcow2", { backing: "base.qcow2", size: "4M", writes: ["-P 2 768k 512k"] });
    await t.open("base", "base.qcow2", { "read-only": true });
    await t.open("top", "top.qcow2", { backing: "base" });
    await t.qmp("block-stream", { device: "top", "job-id": "s" });
    await t.job("s", "null");
  }),
  script(
    "from a raw backing file, into clusters of 4 KiB",
    async (t) => {
      await t.image("base.raw", { format: "raw", size: "2M", writes: ["-P 1 100k 300k"] });
      const options = "cluster_size=4k";
      await t.image("top.qcow2", {
        backing: "base.raw",
        backingFormat: "raw",
        options,
        size: "2M",
      });
      await t.openRaw("base", "base.raw", { "read-only": true });
      await t.open("top", "top.qcow2", { backing: "base" });
      await t.qmp("block-stream", { device: "top", "job-id": "s" });
      await t.job("s", "null");
    },
    { differences: [zeroesAreSkipped("top.qcow2")] },
  ),
  script("the name of the new backing file is the one that was asked for", async (t) => {
    await chain(t);
    const args = { "base-node": "base", "backing-file": "./base.qcow2" };
    await t.qmp("block-stream", { device: "top", "job-id": "s", ...args });
    await t.job("s", "null");
  }),
  script("a name for a backing file that will not be there", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s", "backing-file": "base.qcow2" });
  }),
  script("a stream that is cancelled keeps what it had copied", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s", speed: CRAWL });
    await t.progress("s", CHUNK);
    await t.qmp("query-jobs");
    await t.qmp("query-block-jobs");
    await t.qmp("job-cancel", { id: "s" });
    await t.job("s", "null");
  }),
  script("a stream that is started again finishes the work", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s", speed: CRAWL });
    await t.progress("s", CHUNK);
    await t.qmp("block-job-cancel", { device: "s" });
    await t.job("s", "null");
    await t.qmp("block-stream", { device: "top", "job-id": "s" });
    await t.job("s", "null");
  }),
  script("refuses bases that do not fit", async (t) => {
    await chain(t);
    await t.image("other.qcow2");
    await t.open("other", "other.qcow2");
    const ask = (more: object) => t.qmp("block-stream", { device: "top", "job-id": "s", ...more });
    await ask({ base: "base.qcow2", "base-node": "base" });
    await ask({ base: "base.qcow2", bottom: "mid" });
    await ask({ "base-node": "base", bottom: "mid" });
    await ask({ "base-node": "nope" });
    await ask({ base: "nope.qcow2" });
    await ask({ bottom: "nope" });
    await ask({ "base-node": "other" });
    await ask({ bottom: "other" });
    await ask({ "base-node": "top" });
  }),
  script("refuses devices and speeds that do not fit", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "nope", "job-id": "s" });
    await t.qmp("block-stream", { device: "top" });
    await t.qmp("block-stream", { device: "top", "job-id": "s", speed: -1 });
    await t.qmp("query-jobs");
    await t.qmp("block-stream", { device: "top", "job-id": "s", "on-error": "nonsense" });
    await t.qmp("block-stream", { "job-id": "s" });
  }),
  script("into an image that cannot be written", async (t) => {
    await t.image("base.qcow2", { writes: ["-P 1 0 1M"] });
    await t.image("top.qcow2", { backing: "base.qcow2" });
    const file = { driver: "file", filename: "top.qcow2", "read-only": true };
    await t.open("base", "base.qcow2", { "read-only": true });
    await t.open("top", "top.qcow2", { file, "read-only": true, backing: "base" });
    await t.qmp("block-stream", { device: "top", "job-id": "s" });
  }),
  script(
    "a second job on what a stream works on",
    async (t) => {
      await chain(t);
      await t.image("target.qcow2");
      await t.open("target", "target.qcow2");
      await t.qmp("block-stream", { device: "top", "job-id": "s", speed: CRAWL });
      await t.progress("s", CHUNK);
      await t.qmp("block-stream", { device: "top", "job-id": "s2" });
      await t.qmp("block-stream", { device: "mid", "job-id": "s2" });
      await t.qmp("block-commit", { device: "top", "job-id": "c" });
      await t.qmp("block-commit", { device: "mid", "job-id": "c" });
      const to = { device: "top", target: "target", sync: "full" };
      await t.qmp("blockdev-mirror", { ...to, "job-id": "m" });
      await t.qmp("blockdev-backup", { ...to, "job-id": "b" });
      await t.qmp("block_resize", { "node-name": "top", size: 8388608 });
      await t.qmp("blockdev-del", { "node-name": "top" });
      await t.qmp("blockdev-del", { "node-name": "mid" });
      await t.qmp("blockdev-snapshot", { node: "top", overlay: "target" });
      await t.qmp("job-cancel", { id: "s" });
      await t.job("s", "null");
    },
    {
      since: DRAINED_SPEED,
      differences: [MOMENTARY_PAUSES],
    },
  ),
  script(
    "two streams in two parts of a chain",
    async (t) => {
      await t.image("a.qcow2", { writes: ["-P 1 0 1M"] });
      await t.image("b.qcow2", { backing: "a.qcow2", writes: ["-P 2 1M 1M"] });
      await t.image("c.qcow2", { backing: "b.qcow2", writes: ["-P 3 2M 1M"] });
      await t.image("d.qcow2", { backing: "c.qcow2", writes: ["-P 4 3M 1M"] });
      await t.open("a", "a.qcow2", { "read-only": true });
      await t.open("b", "b.qcow2", { "read-only": true, backing: "a" });
      await t.open("c", "c.qcow2", { "read-only": true, backing: "b" });
      await t.open("d", "d.qcow2", { backing: "c" });
      const held = { "auto-finalize": false };
      await t.qmp("block-stream", { device: "d", "job-id": "s1", "base-node": "b", ...held });
      await t.event("BLOCK_JOB_PENDING", { id: "s1" });
      await t.qmp("block-stream", { device: "b", "job-id": "s2", ...held });
      await t.event("BLOCK_JOB_PENDING", { id: "s2" });
      await t.qmp("query-jobs");
      await t.qmp("job-finalize", { id: "s2" });
      await t.job("s2", "null");
      await t.qmp("job-finalize", { id: "s1" });
      await t.job("s1", "null");
    },
    { differences: [readOnlyAgain("b.qcow2")] },
  ),
  script("a filter with a name of its own", async (t) => {
    await chain(t);
    const args = { "filter-node-name": "cor", speed: CRAWL };
    await t.qmp("block-stream", { device: "top", "job-id": "s", ...args });
    await t.progress("s", CHUNK);
    await t.nodes();
    await t.qmp("block-stream", { device: "cor", "job-id": "s2" });
    await t.qmp("blockdev-del", { "node-name": "cor" });
    await t.qmp("block-job-set-speed", { device: "s", speed: 0 });
    await t.job("s", "null");
  }),
  script("a filter's name that is taken", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s", "filter-node-name": "base" });
  }),
  script("the chain below is frozen while it runs", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s", speed: CRAWL });
    await t.progress("s", CHUNK);
    const image = { "image-node-name": "mid", "backing-file": "x" };
    await t.qmp("change-backing-file", { device: "top", ...image });
    await t.qmp("job-cancel", { id: "s" });
    await t.job("s", "null");
  }),
  ...["report", "ignore"].map((policy) =>
    script(`read errors with the policy ${policy}`, async (t) => {
      await failing(t, { event: "read_aio" });
      const args = { "on-error": policy, "auto-dismiss": false };
      await t.qmp("block-stream", { device: "top", "job-id": "s", ...args });
      await t.job("s", "concluded");
      await t.qmp("query-jobs");
      await t.qmp("query-block-jobs");
      await t.qmp("job-dismiss", { id: "s" });
      await t.job("s", "null");
    }),
  ),
  ...(
    [
      ["stop", 5],
      ["stop", 28],
      ["enospc", 28],
      ["auto", 28],
      ["enospc", 5],
      ["auto", 5],
    ] as const
  ).map(([policy, errno]) =>
    script(`error number ${errno} with the policy ${policy}`, async (t) => {
      await failing(t, { event: "read_aio", once: true, errno });
      await t.qmp("block-stream", { device: "top", "job-id": "s", "on-error": policy });
      if (policy === "stop" || errno === 28) {
        await t.job("s", "paused");
        await t.qmp("query-block-jobs");
        await t.qmp("job-resume", { id: "s" });
      }
      await t.job("s", "null");
    }),
  ),
]);

/** A chain of which one chunk is to be copied, and cannot be read as it should. */
async function failing(t: Talk, fault: Args): Promise<void> {
  await t.image("base.qcow2", { size: "512k", writes: ["-P 1 0 512k"] });
  await t.image("top.qcow2", { size: "512k", backing: "base.qcow2" });
  await t.open("base", "base.qcow2", { "read-only": true, file: faulty("base.qcow2", fault) });
  await t.open("top", "top.qcow2", { backing: "base" });
}
