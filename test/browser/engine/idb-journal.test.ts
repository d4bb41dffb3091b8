/** The journal's record in a real IndexedDB. */

import { IndexeddbJournal } from "../../../src/engine/idb-journal.ts";
import { journalSuite } from "../../conformance/journal.ts";

let count = 0;

journalSuite("IndexedDB", async () => {
  const name = `blocktab:test-journal-${Date.now()}-${count++}`;
  return {
    open: () => new IndexeddbJournal(name),
    end: async () => void indexedDB.deleteDatabase(name),
  };
});
