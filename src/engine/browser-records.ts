/**
 * Where a browser's worker keeps records: the journal, write intents, domains.
 *
 * In files of OPFS, as the images are. Not in IndexedDB, if there is a choice: Chromium may find all of it damaged
 * after a browser has been killed twice, and begins anew with nothing then. (Its LevelDB goes on behind the torn
 * end of a log, cannot read past that the next time, and what cannot be read is deleted. Seen in Chromium 156;
 * test/e2e/torn-log.test.ts.) What an older version has left there is found, and taken away as soon as it is on
 * record here: later it would be out of date, and nothing would tell.
 */

import { SystemClock } from "../base/clock.ts";
import { BlockError } from "../base/errors.ts";
import type { IntentStore } from "../block/write-intents.ts";
import { openOpfsFile } from "../drivers/protocol/opfs.ts";
import { IndexeddbJournal } from "./idb-journal.ts";
import { SlotStore } from "./journal/slot-store.ts";
import type { JournalStore } from "./journal/store.ts";

/** In the root of OPFS. */
const DIRECTORY = "blocktab-records";

export type RecordStore = JournalStore & IntentStore;

/**
 * @param name of the record, e.g. "journal"
 * @throws BlockError if there is OPFS, and it does not let the record be opened
 */
export async function openRecord(name: string): Promise<RecordStore> {
  const old = new IndexeddbJournal(`blocktab:${name}`);
  const clock = new SystemClock();
  const open = () => openOpfsFile(DIRECTORY, name, clock);
  try {
    await (await open()).close();
  } catch (error) {
    // As with images: nothing can be written in place here.
    const isHere = !(error instanceof BlockError) || !["ENOTSUP", "EACCES"].includes(error.errno);
    if (isHere) throw error;
    return old;
  }
  const store = new SlotStore(open);
  let isMoved = false;
  return {
    words: old.words,
    load: async () => {
      const found = await store.load();
      return found === undefined ? old.load() : found;
    },
    async save(record) {
      await store.save(record);
      if (isMoved) return;
      await old.clear();
      isMoved = true;
    },
  };
}
