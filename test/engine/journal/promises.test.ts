/** What docs/journal.md says of what becomes of jobs, objects and nodes, where no other test would miss it. */

import { expect, it } from "vitest";
import { KiB } from "../../../src/base/bytes.ts";
import { Recorder } from "../../crash/recorder.ts";
import type { Conversation } from "../../qmp/conversation.ts";
import { disks, MemoryJournal, startEngine } from "./rig.ts";

async function started() {
  const recorder = new Recorder();
  const journal = new MemoryJournal();
  const again = () => startEngine(recorder, journal);
  const first = await again();
  await disks(first.client, recorder);
  return { ...first, journal, again };
}

const ok = async (client: Conversation, name: string, args?: object) => {
  const reply = await client.execute(name, args);
  expect(reply).toHaveProperty("return");
  return reply.return;
};

it("a job that waited to be finalized waits again, and ends well when it is", async () => {
  const { client, again } = await started();
  await ok(client, "block-stream", { "job-id": "s", device: "top", "auto-finalize": false });
  await client.clock.advance(5000);
  expect(await ok(client, "query-jobs")).toMatchObject([{ id: "s", status: "pending" }]);
  const next = await again();
  await next.clock.advance(5000);
  expect(await ok(next.client, "query-jobs")).toMatchObject([{ id: "s", status: "pending" }]);
  await ok(next.client, "job-finalize", { id: "s" });
  await next.clock.advance(5000);
  const history = await ok(next.client, "x-query-job-history");
  expect(history).toContainEqual(expect.objectContaining({ id: "s", outcome: "completed" }));
});

it("a job goes on with the speed that it was given last", async () => {
  const { client, again } = await started();
  await ok(client, "block-stream", { "job-id": "s", device: "top", speed: 64 * KiB });
  await ok(client, "block-job-set-speed", { device: "s", speed: 32 * KiB });
  const next = await again();
  expect(await ok(next.client, "query-block-jobs")).toMatchObject([{ speed: 32 * KiB }]);
});

it("a mirror of new writes alone copies all of the disk, as nobody knows what the target lacks", async () => {
  const { client, again } = await started();
  const options = { "job-id": "m", device: "top", target: "target", sync: "none" };
  await ok(client, "blockdev-mirror", options);
  await client.clock.advance(1000);
  const next = await again();
  await next.clock.advance(5000);
  const [job] = (await ok(next.client, "query-block-jobs")) as [{ len: number; ready: boolean }];
  expect(job).toMatchObject({ ready: true, len: 256 * KiB });
});

it.each([
  ["snapshot-save", /snapshot may be there or not/],
  ["snapshot-load", /disks may have been reset or not/],
  ["snapshot-delete", /snapshot may be gone or not/],
  ["amend", /change may have been made or not/],
  ["create", /image may have been made in part/],
])(
  "a job of type %s that was under way has failed, and says what to look at",
  async (type, text) => {
    const { client, journal, again } = await started();
    await ok(client, "block-stream", { "job-id": "s", device: "top", speed: 1 });
    const [job] = journal.record.jobs;
    const underWay = { ...job, id: "j", type, again: null, autoDismiss: false };
    journal.text = JSON.stringify({ ...journal.record, jobs: [underWay] });
    const next = await again();
    await next.clock.advance(1000);
    const jobs = (await ok(next.client, "query-jobs")) as object[];
    expect(jobs).toMatchObject([
      { id: "j", status: "concluded", error: expect.stringMatching(text) },
    ]);
  },
);

it("a secret that was given as data is asked for again; what it held is on no record", async () => {
  const { client, journal, again } = await started();
  await ok(client, "object-add", { "qom-type": "secret", id: "pass", data: "hunter2" });
  expect(journal.text).not.toContain("hunter2");
  const { client: next } = await again();
  const recovery = await ok(next, "x-query-recovery");
  const kept = { kind: "object", name: "pass", outcome: "kept" };
  expect(recovery).toContainEqual(expect.objectContaining(kept));
  await ok(next, "object-add", { "qom-type": "secret", id: "pass", data: "hunter2" });
  await ok(next, "x-recovery-retry");
  const there = expect.objectContaining({ ...kept, outcome: "continued" });
  expect(await ok(next, "x-query-recovery")).toContainEqual(there);
});

it("a copy-before-write filter comes back, and what gives access to its moment does not", async () => {
  const { client, again } = await started();
  await ok(client, "block-export-del", { id: "vda" });
  const cbw = { driver: "copy-before-write", "node-name": "cbw", file: "top", target: "target" };
  await ok(client, "blockdev-add", cbw);
  await ok(client, "blockdev-add", { driver: "snapshot-access", "node-name": "sa", file: "cbw" });
  const { client: next } = await again();
  const names = ((await ok(next, "query-named-block-nodes")) as { "node-name": string }[]).map(
    (node) => node["node-name"],
  );
  expect(names).toContain("cbw");
  expect(names).not.toContain("sa");
  const lost = expect.objectContaining({ kind: "node", name: "sa", outcome: "lost" });
  expect(await ok(next, "x-query-recovery")).toContainEqual(lost);
});

it("the history has the last 1000 jobs", async () => {
  const { client, journal, again } = await started();
  await ok(client, "block-stream", { "job-id": "s", device: "top" });
  await client.clock.advance(5000);
  const [ended] = journal.record.history;
  const history = Array.from({ length: 1005 }, (_, i) => ({ ...ended, id: `j${i}` }));
  journal.text = JSON.stringify({ ...journal.record, history });
  const next = await again();
  const ids = async () =>
    ((await ok(next.client, "x-query-job-history")) as { id: string }[]).map(({ id }) => id);
  // The last one first.
  expect((await ids()).at(-1)).toBe("j5");
  await ok(next.client, "block-stream", { "job-id": "c", device: "top" });
  await next.clock.advance(5000);
  const now = await ids();
  expect([now.length, now[0], now.at(-1)]).toEqual([1000, "c", "j6"]);
});
