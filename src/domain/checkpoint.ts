/**
 * Checkpoints: moments since which it is recorded what is written. Each has its name, a parent, and on each of
 * its disks a bitmap of that name.
 */

import {
  addAction,
  bitmapChain,
  findBitmap,
  queryBitmaps,
  removeBitmapBelow,
  removeBitmaps,
  runTransaction,
  type TransactionAction,
} from "./bitmaps.ts";
import {
  ancestors,
  type CheckpointDefinition,
  newCheckpoint,
  putInList,
  takeOutOfList,
} from "./checkpoint-definition.ts";
import { DomainError } from "./errors.ts";
import { CHECKPOINT_CREATE, CHECKPOINT_DELETE, CHECKPOINT_LIST } from "./flags.ts";
import type { Operation } from "./operation.ts";
import type { CheckpointRecord, DomainRecord } from "./record.ts";
import { isRefused } from "./start-job.ts";

export function checkpointActions(
  op: Operation,
  checkpoint: CheckpointRecord,
): TransactionAction[] {
  return checkpoint.disks.flatMap(({ name, bitmap }) =>
    bitmap === undefined ? [] : [addAction(op.disk(name).layers[0]!, bitmap, { persistent: true })],
  );
}

/**
 * @param flags of CHECKPOINT_CREATE
 * @throws DomainError, QmpError
 */
export async function create(
  op: Operation,
  definition: CheckpointDefinition,
  flags: number,
): Promise<string> {
  if (flags & CHECKPOINT_CREATE.QUIESCE) {
    const text = "There is no agent in a guest that could hold its file systems still";
    throw new DomainError("INVALID_ARG", text);
  }
  const isRedefined = (flags & CHECKPOINT_CREATE.REDEFINE) !== 0;
  const checkpoint = newCheckpoint(op, definition, isRedefined);
  const { name, disks } = checkpoint;
  if (isRedefined) {
    if (flags & CHECKPOINT_CREATE.REDEFINE_VALIDATE) {
      const table = await queryBitmaps(op);
      for (const disk of disks)
        if (disk.bitmap) bitmapChain(op.disk(disk.name), table, disk.bitmap);
    }
    putInList(op.record, checkpoint);
    await op.save();
    return name;
  }
  // Kept first: a bitmap that no checkpoint knows of would record for ever.
  checkpoint.pending = true;
  op.record.checkpoints.push(checkpoint);
  await op.save();
  try {
    await runTransaction(op, checkpointActions(op, checkpoint));
  } catch (error) {
    if (!isRefused(error)) throw error;
    op.record.checkpoints = op.record.checkpoints.filter((one) => one !== checkpoint);
    await op.save();
    throw error;
  }
  delete checkpoint.pending;
  await op.save();
  return name;
}

/**
 * Of those whose making nobody has heard the end of: one that has bitmaps was made. Of those that were being deleted:
 * they go; one whose bitmaps cannot be taken out now stays until it is deleted once more. Call with the disks open.
 */
export async function settleCheckpoints(op: Operation): Promise<void> {
  await settleMade(op);
  for (const checkpoint of op.record.checkpoints.filter(({ going }) => going)) {
    try {
      await finishRemoval(op, checkpoint);
    } catch (error) {
      if (!isRefused(error)) throw error;
    }
  }
}

async function settleMade(op: Operation): Promise<void> {
  if (!op.record.checkpoints.some(({ pending }) => pending)) return;
  const table = await queryBitmaps(op);
  const hasBitmap = ({ name }: CheckpointRecord) =>
    op.record.disks.some(({ layers }) => layers.some((layer) => findBitmap(table, layer, name)));
  op.record.checkpoints = op.record.checkpoints.filter((one) => !one.pending || hasBitmap(one));
  for (const checkpoint of op.record.checkpoints) delete checkpoint.pending;
  await op.save();
}

/** @throws DomainError NO_DOMAIN_CHECKPOINT */
export function find(record: DomainRecord, name: string): CheckpointRecord {
  const found = record.checkpoints.find((one) => one.name === name && !one.pending);
  if (found) return found;
  throw new DomainError("NO_DOMAIN_CHECKPOINT", `There is no checkpoint '${name}'`);
}

/** @throws DomainError NO_DOMAIN_CHECKPOINT, also if it has none */
export function parentOf(record: DomainRecord, name: string): CheckpointRecord {
  const { parent } = find(record, name);
  if (parent !== undefined) return find(record, parent);
  throw new DomainError("NO_DOMAIN_CHECKPOINT", `Checkpoint '${name}' has no parent`);
}

/** All that come from it, the farthest first. */
function descendants(record: DomainRecord, name: string): CheckpointRecord[] {
  const children = record.checkpoints.filter(({ parent }) => parent === name);
  return children.flatMap((child) => [...descendants(record, child.name), child]);
}

/**
 * @param flags of CHECKPOINT_DELETE
 * @throws DomainError INVALID_ARG, NO_DOMAIN_CHECKPOINT, CHECKPOINT_INCONSISTENT
 */
