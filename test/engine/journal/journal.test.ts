/** An engine that is lost comes back as its record has it. */

import { describe, expect, it } from "vitest";
import { KiB } from "../../../src/base/bytes.ts";
import type { JobRecord } from "../../../src/engine/journal/record.ts";
import { Recorder } from "../../crash/recorder.ts";
import { disks, MemoryJournal, startEngine } from "./rig.ts";

describe("the history", () => {
  it("dismisses of several runs under one id the one that is meant, or all", async () => {
    const recorder = new Recorder();
    const { client, clock } = await startEngine(recorder, new MemoryJournal());
    await disks(client, recorder);
    await client.execute("x-job-history-dismiss");
    const told = async () => {
      const all = (await client.execute("x-query-job-history"))["return"];
      return all as { began: { seconds: number; microseconds: number } }[];
    };
    for (let run = 0; run < 3; run++) {
      await client.execute("block-stream", { "job-id": "s", device: "vda", speed: 4096 });
      await clock.advance(5);
      await client.execute("block-job-cancel", { device: "s" });
    }
    const [third, second, first] = await told();
    await client.execute("x-job-history-dismiss", { id: "s", began: second!.began });
    expect(await told()).toEqual([third, first]);
    const again = await client.execute("x-job-history-dismiss", { id: "s", began: second!.began });
    expect(again).toMatchObject({ error: { desc: "Job 's' is not in the history" } });
    const nameless = await client.execute("x-job-history-dismiss", { began: first!.began });
    expect(nameless).toMatchObject({ error: { desc: expect.stringMatching(/'id' has to say/) } });
    await client.execute("x-job-history-dismiss", { id: "s" });
    expect(await told()).toEqual([]);
  });
});

