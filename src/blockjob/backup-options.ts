/**
 * What blockdev-backup takes, and which of it fits together (QEMU: do_backup_common() in blockdev.c,
 * backup_job_create() in block/backup.c). Nothing here changes anything.
 */

import { MiB } from "../base/bytes.ts";
import { BlockError } from "../base/errors.ts";
import { checkMinClusterSize, copyClusterSize } from "../block/block-copy.ts";
import type { DirtyBitmap } from "../block/dirty-bitmap.ts";
import type { Graph } from "../block/graph.ts";
import * as io from "../block/io.ts";
import type { BlockNode } from "../block/node.ts";
import { skipFilters } from "../block/status.ts";
import type { OnCbwError } from "../drivers/filter/copy-before-write.ts";
import { nodesBetween } from "./commit-plan.ts";
import type { OnErrorPolicy } from "./on-error.ts";

/**
 * full          all of the disk
 * top           what the source's own layer holds
 * none          nothing but what guests are about to overwrite, until the job is cancelled
 * bitmap        what the bitmap says
 * incremental   the same, with bitmap mode on-success
 */
export const BACKUP_SYNCS = ["full", "top", "none", "bitmap", "incremental"] as const;
export type BackupSync = (typeof BACKUP_SYNCS)[number];

/**
 * What becomes of the bitmap at the end:
 *
 *                 success                   failure, cancel
 *   on-success    writes since the start    as it was, and those writes
 *   never         as it was, and writes     the same
 *   always        writes since the start    those, and what was not copied
 */
export const BITMAP_MODES = ["on-success", "never", "always"] as const;
export type BitmapMode = (typeof BITMAP_MODES)[number];

export interface BackupOptions {
  readonly jobId?: string | undefined;
  /** Name of a device or node. */
  readonly device: string;
  /** Name of a device or node. */
  readonly target: string;
  readonly sync: BackupSync;
  readonly bitmap?: string | undefined;
  readonly bitmapMode?: BitmapMode | undefined;
  readonly compress?: boolean | undefined;
  readonly speed?: number | undefined;
  readonly onSourceError?: OnErrorPolicy | undefined;
  readonly onTargetError?: OnErrorPolicy | undefined;
  readonly onCbwError?: OnCbwError | undefined;
  readonly discardSource?: boolean | undefined;
  readonly filterNodeName?: string | undefined;
  /** Copies at a time, >= 1. Default 64. */
  readonly maxWorkers?: number | undefined;
  /** Bytes of one copy; 0: 1 MiB, which is the most in any case. */
  readonly maxChunk?: number | undefined;
  /** Bytes, a power of two; 0: as the target likes it. */
  readonly minClusterSize?: number | undefined;
  readonly autoFinalize?: boolean | undefined;
  readonly autoDismiss?: boolean | undefined;
  /** Of a backup that goes on: see backup-intent.ts. No command has it. */
  readonly intent?: string | undefined;
}

/** All that fits together, and whom it is about. */
export interface BackupPlan {
  readonly id: string;
  readonly source: BlockNode;
  readonly target: BlockNode;
  readonly sync: Exclude<BackupSync, "incremental">;
  readonly bitmap: DirtyBitmap | null;
  readonly bitmapMode: BitmapMode;
  readonly maxWorkers: number;
  readonly maxChunk: number;
}

const MAX_WORKERS = 64;

/**
 * @throws BlockError ENOENT (device, target, bitmap), EINVAL (what does not fit), EBUSY (bitmap, or
 *   another job), EROFS (bitmap, target), ENOTSUP (compression), EEXIST (id)
 */
