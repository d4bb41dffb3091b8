/**
 * A disk gets other content while a job of it cannot go on, as its target is away: what is on record of the
 * job does not hold any more, and when the target is back that is known.
 */

import { expect, it } from "vitest";
import { MiB } from "../../../src/base/bytes.ts";
import * as io from "../../../src/block/io.ts";
import { MemoryIntentStore } from "../../block/intent-store.ts";
import { Recorder } from "../../crash/recorder.ts";
import type { Conversation } from "../../qmp/conversation.ts";
import { MemoryJournal, startEngine } from "./rig.ts";

const SNAPSHOT = { tag: "s", vmstate: "disk", devices: ["disk"] };

const ok = async (client: Conversation, name: string, args?: object) => {
  const reply = await client.execute(name, args);
  expect(reply).toHaveProperty("return");
  return reply.return;
};

async function write(client: Conversation, value: number, node = "disk"): Promise<void> {
  const { graph } = client.engine;
  await client.clock.runUntil(io.write(graph.get(node), new Uint8Array(512).fill(value), 0, {}));
}

async function firstByte({ engine, clock }: Conversation, node: string): Promise<number> {
  const found = new Uint8Array(1);
  await clock.runUntil(io.read(engine.graph.get(node), found, 0, {}));
  return found[0]!;
}

async function makeDisk(
  client: Conversation,
  recorder: Recorder,
  name: string,
  backing: string | null = null,
): Promise<void> {
  recorder.add(name);
  const file = { driver: "recorded", filename: name };
  const labels = backing !== null && { "backing-file": backing, "backing-fmt": "qcow2" };
  const options = { driver: "qcow2", size: 4 * MiB, file, ...labels };
  await ok(client, "blockdev-create", { "job-id": "make", options });
  await ok(client, "job-dismiss", { id: "make" });
  await ok(client, "blockdev-add", { driver: "qcow2", "node-name": name, file, backing });
}

/** The disk's snapshot has ones, it itself has twos; the job has begun, and its engine and its target are lost. */
async function afterLoss(command: string) {
  const recorder = new Recorder();
  const stores = [new MemoryJournal(), new MemoryIntentStore()] as const;
  const { client } = await startEngine(recorder, stores[0], 1, stores[1]);
  for (const name of ["disk", "copy"]) await makeDisk(client, recorder, name);
  await write(client, 1);
  await ok(client, "snapshot-save", { "job-id": "save", ...SNAPSHOT });
  await client.clock.advance(1000);
  await write(client, 2);
  const options = { "job-id": "j", device: "disk", target: "copy", sync: "full" };
  await ok(client, command, { ...options, ...(command === "blockdev-backup" && { speed: 65536 }) });
  await client.clock.advance(10_000);
  const copy = recorder.remove("copy");
  const next = await startEngine(recorder, stores[0], 1, stores[1]);
  return { ...next, recorder, putBack: () => recorder.add("copy", copy) };
}

it("a mirror whose source has loaded a snapshot meanwhile begins anew", async () => {
  const { client, clock, putBack } = await afterLoss("blockdev-mirror");
  await ok(client, "snapshot-load", { "job-id": "load", ...SNAPSHOT });
  await clock.advance(1000);
  expect(await firstByte(client, "disk")).toBe(1);
  putBack();
  await ok(client, "x-recovery-retry");
  await clock.advance(10_000);
  const jobs = await ok(client, "query-jobs");
  expect(jobs).toContainEqual(expect.objectContaining({ id: "j", status: "ready" }));
  expect(await firstByte(client, "copy")).toBe(1);
});

it("a backup whose source has loaded a snapshot meanwhile has lost its moment, and says so", async () => {
  const { client, clock, putBack } = await afterLoss("blockdev-backup");
  await ok(client, "snapshot-load", { "job-id": "load", ...SNAPSHOT });
  await clock.advance(1000);
  putBack();
  await ok(client, "x-recovery-retry");
  await clock.advance(200_000);
  const [job] = (await ok(client, "x-query-job-history")) as object[];
  expect(job).toMatchObject({ id: "j", outcome: "failed" });
  expect(job).toHaveProperty("error", expect.stringMatching("moment of the backup is lost"));
});

it("a mirror whose source was written by a node that came to it from another image begins anew", async () => {
  const { client, clock, recorder, putBack } = await afterLoss("blockdev-mirror");
  await makeDisk(client, recorder, "other");
  await write(client, 4, "other");
  await ok(client, "blockdev-del", { "node-name": "disk" });
  const file = { driver: "recorded", filename: "disk" };
  await ok(client, "blockdev-add", { ...file, "node-name": "file" });
  const options = [{ driver: "qcow2", "node-name": "other", file: "file" }];
  await ok(client, "blockdev-reopen", { options });
  await write(client, 3, "other");
  await ok(client, "blockdev-del", { "node-name": "other" });
  await ok(client, "blockdev-del", { "node-name": "file" });
  await ok(client, "blockdev-add", { driver: "qcow2", "node-name": "disk", file });
  putBack();
  await ok(client, "x-recovery-retry");
  await clock.advance(10_000);
  const jobs = await ok(client, "query-jobs");
  expect(jobs).toContainEqual(expect.objectContaining({ id: "j", status: "ready" }));
  expect(await firstByte(client, "copy")).toBe(3);
});

it("a mirror of the top layer that begins anew leaves nothing in the target that is not in the source any more", async () => {
  const recorder = new Recorder();
  const stores = [new MemoryJournal(), new MemoryIntentStore()] as const;
  const { client } = await startEngine(recorder, stores[0], 1, stores[1]);
  await makeDisk(client, recorder, "base");
  await write(client, 1, "base");
  await client.clock.runUntil(io.flush(client.engine.graph.get("base")));
  for (const name of ["disk", "copy"]) await makeDisk(client, recorder, name, "base");
  await ok(client, "snapshot-save", { "job-id": "save", ...SNAPSHOT });
  await client.clock.advance(1000);
  await write(client, 2);
  const options = { "job-id": "j", device: "disk", target: "copy", sync: "top" };
  await ok(client, "blockdev-mirror", options);
  await client.clock.advance(10_000);
  expect(await firstByte(client, "copy")).toBe(2);
  const copy = recorder.remove("copy");
  const next = await startEngine(recorder, stores[0], 1, stores[1]);
  await ok(next.client, "snapshot-load", { "job-id": "load", ...SNAPSHOT });
  await next.clock.advance(1000);
  expect(await firstByte(next.client, "disk")).toBe(1);
  recorder.add("copy", copy);
  await ok(next.client, "x-recovery-retry");
  await next.clock.advance(10_000);
  const jobs = await ok(next.client, "query-jobs");
  expect(jobs).toContainEqual(expect.objectContaining({ id: "j", status: "ready" }));
  expect(await firstByte(next.client, "copy")).toBe(1);
});
