/**
 * What clients of a pull see: an export for each disk, and where there are sockets an NBD server for them.
 *
 *     server ──▶ jobs ──▶ exports ──▶ clients      one that cannot start leaves nothing behind
 */

import type { BackupDefinition } from "./backup-definition.ts";
import { removeDevice } from "./devices.ts";
import { withMonitor } from "./locks/with-job.ts";
import type { Operation } from "./operation.ts";
import { type BackupDiskRecord, type BackupRecord, formatNode } from "./record.ts";
import { isRefused, unlessNeedless } from "./start-job.ts";

/** What clients are to see, by the NBD server or as devices. */
export type Shown = Pick<BackupRecord, "disks" | "serving">;

type Server = NonNullable<BackupDefinition["server"]>;

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
export async function serve(op: Operation, { disks, serving }: Shown): Promise<void> {
  for (const disk of disks) await show(op, disk, serving);
}

async function show(op: Operation, disk: BackupDiskRecord, isNbd: boolean): Promise<void> {
  const bitmaps = disk.bitmap && { bitmaps: [disk.bitmap] };
  await op.run("block-export-add", {
    type: isNbd ? "nbd" : "message-port",
    ...(isNbd && { name: disk.exportName, ...bitmaps }),
    id: disk.export,
    "node-name": formatNode(disk.store),
  });
}

/** The driver that began it was lost before all exports were there. */
export async function serveAgain(op: Operation, { disks, serving }: Shown): Promise<void> {
  const exports = await op.execute("query-block-exports");
  for (const disk of disks) {
    const isThere = exports.some(({ id }) => id === disk.export);
    if (disk.export === undefined || disk.state !== "running" || isThere) continue;
    try {
      await show(op, disk, serving);
    } catch (error) {
      // The server may be gone with its engine. What has been copied aside is there for whoever starts one.
      if (!isRefused(error)) throw error;
    }
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
