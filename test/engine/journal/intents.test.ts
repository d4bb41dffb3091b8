/** Write intents in a whole engine: what a lost one has left is taken up by the next. */

import { expect, it } from "vitest";
import { MiB } from "../../../src/base/bytes.ts";
import { sleep } from "../../../src/base/clock.ts";
import { seededRandom } from "../../../src/base/random.ts";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import * as io from "../../../src/block/io.ts";
import { browserDrivers } from "../../../src/drivers/index.ts";
import { createEngine } from "../../../src/engine/engine.ts";
import { openJournal } from "../../../src/engine/journal/store.ts";
import { MemoryIntentStore } from "../../block/intent-store.ts";
import { Recorder, recordedDriver } from "../../crash/recorder.ts";
import { kernelBytes } from "../../kernel/load.ts";
import { Conversation } from "../../qmp/conversation.ts";
import { MemoryJournal } from "./rig.ts";

const SIZE = 6 * MiB;

async function startEngine(recorder: Recorder, journal: MemoryJournal, intents: MemoryIntentStore) {
  const clock = new VirtualClock();
  const engine = await createEngine({
    clock,
    random: seededRandom(1),
    kernelBytes: kernelBytes(),
    drivers: [...browserDrivers(new Map()), recordedDriver(recorder, seededRandom(1))],
    journal: await openJournal(journal, intents),
  });
  await clock.runUntil(engine.recover());
  const client = await new Conversation({ engine, clock }).negotiated();
  const write = (node: string, offset: number) =>
    clock.runUntil(io.write(engine.graph.get(node), new Uint8Array(512).fill(7), offset, {}));
  const ok = async (name: string, args?: object): Promise<unknown> => {
    const reply = await client.execute(name, args);
    expect(reply).toHaveProperty("return");
    return reply.return;
  };
  return { engine, clock, ok, write };
}

async function first() {
  const recorder = new Recorder();
  for (const name of ["disk", "copy"]) recorder.add(name, new Uint8Array(SIZE).fill(1));
  recorder.add("image");
  const journal = new MemoryJournal();
  const intents = new MemoryIntentStore();
  const t = await startEngine(recorder, journal, intents);
  for (const name of ["disk", "copy"]) {
    await t.ok("blockdev-add", {
      driver: "raw",
      "node-name": name,
      file: { driver: "recorded", filename: name },
    });
  }
  return { ...t, again: () => startEngine(recorder, journal, intents), recorder, journal, intents };
}

it("M03 a mirror copies what it had not, under its id", async () => {
  const t = await first();
  const options = { "job-id": "m", device: "disk", target: "copy", sync: "full" };
  await t.ok("blockdev-mirror", options);
  await t.clock.advance(5000);
  await t.write("disk", 3 * MiB);
  const next = await t.again();
  await next.clock.advance(1000);
  const [job] = (await next.ok("query-block-jobs")) as [{ len: number; ready: boolean }];
  expect(job).toMatchObject({ device: "m", ready: true });
  expect(job.len).toBeLessThan(MiB);
});

it("M08 a backup goes on with its moment", async () => {
  const t = await first();
  const options = { "job-id": "b", device: "disk", target: "copy", sync: "full", speed: MiB };
  await t.ok("blockdev-backup", options);
  await t.clock.advance(1500);
  const before = t.recorder.bytesOf("disk").slice();
  // Past the filter's node: what a guest does.
  const [filter] = t.engine.graph.nodes.filter(({ driver }) => driver.name === "copy-before-write");
  await t.write(filter!.name, 5 * MiB);
  const next = await t.again();
  await next.clock.advance(20_000);
  expect(await next.ok("x-query-job-history")).toMatchObject([{ id: "b", outcome: "completed" }]);
  expect(Buffer.compare(t.recorder.bytesOf("copy"), before)).toBe(0);
  expect(t.recorder.bytesOf("disk")[5 * MiB]).toBe(7);
});

it("a backup that is done is told as completed, wherever the engine is lost between its two records", async () => {
  const t = await first();
  /** What a loss would leave, before each save of either record. */
  const moments: { journal: string | null; intents: string | null }[] = [];
  const note = () => moments.push({ journal: t.journal.text, intents: t.intents.text });
  // A save takes its time, in which the job gets on as far as it may.
  const slowly = async () => {
    note();
    await sleep(t.clock, 10);
  };
  t.journal.before = slowly;
  t.intents.before = slowly;
  // Whoever asks anything has a record made: so one is on its way when the job comes to its end.
  const curious = t.engine.openMonitor(() => {});
  curious.receive({ execute: "qmp_capabilities" });
  const { apply } = t.recorder;
  t.recorder.apply = (entry) => {
    apply.call(t.recorder, entry);
    curious.receive({ execute: "query-version" });
  };
  await t.ok("blockdev-backup", { "job-id": "b", device: "disk", target: "copy", sync: "full" });
  await t.clock.advance(20_000);
  note();
  t.recorder.apply = apply;
  t.journal.before = async () => {};
  t.intents.before = null;
  expect(t.intents.record?.records).toEqual({});
  const begun = moments.findIndex(({ journal }) => journal?.includes('"kind":"backup"'));
  expect(begun).toBeGreaterThanOrEqual(0);
  for (const left of moments.slice(begun)) {
    t.journal.text = left.journal;
    t.intents.text = left.intents;
    const next = await t.again();
    await next.clock.advance(20_000);
    const history = await next.ok("x-query-job-history");
    expect(history, JSON.stringify(left)).toMatchObject([{ id: "b", outcome: "completed" }]);
  }
});
