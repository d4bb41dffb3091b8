/** A dedicated worker, which alone may write records to OPFS: see browser-records.test.ts. */

import { openRecord } from "../../../src/engine/browser-records.ts";
import type { JournalRecord } from "../../../src/engine/journal/record.ts";

export interface RecordRequest {
  readonly name: string;
  /** null: it is loaded. */
  readonly save: JournalRecord | null;
}

addEventListener("message", async ({ data }: MessageEvent<RecordRequest>) => {
  const store = await openRecord(data.name);
  if (data.save) await store.save(data.save);
  postMessage(await store.load());
});
