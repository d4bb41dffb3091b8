/** block-commit: of nodes in the middle of a chain, and of the active layer. */

import { MOMENTARY_PAUSES } from "../differences.ts";
import type { Rule } from "../rules.ts";
import { area, type ScriptOptions, script } from "../script.ts";
import type { Args, Talk } from "../talk.ts";
import { CHUNK, CRAWL, chain, disk, faulty, KiB } from "./disks.ts";

const READ_ONLY_AGAIN: ScriptOptions = {
  since: { version: "9.1.0", what: "a base that is read-only again after a commit that failed" },
};

const BASE_STAYS_WRITABLE: Rule = {
  why: "QEMU leaves the base writable after a commit that was cancelled softly",
  kind: "reply",
  about: "nodes",
  members: ["ro"],
  within: { file: "base.qcow2" },
};

export const commit = area("commit", [
  script("a node in the middle", async (t) => {
    await chain(t);
    await start(t, { "top-node": "mid", "filter-node-name": "filter", "auto-finalize": false });
    await t.event("BLOCK_JOB_PENDING");
    await t.qmp("query-block-jobs");
    await t.nodes();
    await t.qmp("job-finalize", { id: "c" });
    await t.job("c", "null");
  }),
  script("a node that is named by its file", async (t) => {
    await chain(t);
    await start(t, { top: "mid.qcow2", base: "base.qcow2" });
    await t.job("c", "null");
  }),
  script("two of three, while guests write", async (t) => {
    await four(t);
    await t.serve();
    await t.exportNbd("d");
    const held = { "auto-finalize": false };
    await start(t, { device: "d", "top-node": "c", "base-node": "a", ...held });
    await t.event("BLOCK_JOB_PENDING");
    await t.io("d", "write -P 9 1M 64k", "read -P 2 1088k 64k", "read -P 4 3M 64k");
    await t.qmp("job-finalize", { id: "c" });
    await t.job("c", "null");
    await t.io("d", "read -P 9 1M 64k", "read -P 2 1088k 64k", "read -P 4 3M 64k");
  }),
  script("into a node in the middle", async (t) => {
    await four(t);
    await start(t, { device: "d", "top-node": "c", "base-node": "b" });
    await t.job("c", "null");
  }),
  script("into a base that is shorter", async (t) => {
    await t.image("base.qcow2", { size: "1M", writes: ["-P 1 0 1M"] });
    await t.image("mid.qcow2", { size: "2M", backing: "base.qcow2", writes: ["-P 2 1536k 64k"] });
    await t.image("top.qcow2", { size: "2M", backing: "mid.qcow2" });
    await opened(t);
    await start(t, { "top-node": "mid" });
    await t.job("c", "null");
  }),
  script("into a base that is shorter, cancelled half-way", async (t) => {
    await t.image("base.qcow2", { size: "1M" });
    await t.image("mid.qcow2", { size: "2M", backing: "base.qcow2", writes: ["-P 2 0 2M"] });
    await t.image("top.qcow2", { size: "2M", backing: "mid.qcow2" });
    await opened(t);
    await start(t, { "top-node": "mid", speed: CRAWL });
    await t.progress("c", CHUNK);
    await t.qmp("job-cancel", { id: "c" });
    await t.job("c", "null");
  }),
  script("into a base that is longer", async (t) => {
    await t.image("base.qcow2", { size: "4M", writes: ["-P 1 0 1M"] });
    await t.image("mid.qcow2", { size: "2M", backing: "base.qcow2", writes: ["-P 2 1536k 64k"] });
    await t.image("top.qcow2", { size: "2M", backing: "mid.qcow2" });
    await opened(t);
    await start(t, { "top-node": "mid" });
    await t.job("c", "null");
  }),
  script(
    "zeroes over data",
    async (t) => {
      await t.image("base.qcow2", { writes: ["-P 1 0 4M"] });
      await t.image("mid.qcow2", { backing: "base.qcow2", writes: ["-z 1M 1M", "-P 0 3M 64k"] });
      await t.image("top.qcow2", { backing: "mid.qcow2" });
      await opened(t);
      await start(t, { "top-node": "mid" });
      await t.job("c", "null");
    },
    { since: { version: "9.2.0", what: "a commit of zeroes as zeroes" } },
  ),
  script("into a raw base", async (t) => {
    await t.image("base.raw", { format: "raw", size: "2M" });
    const backing = { backing: "base.raw", backingFormat: "raw" } as const;
    await t.image("mid.qcow2", { ...backing, size: "2M", writes: ["-P 2 100k 300k"] });
    await t.image("top.qcow2", { size: "2M", backing: "mid.qcow2" });
    await t.openRaw("base", "base.raw", { "read-only": true });
    await t.open("mid", "mid.qcow2", { "read-only": true, backing: "base" });
    await t.open("top", "top.qcow2", { backing: "mid" });
    await start(t, { "top-node": "mid" });
    await t.job("c", "null");
  }),
  script("the name of the new backing file is the one that was asked for", async (t) => {
    await chain(t);
    await start(t, { "top-node": "mid", "backing-file": "./base.qcow2" });
    await t.job("c", "null");
  }),
  script("pause, resume and speed", async (t) => {
    await chain(t);
    await start(t, { "top-node": "mid", speed: CRAWL });
    await t.progress("c", 1024 * KiB + CHUNK);
    await t.qmp("job-pause", { id: "c" });
    await t.job("c", "paused");
    await t.qmp("query-block-jobs");
    await t.qmp("job-complete", { id: "c" });
    await t.qmp("block-job-set-speed", { device: "c", speed: 0 });
    await t.qmp("job-resume", { id: "c" });
    await t.job("c", "null");
  }),
  script("the active layer", async (t) => {
    await chain(t);
    await start(t, { "filter-node-name": "filter" });
    await t.event("BLOCK_JOB_READY");
    await t.qmp("query-block-jobs");
    await t.nodes();
    await t.qmp("job-complete", { id: "c" });
    await t.job("c", "null");
    await t.qmp("blockdev-del", { "node-name": "top" });
  }),
  script("the active layer into the middle", async (t) => {
    await chain(t);
    await start(t, { "base-node": "mid" });
    await t.event("BLOCK_JOB_READY");
    await t.qmp("job-complete", { id: "c" });
    await t.job("c", "null");
  }),
  script("the active layer, while guests write", async (t) => {
    await chain(t);
    await t.serve();
    await t.exportNbd("top");
    await start(t, {});
    await t.event("BLOCK_JOB_READY");
    await t.io("top", "write -P 9 0 64k", "write -P 8 2M 128k", "read -P 3 1536k 64k");
    await t.qmp("job-complete", { id: "c" });
    await t.job("c", "null");
    await t.io("top", "read -P 9 0 64k", "read -P 8 2M 128k", "read -P 3 1536k 64k");
    await t.io("top", "write -P 7 3M 64k");
  }),
  script(
    "the active layer, cancelled by force",
    async (t) => {
      await chain(t);
      await start(t, {});
      await t.event("BLOCK_JOB_READY");
      await t.qmp("job-cancel", { id: "c" });
      await t.job("c", "null");
    },
    READ_ONLY_AGAIN,
  ),
  script(
    "the active layer, cancelled softly",
    async (t) => {
      await chain(t);
      await start(t, {});
      await t.event("BLOCK_JOB_READY");
      await t.qmp("block-job-cancel", { device: "c" });
      await t.job("c", "null");
    },
    { differences: [BASE_STAYS_WRITABLE] },
  ),
  script("the active layer into a base that is shorter", async (t) => {
    await t.image("base.qcow2", { size: "1M", writes: ["-P 1 0 1M"] });
    await t.image("top.qcow2", { size: "2M", backing: "base.qcow2", writes: ["-P 2 1536k 64k"] });
    await t.open("base", "base.qcow2", { "read-only": true });
    await t.open("top", "top.qcow2", { backing: "base" });
    await start(t, {});
    await t.event("BLOCK_JOB_READY");
    await t.qmp("job-complete", { id: "c" });
    await t.job("c", "null");
  }),
  script("an active layer of nothing", async (t) => {
    await t.image("base.qcow2", { size: "0" });
    await t.image("top.qcow2", { size: "0", backing: "base.qcow2" });
    await t.open("base", "base.qcow2", { "read-only": true });
    await t.open("top", "top.qcow2", { backing: "base" });
    await start(t, {});
    await t.event("BLOCK_JOB_READY");
    await t.qmp("query-jobs");
    await t.qmp("job-complete", { id: "c" });
    await t.job("c", "null");
  }),
  script("an overlay, its commit, and another overlay", async (t) => {
    await disk(t);
    for (const name of ["one", "two"]) {
      await t.image(`${name}.qcow2`);
      await t.open(name, `${name}.qcow2`, { backing: null });
    }
    await t.qmp("blockdev-snapshot", { node: "top", overlay: "one" });
    await start(t, { device: "one" });
    await t.event("BLOCK_JOB_READY");
    await t.qmp("job-complete", { id: "c" });
    await t.job("c", "null");
    await t.qmp("blockdev-snapshot", { node: "top", overlay: "two" });
    await t.nodes();
  }),
  script("refuses nodes that do not fit", async (t) => {
    await chain(t);
    await t.image("other.qcow2");
    await t.open("other", "other.qcow2");
    for (const more of [
      { device: "nope" },
      { device: "nope", "top-node": "also-nope" },
      { "top-node": "nope" },
      { top: "nope.qcow2" },
      { "base-node": "nope" },
      { base: "nope.qcow2" },
      { top: "mid.qcow2", "top-node": "mid" },
      { base: "base.qcow2", "base-node": "base" },
      { "top-node": "base", "base-node": "mid" },
      { "top-node": "mid", "base-node": "mid" },
      { "top-node": "base" },
      { "top-node": "mid", "base-node": "top" },
      { "top-node": "other" },
      { "base-node": "other" },
      { device: "other" },
      { device: "mid" },
      { device: "base" },
    ]) {
      await start(t, more);
    }
    await t.qmp("query-jobs");
    await t.nodes();
  }),
  script("refuses settings that do not fit", async (t) => {
    await chain(t);
    await start(t, { "backing-file": "base.qcow2" });
    await start(t, { "top-node": "top", "backing-file": "base.qcow2" });
    await start(t, { "top-node": "mid", speed: -1 });
    await start(t, { speed: -1 });
    await start(t, { "top-node": "mid", "on-error": "nonsense" });
    await start(t, { "top-node": "mid", "job-id": "" });
    await start(t, { "top-node": 1 });
    await t.qmp("block-commit", { device: "top" });
    await t.qmp("block-commit", { "job-id": "c" });
    await t.qmp("query-jobs");
    await t.nodes();
  }),
  script("a filter's name that is taken", async (t) => {
    await chain(t);
    t.parting("a commit's filter is there before its job is, so there is no job here");
    await start(t, { "top-node": "mid", "filter-node-name": "base" });
  }),
  script("a second job on what a commit works on", async (t) => {
    await chain(t);
    await t.image("target.qcow2");
    await t.open("target", "target.qcow2");
    await start(t, { "top-node": "mid", "filter-node-name": "filter", "auto-finalize": false });
    await t.event("BLOCK_JOB_PENDING");
    for (const device of ["top", "mid", "base", "filter"]) {
      await t.qmp("block-stream", { device, "job-id": "s" });
      await start(t, { device, "job-id": "d" });
      const to = { device, target: "target", sync: "full" };
      await t.qmp("blockdev-mirror", { ...to, "job-id": "m" });
      await t.qmp("block_resize", { "node-name": device, size: 8 * 1024 * KiB });
      await t.qmp("blockdev-del", { "node-name": device });
      await t.qmp("blockdev-snapshot", { node: device, overlay: "target" });
    }
    await start(t, { "top-node": "mid", "job-id": "d" });
    await t.qmp("job-cancel", { id: "c" });
    await t.job("c", "null");
  }),
  script(
    "a second job on what a commit of the active layer works on",
    async (t) => {
      await chain(t);
      await t.image("target.qcow2");
      await t.open("target", "target.qcow2");
      await start(t, {});
      await t.event("BLOCK_JOB_READY");
      for (const device of ["top", "mid", "base"]) {
        await t.qmp("block-stream", { device, "job-id": "s" });
        await start(t, { device, "job-id": "d" });
        await t.qmp("blockdev-del", { "node-name": device });
        await t.qmp("blockdev-snapshot", { node: device, overlay: "target" });
      }
      await t.qmp("job-complete", { id: "c" });
      await t.job("c", "null");
    },
    { differences: [MOMENTARY_PAUSES] },
  ),
  script("a name for the new backing file that is too long for the overlay", async (t) => {
    await chain(t);
    const name = { "backing-file": "x".repeat(1024) };
    await start(t, { "top-node": "mid", ...name, "auto-finalize": false });
    await t.event("BLOCK_JOB_PENDING");
    t.parting("QEMU crashes; here the job fails, and all is as before");
    await t.qmp("job-finalize", { id: "c" });
    await t.job("c", "null");
  }),
  ...(["read", "write"] as const).flatMap((what) =>
    (["report", "stop", "ignore", "enospc"] as const).flatMap((policy) =>
      [false, true].map((active) =>
        script(
          `a ${what} error with the policy ${policy}${active ? ", the active layer" : ""}`,
          async (t) => {
            await failing(t, what, policy === "enospc" ? 28 : 5);
            const named = active ? {} : { "top-node": "mid", "backing-file": "base.qcow2" };
            await start(t, { ...named, "on-error": policy, "auto-dismiss": false });
            if (policy === "stop" || policy === "enospc") {
              await t.event("BLOCK_JOB_ERROR");
              await t.job("c", "paused");
              await t.qmp("query-block-jobs");
              await t.qmp("job-resume", { id: "c" });
            }
            if (active && policy !== "report") {
              await t.event("BLOCK_JOB_READY");
              await t.qmp("job-complete", { id: "c" });
            }
            await t.job("c", "concluded");
            await t.qmp("query-jobs");
            await t.qmp("job-dismiss", { id: "c" });
          },
          active && policy === "report" ? READ_ONLY_AGAIN : {},
        ),
      ),
    ),
  ),
]);

