/** The journal's record in a file on Node. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FileJournal } from "../../../src/engine/node-journal.ts";
import { journalSuite } from "../../conformance/journal.ts";

journalSuite("a file", async () => {
  const folder = mkdtempSync(join(tmpdir(), "blocktab-journal-"));
  return {
    open: () => new FileJournal(join(folder, "journal.json")),
    end: async () => rmSync(folder, { recursive: true }),
  };
});
