/**
 * What clients of a pull see: an export for each disk, and where there are sockets an NBD server for them.
 *
 *     server ──▶ jobs ──▶ exports ──▶ clients      one that cannot start leaves nothing behind
 */

import type { BackupDefinition } from "./backup-definition.ts";
import { removeDevice } from "./devices.ts";
import { withMonitor } from "./locks/with-job.ts";
import type { Operation } from "./operation.ts";
import { type BackupDiskRecord, type BackupRecord, formatNode, type Layer } from "./record.ts";
import { unlessNeedless } from "./start-job.ts";

type Server = NonNullable<BackupDefinition["server"]>;

/** What is shown of one disk. */
export interface Shown {
  readonly store: Layer;
  readonly record: BackupDiskRecord;
  /** What its clients see it as. */
  readonly exportName: string;
}

/**
 * Kept before the jobs begin: at the backup's end it is stopped, whoever is there then. Of a start that nobody has heard
 * the answer of nobody knows whether the server is ours or somebody else's: that one is left alone.
 *
 * @throws QmpError
 */
export async function startServer(op: Operation, server: Server): Promise<void> {
  await withMonitor(op.ctx, op.entry.object, async (qmp) => {
    await qmp.execute("nbd-server-start" as never, { addr: addressOf(server) } as never);
    // Before anything else: the domain may have been stopped meanwhile.
    op.record.backup!.serving = true;
  });
  await op.save();
}

function addressOf(server: Server): object {
  if (server.transport === "unix") return { type: "unix", data: { path: server.socket } };
  return { type: "inet", data: { host: server.name ?? "localhost", port: `${server.port}` } };
}

/** @throws QmpError */
export async function serve(
  op: Operation,
  parts: readonly Shown[],
  type: "nbd" | "message-port",
): Promise<void> {
  for (const { store, record, exportName } of parts) {
    const bitmaps = record.bitmap && { bitmaps: [record.bitmap] };
    await op.run("block-export-add", {
      type,
      ...(type === "nbd" && { name: exportName, ...bitmaps }),
      id: record.export,
      "node-name": formatNode(store),
    });
  }
}

/** Nobody reads from it any more. */
export async function stopServing(op: Operation, backup: BackupRecord): Promise<void> {
  for (const { export: id } of backup.disks)
    if (id !== undefined) await removeDevice(op, id, "hard");
  if (!backup.serving) return;
  // Somebody else may have stopped it, or the engine that had it may be gone.
  await unlessNeedless(op.execute("nbd-server-stop" as never, {} as never));
  backup.serving = false;
}
