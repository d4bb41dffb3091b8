/**
 * checkpointGetDesc() with SIZE: how much of a disk has been written since the checkpoint. What its bitmaps have is in
 * all images that were the top since, so they are merged in one that is there for that moment alone.
 */

import {
  addAction,
  bitmapChain,
  findBitmap,
  mergeAction,
  queryBitmaps,
  removeBitmaps,
  runTransaction,
} from "./bitmaps.ts";
import { DomainError } from "./errors.ts";
import type { Operation } from "./operation.ts";
import type { CheckpointRecord, Layer } from "./record.ts";

/** libvirt's name. */
const TMP_BITMAP = "libvirt-tmp-size-xml";

/** `size`: in bytes; missing where there is no bitmap to be relied on. */
export interface CheckpointInfo extends Omit<CheckpointRecord, "disks"> {
  readonly disks: readonly (CheckpointRecord["disks"][number] & { readonly size?: number })[];
}

/** @throws QmpError */
export async function withSizes(
  op: Operation,
  checkpoint: CheckpointRecord,
): Promise<CheckpointInfo> {
  const disks: CheckpointInfo["disks"][number][] = [];
  for (const disk of checkpoint.disks) {
    const size = disk.bitmap === undefined ? undefined : await sizeOf(op, disk.name, disk.bitmap);
    disks.push({ ...disk, ...(size !== undefined && { size }) });
  }
  return { ...checkpoint, disks };
}

async function sizeOf(op: Operation, name: string, bitmap: string): Promise<number | undefined> {
  const table = await queryBitmaps(op);
  const disk = op.record.disks.find(({ target }) => target === name);
  if (!disk) return undefined;
  const [top] = disk.layers;
  let chain: Layer[];
  try {
    chain = bitmapChain(disk, table, bitmap);
  } catch (error) {
    if (error instanceof DomainError) return undefined;
    throw error;
  }
  // One that a driver has left that was lost right here.
  await removeBitmaps(op, [top!], TMP_BITMAP);
  const { granularity } = findBitmap(table, top!, bitmap)!;
  await runTransaction(op, [
    addAction(top!, TMP_BITMAP, { persistent: false, disabled: true, granularity }),
    mergeAction(top!, TMP_BITMAP, chain, bitmap),
  ]);
  const found = findBitmap(await queryBitmaps(op), top!, TMP_BITMAP);
  await removeBitmaps(op, [top!], TMP_BITMAP);
  return found?.count;
}
