/** The verbs of jobs in each state of a job's life. */

import { area, script } from "../script.ts";
import type { Talk } from "../talk.ts";
import { CHUNK, CRAWL, chain, pair } from "./disks.ts";

const VERBS = ["pause", "resume", "complete", "finalize", "dismiss"];

/** All verbs that this state refuses, and the twins of the block layer. */
async function tryVerbs(t: Talk, id: string, refused: readonly string[]): Promise<void> {
  for (const verb of refused) await t.qmp(`job-${verb}`, { id });
  for (const verb of refused) {
    const args = verb === "finalize" || verb === "dismiss" ? { id } : { device: id };
    await t.qmp(`block-job-${verb}`, args);
  }
}

export const lifeCycle = area("life cycle", [
  script("a job that is held at each of its ends", async (t) => {
    await chain(t);
    const held = { "auto-finalize": false, "auto-dismiss": false };
    await t.qmp("block-stream", { device: "top", "job-id": "s", ...held });
    await t.event("BLOCK_JOB_PENDING");
    await t.qmp("query-jobs");
    await t.qmp("query-block-jobs");
    await t.qmp("job-finalize", { id: "s" });
    await t.job("s", "concluded");
    await t.qmp("query-jobs");
    await t.qmp("query-block-jobs");
    await t.qmp("job-dismiss", { id: "s" });
    await t.job("s", "null");
    await t.qmp("query-jobs");
  }),
  script("verbs for a job that is not there", async (t) => {
    for (const verb of [...VERBS, "cancel"]) await t.qmp(`job-${verb}`, { id: "nope" });
    await tryVerbs(t, "nope", VERBS);
    await t.qmp("block-job-cancel", { device: "nope" });
    await t.qmp("block-job-set-speed", { device: "nope", speed: 1 });
  }),
  script("verbs while it runs", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s", speed: CRAWL });
    await t.progress("s", CHUNK);
    await tryVerbs(t, "s", ["resume", "complete", "finalize", "dismiss"]);
    await t.qmp("job-cancel", { id: "s" });
    await t.job("s", "null");
  }),
  script("verbs while it is paused", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s", speed: CRAWL });
    await t.progress("s", CHUNK);
    await t.qmp("job-pause", { id: "s" });
    await t.job("s", "paused");
    await tryVerbs(t, "s", ["pause", "complete", "finalize", "dismiss"]);
    await t.qmp("query-jobs");
    await t.qmp("query-block-jobs");
    await t.qmp("block-job-cancel", { device: "s" });
    await t.qmp("query-jobs");
    await t.qmp("job-cancel", { id: "s" });
    await t.job("s", "null");
  }),
  script("pause and resume of both families", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s", speed: CRAWL });
    await t.progress("s", CHUNK);
    await t.qmp("job-pause", { id: "s" });
    await t.job("s", "paused");
    await t.qmp("block-job-resume", { device: "s" });
    await t.job("s", "running");
    await t.qmp("block-job-pause", { device: "s" });
    await t.job("s", "paused");
    await t.qmp("block-job-set-speed", { device: "s", speed: 0 });
    await t.qmp("job-resume", { id: "s" });
    await t.job("s", "null");
  }),
  script("verbs while it is pending", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s", "auto-finalize": false });
    await t.event("BLOCK_JOB_PENDING");
    await tryVerbs(t, "s", ["pause", "resume", "complete", "dismiss"]);
    await t.qmp("block-job-set-speed", { device: "s", speed: 1 });
    await t.qmp("block-job-cancel", { device: "s", force: false });
    await t.qmp("query-jobs");
    await t.qmp("job-finalize", { id: "s" });
    await t.qmp("query-jobs");
  }),
  script("a job that is cancelled while it is pending", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s", "auto-finalize": false });
    await t.event("BLOCK_JOB_PENDING");
    await t.qmp("job-cancel", { id: "s" });
    await t.job("s", "null");
  }),
  script("verbs when it is concluded", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s", "auto-dismiss": false });
    await t.job("s", "concluded");
    await tryVerbs(t, "s", ["pause", "resume", "complete", "finalize"]);
    await t.qmp("job-cancel", { id: "s" });
    await t.qmp("block-job-cancel", { device: "s" });
    await t.qmp("block-job-set-speed", { device: "s", speed: 1 });
    await t.qmp("block-job-dismiss", { id: "s" });
    await t.job("s", "null");
  }),
  script("an id is free again when its job is dismissed", async (t) => {
    await pair(t);
    const to = { device: "top", target: "target", sync: "full", "job-id": "b" };
    await t.qmp("blockdev-backup", { ...to, "auto-dismiss": false });
    await t.job("b", "concluded");
    await t.qmp("blockdev-backup", to);
    await t.qmp("job-dismiss", { id: "b" });
    await t.job("b", "null");
    await t.qmp("blockdev-backup", to);
    await t.job("b", "null");
  }),
  script("ids that are none", async (t) => {
    await chain(t);
    for (const id of ["0id", "", " ", "123", "_id", "-id", ".id", "#id", "a b", "ä"]) {
      await t.qmp("block-stream", { device: "top", "job-id": id });
    }
  }),
  script("ids of all sorts", async (t) => {
    await chain(t);
    for (const id of ["id0", "id_2", "a.b-c_d", "x".repeat(300)]) {
      await t.qmp("block-stream", { device: "top", "job-id": id, "base-node": "mid" });
      await t.job(id, "null");
    }
  }),
  script("jobs are listed newest first", async (t) => {
    await pair(t);
    const to = { device: "top", target: "target", sync: "full", "auto-dismiss": false };
    for (const id of ["b", "c", "a"]) {
      await t.qmp("blockdev-backup", { ...to, "job-id": id });
      await t.job(id, "concluded");
    }
    await t.qmp("query-jobs");
    await t.qmp("query-block-jobs");
    for (const id of ["c", "a", "b"]) await t.qmp("job-dismiss", { id });
  }),
  script("speeds", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s", speed: CRAWL });
    await t.progress("s", CHUNK);
    await t.qmp("block-job-set-speed", { device: "s", speed: -1 });
    await t.qmp("block-job-set-speed", { device: "s", speed: CRAWL / 2 });
    await t.qmp("query-block-jobs");
    await t.qmp("block-job-set-speed", { device: "s", speed: 0 });
    await t.job("s", "null");
  }),
  script("quit with a job that runs", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s", speed: CRAWL });
    await t.progress("s", CHUNK);
  }),
  script("quit with a job that is paused", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s", speed: CRAWL });
    await t.progress("s", CHUNK);
    await t.qmp("job-pause", { id: "s" });
    await t.job("s", "paused");
  }),
  script("quit with a job that is pending, and one that is concluded", async (t) => {
    await pair(t);
    const to = { device: "top", target: "target", sync: "full" };
    await t.qmp("blockdev-backup", { ...to, "job-id": "b", "auto-dismiss": false });
    await t.job("b", "concluded");
    await t.qmp("blockdev-mirror", { ...to, "job-id": "m", "auto-finalize": false });
    await t.event("BLOCK_JOB_READY");
    await t.qmp("job-complete", { id: "m" });
    await t.event("BLOCK_JOB_PENDING");
  }),
  script("quit with a mirror that is ready", async (t) => {
    await pair(t);
    const to = { device: "top", target: "target", sync: "full" };
    await t.qmp("blockdev-mirror", { ...to, "job-id": "m" });
    await t.event("BLOCK_JOB_READY");
  }),
]);
