/** The journal's record in a file of a real OPFS. */

import { removeOpfs } from "../../../src/drivers/protocol/opfs.ts";
import { type SlotFile, SlotStore } from "../../../src/engine/journal/slot-store.ts";
import { journalSuite } from "../../conformance/journal.ts";
import { startWorker } from "../protocol/drivers.ts";

const drivers = startWorker();
let count = 0;

journalSuite("OPFS", async () => {
  const filename = `record-${++count}`;
  await drivers.create("opfs", { filename, size: 0 });
  const open = async () => (await drivers.open("opfs", { filename }, false)) as SlotFile;
  return { open: () => new SlotStore(open), end: () => removeOpfs(filename) };
});
