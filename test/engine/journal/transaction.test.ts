/** A transaction is on record as a whole, or not at all: whenever the engine is lost, so the next one finds it. */

import { expect, it } from "vitest";
import { MiB } from "../../../src/base/bytes.ts";
import type { JournalRecord } from "../../../src/engine/journal/record.ts";
import { MemoryIntentStore } from "../../block/intent-store.ts";
import { Recorder } from "../../crash/recorder.ts";
import { MemoryJournal, startEngine } from "./rig.ts";

const snapshot = (node: string) => ({
  type: "blockdev-snapshot",
  data: { node, overlay: `${node}-overlay` },
});
const backup = (device: string) => ({
  type: "blockdev-backup",
  data: { "job-id": "j", device, target: "target", sync: "full", speed: 65536 },
});

const TRANSACTIONS = {
  "two snapshots": [snapshot("a"), snapshot("b")],
  "a snapshot and a backup of another disk": [snapshot("a"), backup("b")],
  "a backup and a snapshot of another disk": [backup("b"), snapshot("a")],
  "a snapshot of a disk and a backup of it": [snapshot("a"), backup("vda")],
};

it.each(Object.entries(TRANSACTIONS))("%s", async (_name, actions) => {
  const recorder = new Recorder();
  const journal = new MemoryJournal();
  const { client, engine } = await startEngine(recorder, journal, 1, new MemoryIntentStore());
  const ok = async (name: string, args?: object) =>
    expect(await client.execute(name, args)).toHaveProperty("return");
  for (const name of ["a", "b", "a-overlay", "b-overlay", "target"]) {
    recorder.add(name);
    const file = { driver: "recorded", filename: name };
    const options = { driver: "qcow2", size: 1 * MiB, file };
    await ok("blockdev-create", { "job-id": "make", options });
    await ok("job-dismiss", { id: "make" });
    await ok("blockdev-add", { driver: "qcow2", "node-name": name, file });
  }
  for (const name of ["a", "b"]) {
    const type = { type: "message-port", id: `vd${name}`, "node-name": name, writable: true };
    await ok("block-export-add", type);
  }
  /** How much of it a record has: the disks' nodes, and the job. */
  const seen: string[] = [];
  journal.after = (text) => {
    const { exports, jobs } = JSON.parse(text) as JournalRecord;
    const nodes = exports.map((one) => one["node-name"]);
    const isThere = jobs.some(({ status }) => status !== "created");
    seen.push([...nodes, isThere].join(" "));
  };
  // Whoever asks anything has a record made: also amid changes, at each step of the files.
  const curious = engine.openMonitor(() => {});
  curious.receive({ execute: "qmp_capabilities" });
  const { apply } = recorder;
  recorder.apply = (entry) => {
    apply.call(recorder, entry);
    curious.receive({ execute: "query-version" });
  };
  await client.settle();
  seen.length = 0;
  await ok("transaction", { actions });
  const hasSnapshot = (disk: string) =>
    actions.some(({ data }) => "node" in data && data.node === disk);
  const wanted = ["a", "b"].map((disk) => (hasSnapshot(disk) ? `${disk}-overlay` : disk));
  const isBackup = actions.some(({ type }) => type === "blockdev-backup");
  // The backup may have ended by then.
  expect(seen.find((one) => one !== "a b false")).toBe(`${wanted.join(" ")} ${isBackup}`);
});