export async function remove(op: Operation, name: string, flags: number): Promise<void> {
  const { CHILDREN, CHILDREN_ONLY } = CHECKPOINT_DELETE;
  if (flags & CHILDREN && flags & CHILDREN_ONLY) {
    throw new DomainError("INVALID_ARG", "CHILDREN and CHILDREN_ONLY exclude each other");
  }
  const named = find(op.record, name);
  const isMany = flags & (CHILDREN | CHILDREN_ONLY);
  const doomed = isMany ? descendants(op.record, name) : [];
  if (!(flags & CHILDREN_ONLY)) doomed.push(named);
  for (const checkpoint of doomed) {
    if (flags & CHECKPOINT_DELETE.METADATA_ONLY) {
      await forget(op, checkpoint);
      continue;
    }
    if (!checkpoint.going) {
      await checkBitmaps(op, checkpoint);
      // Kept first: from here on there is only the way to the end.
      checkpoint.going = true;
      await op.save();
    }
    await finishRemoval(op, checkpoint);
  }
}

async function finishRemoval(op: Operation, checkpoint: CheckpointRecord): Promise<void> {
  await discardBitmaps(op, checkpoint);
  await forget(op, checkpoint);
}

async function forget(op: Operation, { name }: CheckpointRecord): Promise<void> {
  takeOutOfList(op.record, name);
  await op.save();
}

/** @throws DomainError CHECKPOINT_INCONSISTENT: a bitmap is nowhere; METADATA_ONLY is the way out */
async function checkBitmaps(op: Operation, checkpoint: CheckpointRecord): Promise<void> {
  for (const { disk, bitmap, layers } of await whereBitmapsAre(op, checkpoint)) {
    if (layers.length > 0) continue;
    const text = `Bitmap '${bitmap}' is in no image of disk '${disk.target}'`;
    throw new DomainError("CHECKPOINT_INCONSISTENT", text);
  }
}

async function whereBitmapsAre(op: Operation, { disks }: CheckpointRecord) {
  const table = await queryBitmaps(op);
  return disks.flatMap(({ name, bitmap }) => {
    const disk = op.record.disks.find(({ target }) => target === name);
    if (!disk || bitmap === undefined) return [];
    return [{ disk, bitmap, layers: disk.layers.filter((one) => findBitmap(table, one, bitmap)) }];
  });
}

async function discardBitmaps(op: Operation, checkpoint: CheckpointRecord): Promise<void> {
  for (const { disk, bitmap, layers } of await whereBitmapsAre(op, checkpoint)) {
    // From the top down: what is left of one has a gap, so nothing incremental is made from it.
    for (const layer of layers) {
      const at = disk.layers.indexOf(layer);
      if (at === 0) await removeBitmaps(op, [layer], bitmap);
      else await removeBitmapBelow(op, layer, disk.layers[at + 1], bitmap);
    }
    disk.badBitmaps = disk.badBitmaps.filter((name) => name !== bitmap);
  }
}

/** @param flags of CHECKPOINT_LIST */
export function list(record: DomainRecord, flags: number): CheckpointRecord[] {
  const all = record.checkpoints.filter(({ pending }) => !pending);
  const isRoot = ({ parent }: CheckpointRecord) => parent === undefined;
  return select(all, flags & CHECKPOINT_LIST.ROOTS ? all.filter(isRoot) : all, flags);
}

/**
 * @param flags of CHECKPOINT_LIST
 * @throws DomainError NO_DOMAIN_CHECKPOINT
 */
export function listChildren(
  record: DomainRecord,
  name: string,
  flags: number,
): CheckpointRecord[] {
  find(record, name);
  const all = record.checkpoints.filter(({ pending }) => !pending);
  const children =
    flags & CHECKPOINT_LIST.DESCENDANTS
      ? new Set(descendants(record, name))
      : new Set(all.filter(({ parent }) => parent === name));
  return select(
    all,
    all.filter((one) => children.has(one)),
    flags,
  );
}

/** @param wanted some of `checkpoints`, all that there are */
function select(
  checkpoints: CheckpointRecord[],
  wanted: CheckpointRecord[],
  flags: number,
): CheckpointRecord[] {
  const isParent = ({ name }: CheckpointRecord) =>
    checkpoints.some(({ parent }) => parent === name);
  const depth = (one: CheckpointRecord) => ancestors({ checkpoints }, one).length;
  const isOrdered = (flags & CHECKPOINT_LIST.TOPOLOGICAL) !== 0;
  const ordered = isOrdered ? wanted.toSorted((a, b) => depth(a) - depth(b)) : wanted;
  return ordered.filter((one) => {
    if (flags & CHECKPOINT_LIST.LEAVES && !(flags & CHECKPOINT_LIST.NO_LEAVES))
      return !isParent(one);
    if (flags & CHECKPOINT_LIST.NO_LEAVES && !(flags & CHECKPOINT_LIST.LEAVES))
      return isParent(one);
    return true;
  });
}
