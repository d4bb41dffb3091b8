/**
 * backupBegin(): a domain's disks as they were at one moment, all of them at the same one.
 *
 *     push   [vda] ══▶ [target]                         the engine writes it; ends by itself
 *     pull   [vda] ──▶ [scratch] ◀── export ◀── client  what is about to be overwritten is kept; the client
 *                                                       reads, and calls abortJob() when it is done
 *
 * The jobs of all disks, and the bitmaps of a checkpoint made with them, begin in one transaction. It is one job of
 * the domain, beside which the others go on.
 */

import type { BackupDefinition, BackupDiskDefinition } from "./backup-definition.ts";
import { chooseDisks } from "./backup-disks.ts";
import { type Shown, serve, startServer, stopServing } from "./backup-serve.ts";
import {
  addAction,
  bitmapChain,
  findBitmap,
  mergeAction,
  queryBitmaps,
  removeBitmaps,
  runTransaction,
  type TransactionAction,
} from "./bitmaps.ts";
import { checkNoLayer, nodesOf } from "./chain.ts";
import { checkpointActions } from "./checkpoint.ts";
import { type CheckpointDefinition, newCheckpoint } from "./checkpoint-definition.ts";
import { DomainError } from "./errors.ts";
import { BACKUP_BEGIN } from "./flags.ts";
import { adopt, closeNodes, discardImages, makeImage, openImage, sizeOf } from "./images.ts";
import type { Operation } from "./operation.ts";
import {
  type BackupDiskRecord,
  type BackupRecord,
  type DiskRecord,
  formatNode,
  type JobRecord,
  type Layer,
} from "./record.ts";
import { fromPath, pathOf, type Source } from "./source.ts";
import { isRefused, millisecondsOf, newJob, unlessNeedless } from "./start-job.ts";

/** What one disk's part needs. */
interface Part {
  readonly disk: DiskRecord;
  readonly incremental: string | undefined;
  readonly store: Layer;
  readonly job: JobRecord;
  readonly record: BackupDiskRecord;
}

export interface BackupOptions {
  readonly backup: BackupDefinition;
  readonly checkpoint: CheckpointDefinition | null;
  /** Of BACKUP_BEGIN. */
  readonly flags: number;
}

/** Within the domain's async job. @throws DomainError, QmpError; then nothing has begun, and no checkpoint */
export async function begin(op: Operation, options: BackupOptions): Promise<void> {
  const { backup, flags } = options;
  const { mode = "push" } = backup;
  if (op.record.backup) throw new DomainError("OPERATION_INVALID", "There is a backup already");
  const chosen = chooseDisks(op, backup);
  const checkpoint = options.checkpoint && newCheckpoint(op, options.checkpoint);
  const seconds = op.host.clock.timestamp().seconds;
  const suffix = checkpoint?.name ?? `${seconds}`;
  const parts: Part[] = [];
  const made: Layer[] = [];
  const undo = async () => {
    await closeNodes(op, nodesOf(parts.map(({ store }) => store)));
    await discardImages(op, made);
  };
  try {
    for (const definition of chosen) {
      const part = await prepare(op, { definition, backup, flags, suffix });
      if (!(flags & BACKUP_BEGIN.REUSE_EXTERNAL)) made.push(part.store);
      parts.push(part);
    }
    const actions: TransactionAction[] = checkpoint ? checkpointActions(op, checkpoint) : [];
    const table = await queryBitmaps(op);
    for (const part of parts) actions.push(...actionsOf(part, table, mode));
    const record: BackupRecord = {
      serial: op.newSerial(),
      mode,
      flags,
      started: millisecondsOf(op.host.clock),
      ...(backup.incremental !== undefined && { incremental: backup.incremental }),
      ...(backup.server && { server: backup.server }),
      serving: false,
      disks: parts.map((part) => part.record),
    };
    op.record.backup = record;
    op.record.jobs.push(...parts.map(({ job }) => job));
    // Whoever finds it so looks for its bitmaps: if there are none it was never made.
    if (checkpoint) op.record.checkpoints.push(Object.assign(checkpoint, { pending: true }));
    adopt(
      op,
      parts.map(({ store }) => store),
    );
    const forget = () => {
      const mine = new Set(parts.map(({ job }) => job));
      op.record.jobs = op.record.jobs.filter((job) => !mine.has(job));
      op.record.backup = null;
      op.record.checkpoints = op.record.checkpoints.filter((one) => one !== checkpoint);
    };
    try {
      await op.save();
      if (backup.server) await startServer(op, backup.server);
      await runTransaction(op, actions);
    } catch (error) {
      if (isRefused(error)) {
        await stopServing(op, record);
        forget();
      }
      throw error;
    }
    for (const { job } of parts) job.state = "running";
    delete checkpoint?.pending;
    await op.save();
  } catch (error) {
    if (!isRefused(error)) throw error;
    await undo();
    await op.save();
    throw error;
  }
  if (mode !== "pull") return;
  const disks = parts.map(({ record }) => record);
  await show(op, { disks, serving: backup.server !== undefined });
}

/** @throws QmpError; then the backup is being ended as one that has failed, and the checkpoint stays */
async function show(op: Operation, shown: Shown): Promise<void> {
  try {
    await serve(op, shown);
  } catch (error) {
    if (!isRefused(error)) throw error;
    if (op.record.backup) op.record.backup.error ??= (error as Error).message;
    await cancelAll(op);
    throw error;
  }
}

interface PartOptions {
  readonly definition: BackupDiskDefinition;
  readonly backup: BackupDefinition;
  readonly flags: number;
  readonly suffix: string;
}

