/** A store of write intents in memory, that outlives engines, and can be slow and broken. */

import { BlockError } from "../../src/base/errors.ts";
import type { IntentStore, IntentsRecord } from "../../src/block/write-intents.ts";

export class MemoryIntentStore implements IntentStore {
  /** As JSON: what is on record now. */
  text: string | null = null;
  saves = 0;
  /** The next saves fail with it. */
  failure: BlockError | null = null;
  /** Called before each save takes place; may wait. */
  before: (() => Promise<void>) | null = null;

  get record(): IntentsRecord | null {
    return this.text === null ? null : JSON.parse(this.text);
  }

  async load(): Promise<unknown> {
    return this.record ?? undefined;
  }

  async save(record: IntentsRecord): Promise<void> {
    const text = JSON.stringify(record);
    this.saves++;
    await this.before?.();
    if (this.failure) throw this.failure;
    const found = this.record?.epoch ?? 0;
    if (found > record.epoch) {
      throw new BlockError("ESTALE", `The epoch is ${found}, not ${record.epoch}`);
    }
    this.text = text;
  }
}
