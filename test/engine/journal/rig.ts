/**
 * Engines that are lost and come back over stores that stay: recorded files (test/crash/recorder.ts), and
 * a journal that is kept as text. The test says what a lost engine leaves.
 */

import { expect } from "vitest";
import { KiB } from "../../../src/base/bytes.ts";
import { seededRandom } from "../../../src/base/random.ts";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import type { IntentStore } from "../../../src/block/write-intents.ts";
import { browserDrivers } from "../../../src/drivers/index.ts";
import { createEngine, type Engine } from "../../../src/engine/engine.ts";
import type { JournalRecord } from "../../../src/engine/journal/record.ts";
import { checkEpoch, type JournalStore, openJournal } from "../../../src/engine/journal/store.ts";
import { type Recorder, recordedDriver } from "../../crash/recorder.ts";
import { kernelBytes } from "../../kernel/load.ts";
import { Conversation } from "../../qmp/conversation.ts";

/** Keeps what was saved, as text. */
export class MemoryJournal implements JournalStore {
  text: string | null = null;
  /** Called when a save begins; it counts when that has resolved. */
  before: (record: JournalRecord) => Promise<void> = async () => {};
  /** Called when it counts. */
  after: (text: string) => void = () => {};

  async load(): Promise<unknown> {
    return this.text === null ? undefined : JSON.parse(this.text);
  }

  async save(record: JournalRecord): Promise<void> {
    await this.before(record);
    checkEpoch(await this.load(), record);
    this.text = JSON.stringify(record);
    this.after(this.text);
  }

  get record(): JournalRecord {
    return JSON.parse(this.text ?? "null");
  }
}

/** An engine, recovered; its clock and a client that has negotiated. */
export async function startEngine(
  recorder: Recorder,
  journal: JournalStore | null,
  seed = 1,
  intents?: IntentStore,
): Promise<{ engine: Engine; clock: VirtualClock; client: Conversation }> {
  const clock = new VirtualClock();
  const engine = await createEngine({
    clock,
    random: seededRandom(seed),
    kernelBytes: kernelBytes(),
    drivers: [...browserDrivers(new Map()), recordedDriver(recorder, seededRandom(seed))],
    ...(journal && { journal: await openJournal(journal, intents) }),
  });
  await clock.runUntil(engine.recover());
  const client = await new Conversation({ engine, clock }).negotiated();
  return { engine, clock, client };
}

/** base ← top, and target, in recorded files, opened as a user would, with an export. */
export async function disks(client: Conversation, recorder: Recorder): Promise<void> {
  for (const name of ["base", "top", "target"]) {
    recorder.add(name);
    const file = { driver: "recorded", filename: name };
    const options = { driver: "qcow2", size: 256 * KiB, file };
    await client.execute("blockdev-create", { "job-id": `make-${name}`, options });
    await client.execute("job-dismiss", { id: `make-${name}` });
  }
  const file = (filename: string) => ({ driver: "recorded", filename });
  await fillBase(client, file("base"));
  await client.execute("blockdev-add", {
    driver: "qcow2",
    "node-name": "top",
    file: file("top"),
    backing: { driver: "qcow2", "node-name": "base", file: file("base"), backing: null },
  });
  await client.execute("blockdev-add", {
    driver: "qcow2",
    "node-name": "target",
    file: file("target"),
  });
  const reply = await client.execute("block-export-add", {
    type: "message-port",
    id: "vda",
    "node-name": "top",
    writable: true,
  });
  expect(reply).toHaveProperty("return");
}

async function fillBase(client: Conversation, file: object): Promise<void> {
  await client.execute("blockdev-add", { driver: "qcow2", "node-name": "base", file });
  const type = { type: "message-port", id: "fill", "node-name": "base", writable: true };
  await client.execute("block-export-add", type);
  const { backend } = client.engine.exports.get("fill");
  await client.clock.runUntil(backend.write(new Uint8Array(256 * KiB).fill(7), 0));
  await client.execute("block-export-del", { id: "fill" });
  await client.execute("blockdev-del", { "node-name": "base" });
}
