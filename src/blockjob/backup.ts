/**
 * backup: copies a disk as it is at one moment, the job's start, while guests go on writing.
 *
 *   before   guest ──▶ [source]
 *   while    guest ──▶ [copy-before-write] ──▶ [source]
 *                               └──▶ [target]
 *   after    guest ──▶ [source]      [target]   as the source was
 *
 * All that makes the moment happens in one drained section of the source: what guests had under way
 * is done and recorded, the bitmap is frozen, the filter is put in, and the job is started; nothing
 * is written in between. (QEMU: block/backup.c, blockdev.c.)
 */

import { assert } from "../base/errors.ts";
import { markForeign } from "../block/bitmap-intent.ts";
import type { BlockNode, OperationBlocker } from "../block/node.ts";
import { Perm } from "../block/permissions.ts";
import { distrustStored } from "../block/persistent-bitmaps.ts";
import { chainOf, skipFilters } from "../block/status.ts";
import {
  type CopyBeforeWrite,
  copyBeforeWriteDriver,
} from "../drivers/filter/copy-before-write.ts";
import type { JobDriver } from "../job/driver.ts";
import type { JobTxn } from "../job/txn.ts";
import { BackupIntent } from "./backup-intent.ts";
import { type BackupOptions, type BackupPlan, planBackup } from "./backup-options.ts";
import { BackupRun } from "./backup-run.ts";
import { BlockJob, type BlockJobServices } from "./block-job.ts";
import { standStill } from "./hold.ts";

export { BACKUP_SYNCS, type BackupOptions, BITMAP_MODES } from "./backup-options.ts";

import { checkSources } from "./preflight.ts";

/** A backup that is set up. Whoever has it starts it, or cancels its job. */
export interface CreatedBackup {
  readonly job: BlockJob;
  /** Resolves when the job stands still, at its first pause point: the source is drained. */
  start(): Promise<void>;
}

/**
 * Starts the job and returns it running.
 *
 * @throws BlockError as createBackup(); the graph and the bitmap are as before
 */
export async function startBackup(
  services: BlockJobServices,
  options: BackupOptions,
): Promise<BlockJob> {
  const { graph } = services;
  planBackup(graph, options); // Refused without anybody being held up.
  const source = await standStill(graph, options.device, "a backup about to start");
  try {
    const { job, start } = await createBackup(services, options);
    await start();
    return job;
  } finally {
    await source.end();
  }
}

/**
 * Sets everything up but for the start. To be called in a drained section of the source, which ends
 * after start(): the moment of the copy is when this is called.
 *
 * @param txn the group to end with
 * @throws BlockError ENOENT (device, target, bitmap), EINVAL (what does not fit), EBUSY (bitmap, or
 *   another job), EROFS (bitmap, target), EPERM (permission conflict), ENOTSUP (compression), EEXIST
 *   (id); the graph and the bitmap are as before
 */
export async function createBackup(
  services: BlockJobServices,
  options: BackupOptions,
  txn?: JobTxn,
): Promise<CreatedBackup> {
  const { graph } = services;
  const checked = planBackup(graph, options);
  const id = options.jobId ?? (graph.find(options.device) ? "" : options.device);
  services.jobs.checkId(id);
  const plan: BackupPlan = { ...checked, id };

  // Others have their turn while the filter is opened: from now on target and bitmap are ours.
  const claim: OperationBlocker = { reason: "block device is in use by block job: backup" };
  plan.target.blockers.add(claim);
  plan.bitmap?.createSuccessor();
  try {
    await checkSources(chainOf(plan.source));
    // A failure gives it marks of what was not copied: markForeign() in endBitmap().
    const { bitmap, bitmapMode, source } = plan;
    if (bitmap && bitmapMode === "always") await distrustStored(skipFilters(source), bitmap);
    const { node, filter } = await insertFilter(services, plan, options);
    try {
      const intent = await BackupIntent.begin(plan, filter, options);
      const backup = { plan, services, node, filter, intent, again: options, isInserted: true };
      return await makeJob(services, backup, options, txn);
    } catch (error) {
      filter.guard?.end();
      await graph.removeFilter(node);
      throw error;
    }
  } catch (error) {
    plan.bitmap?.reclaim();
    throw error;
  } finally {
    plan.target.blockers.delete(claim);
  }
}

/** What starts it again, where its intent has kept its moment. */
export type BackupAgain = { readonly kind: "backup" } & BackupOptions;

interface Backup {
  readonly services: BlockJobServices;
  readonly plan: BackupPlan;
  /** The filter in the graph, and its inside. */
  readonly node: BlockNode;
  readonly filter: CopyBeforeWrite;
  /** null: its moment is lost with the engine. */
  readonly intent: BackupIntent | null;
  readonly again: BackupOptions;
  isInserted: boolean;
}

