/** Exports, which are the devices of disks, and the way to the bytes of a backup of mode pull. */

import type { Operation } from "./operation.ts";
import { unlessNeedless } from "./start-job.ts";

/** @returns when it is gone, and holds its node no more */
export async function removeDevice(
  op: Operation,
  id: string,
  mode: "safe" | "hard",
): Promise<void> {
  const exports = await op.execute("query-block-exports");
  const found = exports.find((one) => one.id === id);
  if (!found) return;
  const events = op.host.qmp.events("BLOCK_EXPORT_DELETED");
  try {
    const remove = () => op.execute("block-export-del", { id, mode });
    // Hard, it is refused only if it is on its way already.
    if (!found["shutting-down"]) await (mode === "hard" ? unlessNeedless(remove()) : remove());
    await op.unlocked(async () => {
      const isThere = async () =>
        (await op.host.qmp.execute("query-block-exports")).some((one) => one.id === id);
      while (await isThere()) await events.next();
    });
  } finally {
    await events.return();
  }
}