export function planBackup(graph: Graph, options: BackupOptions): Omit<BackupPlan, "id"> {
  const source = graph.getDeviceOrNode(options.device);
  const target = graph.getDeviceOrNode(options.target);
  const { sync, bitmap, bitmapMode } = checkSync(source, options);
  bitmap?.checkUsable(bitmapMode === "never" ? "backup-never" : "backup");
  checkDisks(source, target);
  const { maxWorkers, maxChunk } = checkPerformance(target, options);
  if (options.compress && !io.canWriteCompressed(target)) {
    throw new BlockError("ENOTSUP", `Node '${target.name}' cannot hold compressed clusters`);
  }
  if (options.discardSource && source.readOnly) {
    throw new BlockError("EROFS", `Node '${source.name}' is read-only: nothing can be discarded`);
  }
  // A commit's filter may be below one of the user's: writers below that are none of ours to see.
  const data = skipFilters(source);
  for (const node of [...nodesBetween(source, data), data]) node.checkOperation("backup-source");
  target.checkOperation("backup-target");
  return { source, target, sync, bitmap, bitmapMode, maxWorkers, maxChunk };
}

/** The order in which QEMU finds mistakes shows where there are two. */
function checkSync(
  source: BlockNode,
  options: BackupOptions,
): Pick<BackupPlan, "sync" | "bitmap" | "bitmapMode"> {
  const { sync, bitmapMode } = options;
  const refuse = (text: string) => {
    throw new BlockError("EINVAL", text);
  };
  const isIncremental = sync === "incremental";
  if ((isIncremental || sync === "bitmap") && options.bitmap === undefined) {
    refuse(`'sync': '${sync}' needs a 'bitmap'`);
  }
  if (isIncremental && bitmapMode !== undefined && bitmapMode !== "on-success") {
    refuse(`With 'sync': 'incremental' the 'bitmap-mode' is 'on-success', not '${bitmapMode}'`);
  }
  const mode = isIncremental ? "on-success" : bitmapMode;
  const bitmap = options.bitmap === undefined ? null : findBitmap(source, options.bitmap);
  if (bitmap && mode === undefined) refuse("A 'bitmap' needs a 'bitmap-mode', too");
  if (!bitmap && mode !== undefined) refuse("'bitmap-mode' needs a 'bitmap'");
  if (bitmap && sync === "none") {
    refuse("'sync': 'none' leaves nothing meaningful in a 'bitmap'");
  }
  if (mode === "never" && sync !== "bitmap") {
    refuse(`With 'sync': '${sync}' and 'bitmap-mode': 'never' the 'bitmap' would have no effect`);
  }
  return { sync: isIncremental ? "bitmap" : sync, bitmap, bitmapMode: mode ?? "never" };
}

/** Of the device's own node, or of what is below its filters. @throws BlockError ENOENT */
function findBitmap(source: BlockNode, name: string): DirtyBitmap {
  for (let node = source; node.driver.kind === "filter"; node = io.fileOf(node).node) {
    const found = node.bitmaps.find(name);
    if (found) return found;
  }
  return skipFilters(source).bitmaps.get(name);
}

function checkDisks(source: BlockNode, target: BlockNode): void {
  if (source === target) {
    throw new BlockError("EINVAL", `Node '${source.name}' cannot be the target of its own backup`);
  }
  const [ours, theirs] = [io.getLength(source), io.getLength(target)];
  if (ours === theirs) return;
  throw new BlockError(
    "EINVAL",
    `A backup needs a target of the same size: node '${source.name}' has ${ours} bytes, ` +
      `node '${target.name}' has ${theirs}`,
  );
}

function checkPerformance(
  target: BlockNode,
  options: BackupOptions,
): Pick<BackupPlan, "maxWorkers" | "maxChunk"> {
  const { maxWorkers = MAX_WORKERS, maxChunk = 0, minClusterSize = 0 } = options;
  if (maxWorkers < 1 || maxWorkers > 0x7fffffff) {
    throw new BlockError("EINVAL", `'max-workers' expects 1 or more; got ${maxWorkers}`);
  }
  if (maxChunk < 0) {
    throw new BlockError("EINVAL", `'max-chunk' expects 0 or more; got ${maxChunk}`);
  }
  checkMinClusterSize(minClusterSize);
  const clusterSize = copyClusterSize(target, minClusterSize);
  if (maxChunk !== 0 && maxChunk < clusterSize) {
    throw new BlockError(
      "EINVAL",
      `'max-chunk' is ${maxChunk}, less than the ${clusterSize} bytes of one cluster`,
    );
  }
  return { maxWorkers, maxChunk: Math.min(maxChunk, Math.max(MiB, clusterSize)) };
}