describe("an engine that is lost", () => {
  it("comes back with its nodes, links, settings, objects and exports", async () => {
    const recorder = new Recorder();
    const journal = new MemoryJournal();
    const first = await startEngine(recorder, journal);
    await disks(first.client, recorder);
    await first.client.execute("object-add", {
      "qom-type": "throttle-group",
      id: "slow",
      limits: { "iops-total": 100 },
    });
    await first.client.execute("blockdev-add", {
      driver: "throttle",
      "node-name": "t",
      "throttle-group": "slow",
      file: "target",
    });
    const look = async ({ client }: typeof first) => {
      const names = ["query-named-block-nodes", "query-block-exports", "x-debug-query-block-graph"];
      const all = [];
      for (const name of names) all.push((await client.execute(name))["return"]);
      all.push(await client.execute("qom-get", { path: "slow", property: "limits" }));
      return all;
    };
    const before = await look(first);
    const second = await startEngine(recorder, journal, 2);
    expect(await look(second)).toEqual(before);
    const { return: told } = await second.client.execute("x-query-recovery");
    expect((told as { outcome: string }[]).map(({ outcome }) => outcome)).toEqual(
      Array.from({ length: 9 }, () => "continued"),
    );
  });

  it("ends jobs whose record says that they never ran, and tells so", async () => {
    const { recorder, journal } = await lost("s", (job) => ({ ...job, status: "created" }));
    const { client } = await startEngine(recorder, journal, 2);
    expect((await client.execute("query-jobs"))["return"]).toEqual([]);
    expect((await client.execute("x-query-job-history"))["return"]).toMatchObject([
      { id: "s", outcome: "failed", error: expect.stringContaining("never started") },
    ]);
  });

  it("has a job that had taken effect completed, and one that was being aborted cancelled", async () => {
    for (const [change, outcome] of [
      [{ hasTakenEffect: true }, "completed"],
      [{ status: "aborting" }, "cancelled"],
    ] as const) {
      const { recorder, journal } = await lost("s", (job) => ({ ...job, ...change }));
      const { client } = await startEngine(recorder, journal, 2);
      const history = (await client.execute("x-query-job-history"))["return"];
      expect(history).toMatchObject([{ id: "s", outcome }]);
    }
  });

  it("keeps a concluded job until it is dismissed, once in the history", async () => {
    const error = { errno: "ENOSPC", desc: "No room" };
    const concluded = { status: "concluded", autoDismiss: false, error };
    const { recorder, journal } = await lost("s", (job) => ({ ...job, ...concluded }));
    const { client } = await startEngine(recorder, journal, 2);
    expect((await client.execute("query-jobs"))["return"]).toMatchObject([
      { id: "s", status: "concluded", error: "No room" },
    ]);
    await client.execute("job-dismiss", { id: "s" });
    const third = await startEngine(recorder, journal, 3);
    expect((await third.client.execute("query-jobs"))["return"]).toEqual([]);
  });

  it("M06 lists a job of an unknown type as broken; the disk and other jobs are there", async () => {
    const { recorder, journal } = await lost("s", (job) => ({ ...job, type: "melt" }));
    const { client } = await startEngine(recorder, journal, 2);
    const broken = { kind: "job", name: "s", outcome: "broken" };
    expect((await client.execute("x-query-recovery"))["return"]).toContainEqual(
      expect.objectContaining(broken),
    );
    expect((await client.execute("query-block-exports"))["return"]).toMatchObject([{ id: "vda" }]);
    const third = await startEngine(recorder, journal, 3);
    await third.client.execute("x-recovery-dismiss", { kind: "job", name: "s" });
    expect(journal.record.broken).toEqual([]);
  });

  it.each([["no JSON value of ours"], [{ version: 1, epoch: 7 }], [[]], [null]])(
    "keeps a record aside that it does not understand: %j",
    async (stored) => {
      const journal = new MemoryJournal();
      journal.text = JSON.stringify(stored);
      const { client } = await startEngine(new Recorder(), journal);
      expect((await client.execute("x-query-recovery"))["return"]).toMatchObject([
        { kind: "record", outcome: "broken" },
      ]);
      expect(journal.record.broken).toMatchObject([{ entry: stored }]);
    },
  );

  it("keeps what cannot be opened now, and what needs it; the rest is there; a retry brings it", async () => {
    const { recorder, journal } = await lost("s", (job) => ({ ...job, paused: true }));
    const away = new Recorder();
    for (const [name, bytes] of recorder.files()) if (name !== "base") away.add(name, bytes);
    const second = await startEngine(away, journal, 2);
    const told = async () => {
      const all = (await second.client.execute("x-query-recovery"))["return"] as {
        kind: string;
        name: string;
        outcome: string;
      }[];
      return Object.fromEntries(all.map(({ kind, name, outcome }) => [`${kind} ${name}`, outcome]));
    };
    expect(await told()).toMatchObject({
      "node base": "kept",
      "node top": "kept",
      "node target": "continued",
      "export vda": "kept",
      "job s": "kept",
    });
    expect(journal.record.jobs).toMatchObject([{ id: "s" }]);
    away.add("base", recorder.bytesOf("base"));
    await second.client.execute("x-recovery-retry");
    expect(new Set(Object.values(await told()))).toEqual(new Set(["continued"]));
    expect((await second.client.execute("query-block-jobs"))["return"]).toMatchObject([
      { device: "s", status: "paused", speed: 4096 },
    ]);
  });

  it("says what to do of a backup whose bitmap was in memory", async () => {
    const recorder = new Recorder();
    const journal = new MemoryJournal();
    const { client, engine, clock } = await startEngine(recorder, journal);
    await disks(client, recorder);
    await client.execute("block-dirty-bitmap-add", { node: "top", name: "b" });
    const { backend } = engine.exports.get("vda");
    for (const at of [0, 128 * KiB]) {
      await clock.runUntil(backend.write(new Uint8Array(64 * KiB).fill(1), at));
    }
    const incremental = { sync: "incremental", bitmap: "b", speed: 4096 };
    const backup = { "job-id": "s", device: "top", target: "target", ...incremental };
    await client.execute("blockdev-backup", backup);
    const kept = new MemoryJournal();
    kept.text = journal.text;
    const next = await startEngine(recorder, kept, 2);
    const history = (await next.client.execute("x-query-job-history"))["return"];
    const error = expect.stringMatching(/bitmap 'b' is lost.*make the backup again/);
    expect(history).toContainEqual(expect.objectContaining({ id: "s", outcome: "failed", error }));
  });

  it("does not tell of a job that it goes on, or will be ready, once it has ended", async () => {
    for (const status of ["running", "ready"] as const) {
      const { recorder, journal } = await lost("s", (job) => ({ ...job, status }));
      const { client } = await startEngine(recorder, journal, 2);
      const told = async () => {
        const all = (await client.execute("x-query-recovery"))["return"] as { kind: string }[];
        return all.filter(({ kind }) => kind === "job");
      };
      const ofReady = expect.stringContaining(status === "ready" ? "complete it then" : "went on");
      expect(await told()).toMatchObject([{ name: "s", outcome: "continued", text: ofReady }]);
      await client.execute("block-job-cancel", { device: "s" });
      expect((await client.execute("x-query-job-history"))["return"]).toMatchObject([{ id: "s" }]);
      expect(await told()).toMatchObject([{ name: "s", outcome: "ended" }]);
      expect(JSON.stringify(await told())).not.toContain("complete it");
    }
  });
});

/** What an engine has left that was lost while it streamed, with another record of the job. */
async function lost(id: string, change: (job: JobRecord) => object) {
  const recorder = new Recorder();
  const journal = new MemoryJournal();
  const { client } = await startEngine(recorder, journal);
  await disks(client, recorder);
  await client.execute("x-job-history-dismiss");
  await client.execute("block-stream", { "job-id": id, device: "vda", speed: 4096 });
  const { record } = journal;
  expect(record.jobs).toHaveLength(1);
  journal.text = JSON.stringify({ ...record, jobs: record.jobs.map(change) });
  // The engine that is lost says no more.
  const kept = new MemoryJournal();
  kept.text = journal.text;
  return { recorder, journal: kept };
}