/** Job 'c' on the chain of 'top', unless said. */
async function start(t: Talk, args: Args): Promise<void> {
  await t.qmp("block-commit", { device: "top", "job-id": "c", ...args });
}

/** The nodes of a chain whose images are there. */
async function opened(t: Talk): Promise<void> {
  await t.open("base", "base.qcow2", { "read-only": true });
  await t.open("mid", "mid.qcow2", { "read-only": true, backing: "base" });
  await t.open("top", "top.qcow2", { backing: "mid" });
}

/** [a] <── [b] <── [c] <── [d], each with 1 MiB of its own. */
async function four(t: Talk): Promise<void> {
  const names = ["a", "b", "c", "d"];
  for (const [i, name] of names.entries()) {
    const writes = [`-P ${i + 1} ${i}M 1M`];
    const below = names[i - 1];
    await t.image(`${name}.qcow2`, { writes, ...(below && { backing: `${below}.qcow2` }) });
    const isTop = name === "d";
    await t.open(name, `${name}.qcow2`, { "read-only": !isTop, backing: below ?? null });
  }
}

/** A chain with 64 KiB to be committed; the first request for that fails. */
async function failing(t: Talk, what: "read" | "write", errno: number): Promise<void> {
  const size = "64k";
  await t.image("base.qcow2", { size });
  await t.image("mid.qcow2", { size, backing: "base.qcow2", writes: ["-P 2 0 64k"] });
  await t.image("top.qcow2", { size, backing: "mid.qcow2" });
  const fault = { event: what === "read" ? "read_aio" : "write_aio", errno, once: true };
  const file = (name: string) => ({ file: faulty(name, fault) });
  const [base, mid] = what === "read" ? [{}, file("mid.qcow2")] : [file("base.qcow2"), {}];
  await t.open("base", "base.qcow2", { "read-only": true, ...base });
  await t.open("mid", "mid.qcow2", { "read-only": true, backing: "base", ...mid });
  await t.open("top", "top.qcow2", { backing: "mid" });
}