async function prepare(op: Operation, options: PartOptions): Promise<Part> {
  const { definition, backup, flags, suffix } = options;
  const { mode = "push" } = backup;
  const disk = op.disk(definition.name);
  const [top] = disk.layers;
  const { format = "qcow2", backupmode } = definition;
  if (mode === "pull" && format !== "qcow2") {
    throw new DomainError("CONFIG_UNSUPPORTED", "The scratch image of a pull has to be a qcow2");
  }
  const own = definition.incremental ?? backup.incremental;
  const incremental = backupmode === "full" ? undefined : own;
  if (
    incremental !== undefined &&
    !op.record.checkpoints.some(({ name }) => name === incremental)
  ) {
    const text = `There is no checkpoint '${incremental}' for the backup of '${disk.target}'`;
    throw new DomainError("NO_DOMAIN_CHECKPOINT", text);
  }
  if (incremental !== undefined) bitmapChain(disk, await queryBitmaps(op), incremental);
  const { exportbitmap = `backup-${disk.target}` } = definition;
  const bitmap = incremental === undefined ? undefined : exportbitmap;
  // Before anything is made: it may be refused.
  if (bitmap !== undefined && mode === "push") await discardStray(op, disk, bitmap);
  const source = definition.target ?? definition.scratch ?? generated(top!, disk.target, suffix);
  for (const each of op.record.disks) checkNoLayer(each, source);
  const hasBacking = format === "qcow2" && (mode === "pull" || incremental !== undefined);
  const backing = hasBacking ? { layer: top!, node: formatNode(top!) } : undefined;
  let store: Layer;
  if (flags & BACKUP_BEGIN.REUSE_EXTERNAL) {
    store = { n: op.newLayerNumber(), format, source };
    op.record.leftovers.push(...nodesOf([store]));
    await op.save();
    await openImage(op, store, { readOnly: false, backing: backing?.node ?? null });
  } else {
    const size = await sizeOf(op, top!);
    store = await makeImage(op, { format, source, size, backing, taken: "INVALID_ARG" });
  }
  const job: JobRecord = {
    ...newJob(op, "backup", disk, top!, flags),
    store,
    ...(bitmap && { bitmap }),
  };
  const exportName = definition.exportname ?? disk.target;
  const record: BackupDiskRecord = {
    name: disk.target,
    state: "running",
    job: job.name,
    store,
    ...(incremental !== undefined && { incremental }),
    ...(bitmap && { bitmap }),
    ...(mode === "pull" && { export: `backup-${disk.target}-${store.n}`, exportName }),
  };
  return { disk, incremental, store, job, record };
}

/**
 * Of a backup whose engine ended, in good order and for good: the image has kept it. Where it has got below the top it
 * is in nobody's way, and goes when its image is the top again.
 *
 * @param name ours, unless there is a checkpoint of that name
 * @throws QmpError; then there could be no new one
 */
async function discardStray(op: Operation, disk: DiskRecord, name: string): Promise<void> {
  const [top] = disk.layers;
  const found = findBitmap(await queryBitmaps(op), top!, name);
  const isOurs = !op.record.checkpoints.some(({ disks }) =>
    disks.some((one) => one.name === disk.target && one.bitmap === name),
  );
  if (found && !found.recording && isOurs) await removeBitmaps(op, [top!], name);
}

/** As libvirt names them: the image's own name and a suffix. */
function generated(top: Layer, target: string, suffix: string): Source {
  const path = pathOf(top.source);
  if (path !== null) return fromPath(`${path}.${suffix}`);
  const text = `The image of '${target}' has no path: say where its backup is to go`;
  throw new DomainError("CONFIG_UNSUPPORTED", text);
}

function actionsOf(
  { disk, incremental, store, job, record: { bitmap } }: Part,
  table: Awaited<ReturnType<typeof queryBitmaps>>,
  mode: "push" | "pull",
): TransactionAction[] {
  const [top] = disk.layers;
  const actions: TransactionAction[] = [];
  if (bitmap !== undefined && incremental !== undefined) {
    const chain = bitmapChain(disk, table, incremental);
    // A client of a pull is shown it beside the data; a push goes by it.
    const at = mode === "pull" ? store : top!;
    // That of a push is what its job has to find when its engine was lost.
    actions.push(addAction(at, bitmap, { persistent: mode === "push", disabled: true }));
    actions.push(mergeAction(at, bitmap, chain, incremental));
  }
  const data = {
    "job-id": job.name,
    device: formatNode(top!),
    target: formatNode(store),
    ...(mode === "pull"
      ? { sync: "none" }
      : bitmap
        ? { sync: "incremental", bitmap }
        : { sync: "full" }),
    "auto-dismiss": false,
  };
  actions.push({ type: "blockdev-backup", data });
  return actions;
}

/** Every disk that is still at it is called off. The engine tells of each end. */
export async function cancelAll(op: Operation): Promise<void> {
  const running = op.record.backup?.disks.filter(({ state }) => state === "running") ?? [];
  for (const disk of running) {
    disk.state = "cancelling";
    const job = op.record.jobs.find(({ name }) => name === disk.job);
    if (job) job.state = "aborting";
  }
  if (running.length === 0) return;
  await op.save();
  for (const { job } of running) {
    const found = (await op.execute("query-jobs")).find(({ id }) => id === job);
    if (found && found.status !== "concluded" && found.status !== "aborting") {
      await unlessNeedless(op.execute("job-cancel", { id: job }));
    }
  }
}
