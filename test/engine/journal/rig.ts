/**
 * Engines that are lost and come back over stores that stay: recorded files (test/crash/recorder.ts), and
 * a journal that is kept as text. The test says what a lost engine leaves.
 */

import { seededRandom } from "../../../src/base/random.ts";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
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
): Promise<{ engine: Engine; clock: VirtualClock; client: Conversation }> {
  const clock = new VirtualClock();
  const engine = await createEngine({
    clock,
    random: seededRandom(seed),
    kernelBytes: kernelBytes(),
    drivers: [...browserDrivers(new Map()), recordedDriver(recorder, seededRandom(seed))],
    ...(journal && { journal: await openJournal(journal) }),
    onStopped: (why) => {
      throw why;
    },
  });
  await clock.runUntil(engine.recover());
  const client = await new Conversation({ engine, clock }).negotiated();
  return { engine, clock, client };
}
