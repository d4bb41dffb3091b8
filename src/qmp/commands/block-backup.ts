/** Starts the backup job (QEMU: qapi/block-core.json). */

import * as v from "valibot";
import { size } from "../../base/check.ts";
import {
  BACKUP_SYNCS,
  type BackupOptions,
  BITMAP_MODES,
  startBackup,
} from "../../blockjob/backup.ts";
import { ON_ERROR_POLICIES } from "../../blockjob/on-error.ts";
import { ON_CBW_ERROR } from "../../drivers/filter/copy-before-write.ts";
import { command, int, nothing } from "../schema.ts";

/** What blockdev-backup and drive-backup have in common (QEMU: BackupCommon). */
export const backupCommon = {
  "job-id": v.optional(v.string()),
  /** Name of a device or node. */
  device: v.string(),
  sync: v.picklist(BACKUP_SYNCS),
  /** Bytes per second; 0 is unlimited. What guests' writes copy is not limited. */
  speed: v.optional(int),
  bitmap: v.optional(v.string()),
  "bitmap-mode": v.optional(v.picklist(BITMAP_MODES)),
  compress: v.optional(v.boolean()),
  "on-source-error": v.optional(v.picklist(ON_ERROR_POLICIES)),
  "on-target-error": v.optional(v.picklist(ON_ERROR_POLICIES)),
  "on-cbw-error": v.optional(v.picklist(ON_CBW_ERROR)),
  "discard-source": v.optional(v.boolean()),
  "auto-finalize": v.optional(v.boolean()),
  "auto-dismiss": v.optional(v.boolean()),
  "filter-node-name": v.optional(v.string()),
  "x-perf": v.optional(
    v.strictObject({
      /** There is no offloading here that could be used. */
      "use-copy-range": v.optional(v.boolean()),
      "max-workers": v.optional(int),
      "max-chunk": v.optional(int),
      "min-cluster-size": v.optional(size),
    }),
  ),
};

export type BackupCommonArgs = v.InferOutput<v.StrictObjectSchema<typeof backupCommon, undefined>>;

/** The arguments, as the job takes them. */
export function backupOptions(args: BackupCommonArgs): Omit<BackupOptions, "target"> {
  const perf = args["x-perf"] ?? {};
  return {
    jobId: args["job-id"],
    device: args.device,
    sync: args.sync,
    speed: args.speed,
    bitmap: args.bitmap,
    bitmapMode: args["bitmap-mode"],
    compress: args.compress,
    onSourceError: args["on-source-error"],
    onTargetError: args["on-target-error"],
    onCbwError: args["on-cbw-error"],
    discardSource: args["discard-source"],
    autoFinalize: args["auto-finalize"],
    autoDismiss: args["auto-dismiss"],
    filterNodeName: args["filter-node-name"],
    maxWorkers: perf["max-workers"],
    maxChunk: perf["max-chunk"],
    minClusterSize: perf["min-cluster-size"],
  };
}

export const blockdevBackup = command({
  name: "blockdev-backup",
  doc: "Starts a job that copies a disk as it is now to a node, while the disk is written to.",
  args: {
    ...backupCommon,
    /** Name of a device or node, of the same size. */
    target: v.string(),
  },
  returns: nothing,
  alone: true,
  async run(context, { target, ...args }) {
    await startBackup(context, { ...backupOptions(args), target });
    return {};
  },
});
