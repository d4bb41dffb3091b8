/** Where a browser keeps records, and what becomes of those that an older version has kept elsewhere. */

import { expect, it } from "vitest";
import { removeOpfs } from "../../../src/drivers/protocol/opfs.ts";
import { IndexeddbJournal } from "../../../src/engine/idb-journal.ts";
import { emptyRecord, type JournalRecord } from "../../../src/engine/journal/record.ts";
import type { RecordRequest } from "./record-worker.ts";

const NAME = "test-moved";

it("a record of IndexedDB is found, and is in OPFS alone from the first save on", async () => {
  const worker = new Worker(new URL("./record-worker.ts", import.meta.url), { type: "module" });
  const ask = (save: JournalRecord | null) =>
    new Promise<unknown>((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = ({ message }) => reject(new Error(message));
      worker.postMessage({ name: NAME, save } satisfies RecordRequest);
    });
  const old = new IndexeddbJournal(`blocktab:${NAME}`);
  try {
    await old.save(emptyRecord(7));
    expect(await ask(null)).toEqual(emptyRecord(7));
    expect(await old.load()).toEqual(emptyRecord(7));
    expect(await ask(emptyRecord(8))).toEqual(emptyRecord(8));
    expect(await old.load()).toBeUndefined();
    expect(await ask(null)).toEqual(emptyRecord(8));
  } finally {
    worker.terminate();
    await removeOpfs(NAME, "blocktab-records");
    indexedDB.deleteDatabase(`blocktab:${NAME}`);
  }
});