async function insertFilter(
  { graph }: BlockJobServices,
  { source, target, sync, bitmap }: BackupPlan,
  options: BackupOptions,
): Promise<Pick<Backup, "node" | "filter">> {
  let filter: CopyBeforeWrite | null = null;
  const discardSource = options.discardSource ?? false;
  const driver = copyBeforeWriteDriver({
    discardSource,
    opened(it) {
      filter = it;
      it.copy.compress = options.compress ?? false;
      it.copy.discardSource = discardSource;
      if (sync === "top") it.copy.inheritedFrom(backingNode(source));
      if (sync !== "bitmap") return;
      assert(bitmap, "sync 'bitmap' has one");
      it.copy.dirty.clear();
      it.copy.dirty.merge(bitmap);
    },
  });
  const node = await graph.insertFilter(
    {
      driver: driver.name,
      ...(options.filterNodeName !== undefined && { "node-name": options.filterNodeName }),
      target: target.name,
      "on-cbw-error": options.onCbwError ?? "break-guest-write",
      "min-cluster-size": options.minClusterSize ?? 0,
    },
    source,
    driver,
  );
  assert(filter, "the driver told of the filter that it opened");
  return { node, filter };
}

/** What the source inherits from, filters on it included; null if nothing. */
function backingNode(source: BlockNode): BlockNode | null {
  return skipFilters(source).children.get("backing")?.node ?? null;
}

/** Made, not started; or nothing is left of it. The filter stays the caller's. */
async function makeJob(
  services: BlockJobServices,
  backup: Backup,
  options: BackupOptions,
  txn: JobTxn | undefined,
): Promise<CreatedBackup> {
  const { plan, node, filter } = backup;
  const job = new BlockJob(services, {
    id: plan.id,
    driver: backupDriver(backup),
    onError: options.onSourceError ?? "report",
    onTargetError: options.onTargetError ?? "report",
    txn,
    autoFinalize: options.autoFinalize,
    autoDismiss: options.autoDismiss,
  });
  try {
    job.setSpeed(options.speed ?? 0);
    // With the read permission, unlike QEMU, so that the filter has a user from the first moment on
    // and keeps writers away from its source.
    job.addNode(node, { take: Perm.consistentRead, share: Perm.all });
    job.block(node);
    job.addNode(plan.target, { take: Perm.none, share: Perm.all });
    job.block(plan.target);
  } catch (error) {
    job.earlyFail();
    await job.releaseNodes();
    throw error;
  }
  const { progress } = job;
  progress.setRemaining(filter.copy.remaining);
  filter.copy.onTaskEnd = (bytes) => {
    progress.workDone(bytes);
    progress.setRemaining(filter.copy.remaining);
  };
  return {
    job,
    async start() {
      job.start();
      await job.quiet();
    },
  };
}

function backupDriver(backup: Backup): JobDriver {
  const { plan, filter } = backup;
  let run: BackupRun | null = null;
  return {
    type: "backup",

    async run(job) {
      run = new BackupRun(job as BlockJob, plan, filter, backup.intent);
      try {
        await run.run();
      } catch (error) {
        // Now, not in abort(): others of the group may come first, and wait for a guest of ours.
        filter.giveUp();
        throw error;
      }
    },

    async pause() {
      await run?.quiesce();
    },

    cancel() {
      filter.giveUp(); // A guest may wait for a copy to a target that does not answer.
      return true;
    },

    journal: () => again(backup),

    commit(job) {
      endBitmap(backup, true);
      // On record before clean() lets go of the moment: the next engine could not go on without it.
      job.hasTakenEffect = true;
    },
    abort: () => endBitmap(backup, false),

    async clean(job) {
      filter.copy.onTaskEnd = null;
      await dropFilter(backup);
      await (job as BlockJob).releaseNodes();
    },
  };
}

function again({ plan, intent, again: options }: Backup): BackupAgain {
  const { jobId: _id, speed: _speed, autoFinalize: _f, autoDismiss: _d, ...others } = options;
  return {
    ...others,
    kind: "backup",
    device: plan.source.name,
    target: plan.target.name,
    ...(intent && { intent: intent.id }),
  };
}

/** The bitmap's part of the end: see BITMAP_MODES. */
function endBitmap({ plan, filter }: Backup, isSuccess: boolean): void {
  const { bitmap, bitmapMode } = plan;
  if (!bitmap) return;
  const isUsed = bitmapMode === "always" || (bitmapMode === "on-success" && isSuccess);
  if (isUsed) bitmap.abdicate();
  else bitmap.reclaim();
  if (isSuccess || bitmapMode !== "always") return;
  filter.copy.addUncopied(bitmap);
  markForeign(skipFilters(plan.source), bitmap);
}

async function dropFilter(backup: Backup): Promise<void> {
  if (!backup.isInserted) return;
  backup.isInserted = false;
  backup.intent?.end();
  await backup.services.graph.removeFilter(backup.node);
}
