/**
 * Jobs whose target is given as a file (QEMU: qapi/block-core.json). A file's name is "store:name",
 * opfs:copy.qcow2 for example, or a name alone in the store of the source's own file.
 */

import * as v from "valibot";
import { driveBackupAction } from "../../blockjob/backup-action.ts";
import { closeDriveTarget, type DriveTarget, openDriveTarget } from "../../blockjob/drive.ts";
import { startMirror } from "../../blockjob/mirror.ts";
import { runTransaction } from "../../blockjob/transaction.ts";
import { command, nothing } from "../schema.ts";
import { backupCommon, backupOptions } from "./block-backup.ts";
import { mirrorCommon, mirrorOptions } from "./block-mirror.ts";

const driveArgs = {
  target: v.string(),
  /** Default: the source's. */
  format: v.optional(v.string()),
  /** existing: the file is there. Default absolute-paths: it is made, or emptied. */
  mode: v.optional(v.picklist(["existing", "absolute-paths"])),
};

interface DriveArgs {
  readonly target: string;
  readonly format?: string | undefined;
  readonly mode?: "existing" | "absolute-paths" | undefined;
}

export function driveTarget({ target, format, mode }: DriveArgs): Omit<DriveTarget, "sync"> {
  return { file: target, format, mode };
}

export const driveBackup = command({
  name: "drive-backup",
  doc: "Starts a job that copies a disk as it is now to an image file, while it is written to.",
  deprecated: true,
  args: { ...backupCommon, ...driveArgs },
  returns: nothing,
  isOnce: true,
  alone: true,
  async run(context, args) {
    await runTransaction([driveBackupAction(context, backupOptions(args), driveTarget(args))]);
    return {};
  },
});

export const driveMirror = command({
  name: "drive-mirror",
  doc: "Starts a job that makes an image file the same as a disk, and keeps it so until it ends.",
  args: {
    ...mirrorCommon,
    ...driveArgs,
    /** The target's. */
    "node-name": v.optional(v.string()),
    /** Zeroes may free what they cover in the target; default true. */
    unmap: v.optional(v.boolean()),
  },
  returns: nothing,
  isOnce: true,
  alone: true,
  async run(context, args) {
    const { graph } = context;
    const source = graph.getDeviceOrNode(args.device);
    const target = await openDriveTarget(graph, source, {
      ...driveTarget(args),
      nodeName: args["node-name"],
      sync: args.sync,
    });
    try {
      await startMirror(context, {
        ...mirrorOptions(args),
        target: target.name,
        unmap: args.unmap,
        backingMode: args.mode === "existing" ? "leave" : "source",
      });
    } catch (error) {
      await closeDriveTarget(graph, target);
      throw error;
    }
    return {};
  },
});
