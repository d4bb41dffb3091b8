/** A backup and what other jobs have put between its source and the data. */

import { expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { startBackup } from "../../src/blockjob/backup.ts";
import { startCommit } from "../../src/blockjob/commit.ts";
import { verbs } from "../../src/job/verbs.ts";
import { chain } from "./rig.ts";

it("refuses a disk into whose data a commit lets others write, below a filter that stays", async () => {
  const t = await chain(["base", "top"], MiB);
  await t.graph.add({ driver: "pass", "node-name": "stays", file: "top" });
  t.open("stays", "vdb");
  const file = { driver: "memory", size: 0 };
  await t.graph.add({
    driver: "tiny",
    "node-name": "copy",
    file,
    size: MiB,
    "cluster-size": 64 * KiB,
  });
  const range = { device: "vdb", topNode: "top", baseNode: "base" };
  const commit = await startCommit(t.services, { ...range, jobId: "c0", speed: KiB });
  const backup = { device: "vdb", target: "copy", sync: "full", jobId: "b0" } as const;
  await expect(startBackup(t.services, backup)).rejects.toMatchObject({ errno: "EBUSY" });
  expect(t.services.jobs.all()).toEqual([commit]);
  await verbs.cancel(commit, true);
  await t.clock.runUntil(commit.finished);
});
