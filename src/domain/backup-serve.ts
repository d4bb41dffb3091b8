/**
 * What clients of a pull see: an export for each disk, and where there are sockets an NBD server for them.
 *
 *     server ──▶ jobs ──▶ exports ──▶ clients      one that cannot start leaves nothing behind
 */

import type { BackupDefinition } from "./backup-definition.ts";
import { removeDevice } from "./devices.ts";
import { withMonitor } from "./locks/with-job.ts";
import type { Operation, Qmp } from "./operation.ts";
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
    // A record from before there were names of exports has none.
    ...(isNbd && { name: disk.exportName ?? disk.name, ...bitmaps }),
    id: disk.export,
    "node-name": formatNode(disk.store),
  });
}

/**
 * The driver that began it was lost before all exports were there, or their server is gone with its engine. What cannot
 * be shown is no reason to end the backup: what has been copied aside is there for whoever starts a server. So why is
 * kept, and told by warningOf().
 */
export async function serveAgain(op: Operation, { disks, serving }: Shown): Promise<void> {
  const exports = await op.execute("query-block-exports");
  for (const disk of disks) {
    if (disk.export === undefined || disk.state !== "running" || isShown(disk, exports)) continue;
    delete disk.unserved;
    try {
      await show(op, disk, serving);
    } catch (error) {
      if (!isRefused(error)) throw error;
      disk.unserved = (error as Error).message;
    }
  }
}

type Exports = readonly { readonly id: string; readonly "node-name": string }[];

/** The name alone may be somebody else's. */
function isShown(disk: BackupDiskRecord, exports: Exports): boolean {
  const node = formatNode(disk.store);
  return exports.some((one) => one.id === disk.export && one["node-name"] === node);
}

/** Of a backup that runs: what its clients should see and do not. */
export async function warningOf(qmp: Qmp, { disks }: BackupRecord): Promise<string | undefined> {
  const shown = disks.filter((disk) => disk.export !== undefined && disk.state === "running");
  if (shown.length === 0) return undefined;
  const exports = await qmp.execute("query-block-exports");
  const warnings = shown
    .filter((disk) => !isShown(disk, exports))
    .map(
      ({ name, unserved = "its export is not there" }) =>
        `Disk '${name}' is not served: ${unserved}`,
    );
  return warnings.length > 0 ? warnings.join("; ") : undefined;
}

/** Nobody reads from it any more. */
export async function stopServing(op: Operation, backup: BackupRecord): Promise<void> {
  const exports = await op.execute("query-block-exports");
  for (const disk of backup.disks) {
    if (isShown(disk, exports)) await removeDevice(op, disk.export!, "hard");
  }
  if (!backup.serving) return;
  // Somebody else may have stopped it, or the engine that had it may be gone.
  await unlessNeedless(op.execute("nbd-server-stop" as never, {} as never));
  backup.serving = false;
}
