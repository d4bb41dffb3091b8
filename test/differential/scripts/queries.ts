/** What can be asked. */

import { TRUE_FIGURES } from "../differences.ts";
import { area, script } from "../script.ts";
import { CHUNK, CRAWL, chain, disk } from "./disks.ts";

export const queries = area("queries", [
  script("there is nothing yet", async (t) => {
    for (const what of ["jobs", "block-jobs", "block", "named-block-nodes", "block-exports"]) {
      await t.qmp(`query-${what}`);
    }
    await t.qmp("query-blockstats");
    await t.qmp("query-blockstats", { "query-nodes": true });
  }),
  script(
    "figures of nodes",
    async (t) => {
      await chain(t);
      await t.qmp("query-blockstats");
      await t.qmp("query-blockstats", { "query-nodes": true });
      await t.qmp("query-blockstats", { "query-nodes": "yes" });
    },
    { differences: [TRUE_FIGURES] },
  ),
  script("a job at work", async (t) => {
    await chain(t);
    await t.qmp("block-stream", { device: "top", "job-id": "s", speed: CRAWL });
    await t.progress("s", CHUNK);
    await t.qmp("query-jobs");
    await t.qmp("query-block-jobs");
    await t.qmp("query-block");
    await t.qmp("query-named-block-nodes");
  }),
  script("arguments where there are none", async (t) => {
    await t.qmp("query-jobs", { x: 1 });
    await t.qmp("query-block-jobs", { x: 1 });
    await t.qmp("query-block", { x: 1 });
    await t.qmp("query-block-exports", { x: 1 });
  }),
  script("a write threshold", async (t) => {
    await disk(t);
    const set = (more: object) => t.qmp("block-set-write-threshold", more as never);
    await set({ "node-name": "top", "write-threshold": 1048576 });
    await t.qmp("query-named-block-nodes", { flat: true });
    await set({ "node-name": "top", "write-threshold": 0 });
    await set({ "node-name": "nope", "write-threshold": 1 });
    await set({ "node-name": "top" });
    await t.qmp("query-named-block-nodes", { flat: true });
    t.parting("a threshold below zero is refused, not taken for one of 16 EiB");
    await set({ "node-name": "top", "write-threshold": -1 });
  }),
]);
