/**
 * The bitmaps of checkpoints follow the disk. A checkpoint's bitmap has its name in every image that was
 * the top since, each recording what was written while it was:
 *
 *     [base: a] <── [mid: a b] <── [vda: a b]     since a: what is in all three; since b: in two
 *
 * When images leave a chain their bits go into the same bitmap of the image that stays. If that cannot be
 * done, the bitmap is told to be bad, and no incremental backup is made from it: rather none than a wrong
 * one. During a switch a temporary bitmap catches guests' writes.
 */

import { QmpError } from "../engine/client.ts";
import type { BlockDirtyInfo } from "../qmp/types.ts";
import { DomainError } from "./errors.ts";
import { reopenImage } from "./images.ts";
import type { Operation } from "./operation.ts";
import {
  type DiskRecord,
  type DomainRecord,
  formatNode,
  type JobRecord,
  type Layer,
} from "./record.ts";
import { describeSource } from "./source.ts";
import { isRefused } from "./start-job.ts";

/** libvirt's name. */
const TMP_BITMAP = "libvirt-tmp-activewrite";

/** By node name: the bitmaps that have names. */
export type BitmapTable = ReadonlyMap<string, readonly BlockDirtyInfo[]>;

export interface TransactionAction {
  readonly type: string;
  readonly data: object;
}

export async function queryBitmaps(op: Operation): Promise<BitmapTable> {
  const nodes = await op.execute("query-named-block-nodes", { flat: true });
  return new Map(
    nodes.map((node) => [
      node["node-name"],
      (node["dirty-bitmaps"] ?? []).filter(({ name }) => name !== undefined),
    ]),
  );
}

export function findBitmap(
  table: BitmapTable,
  layer: Layer,
  name: string,
): BlockDirtyInfo | undefined {
  return table.get(formatNode(layer))?.find((bitmap) => bitmap.name === name);
}

/**
 * The images that have the bitmap: those from the top on, without a gap.
 *
 * @throws DomainError CHECKPOINT_INCONSISTENT, which names bitmap and disk
 */
export function bitmapChain(disk: DiskRecord, table: BitmapTable, name: string): Layer[] {
  const refuse = (why: string): never => {
    const text = `Bitmap '${name}' of disk '${disk.target}' ${why}`;
    throw new DomainError("CHECKPOINT_INCONSISTENT", text);
  };
  if (disk.badBitmaps.includes(name)) refuse("may lack what was written");
  const has = disk.layers.map((layer) => findBitmap(table, layer, name));
  const end = has.indexOf(undefined);
  const chain = end < 0 ? has : has.slice(0, end);
  if (chain.length === 0) refuse("is not there");
  if (has.slice(chain.length).some((bitmap) => bitmap !== undefined)) refuse("has a gap");
  for (const bitmap of chain) {
    if (bitmap!.inconsistent) refuse("is inconsistent");
    if (!bitmap!.recording) refuse("does not record");
  }
  return disk.layers.slice(0, chain.length);
}

/** Names of the bitmaps from which an incremental backup could be made. */
export function validBitmaps(disk: DiskRecord, table: BitmapTable): string[] {
  const names = (table.get(formatNode(disk.layers[0]!)) ?? []).map(({ name }) => name!);
  return names.filter((name) => {
    try {
      return bitmapChain(disk, table, name).length > 0;
    } catch (error) {
      if (error instanceof DomainError) return false;
      throw error;
    }
  });
}

export function addAction(
  layer: Layer,
  name: string,
  more: { persistent: boolean; disabled?: boolean; granularity?: number },
): TransactionAction {
  return { type: "block-dirty-bitmap-add", data: { node: formatNode(layer), name, ...more } };
}

/** The bits of the bitmaps of that name in `from`, into one of `to`. */
export function mergeAction(
  to: Layer,
  target: string,
  from: readonly Layer[],
  name: string,
): TransactionAction {
  const bitmaps = from.map((layer) => ({ node: formatNode(layer), name }));
  const data = { node: formatNode(to), target, bitmaps };
  return { type: "block-dirty-bitmap-merge", data };
}

export async function runTransaction(
  op: Operation,
  actions: readonly TransactionAction[],
): Promise<void> {
  if (actions.length > 0) await op.execute("transaction", { actions: [...actions] });
}

function target(job: JobRecord, disk: DiskRecord): Layer | undefined {
  return job.kind === "copy" ? job.mirror?.[0] : disk.layers.find(({ n }) => n === job.base);
}

/** Before a switch: writes of guests are recorded where the disk will be. */
export async function beforePivot(op: Operation, job: JobRecord): Promise<void> {
  const disk = op.disk(job.disk);
  const to = target(job, disk);
  if (to?.format !== "qcow2") return;
  const table = await queryBitmaps(op);
  if (validBitmaps(disk, table).length === 0 || findBitmap(table, to, TMP_BITMAP)) return;
  await runTransaction(op, [addAction(to, TMP_BITMAP, { persistent: false })]);
}

/** There was no switch. */
export async function takeBackPivot(op: Operation, job: JobRecord): Promise<void> {
  const to = target(job, op.disk(job.disk));
  if (to) await discardTemporary(op, to);
}

/**
 * The disk has switched from `gone` to the first of `layers`.
 *
 * @returns what is left behind, and why
 */
export async function afterPivot(
  op: Operation,
  disk: DiskRecord,
  layers: readonly Layer[],
  gone: readonly Layer[],
): Promise<string | undefined> {
  const [to] = layers;
  await carryOver(op, disk, to!, gone, true);
  return discardTemporary(op, to!);
}

/** One that stays has more marks than it needs at the next switch to its image, and goes with the node. */
async function discardTemporary(op: Operation, layer: Layer): Promise<string | undefined> {
  try {
    await removeBitmaps(op, [layer], TMP_BITMAP);
  } catch (error) {
    if (!isRefused(error)) throw error;
    const image = describeSource(layer.source);
    return `Bitmap '${TMP_BITMAP}' stays in '${image}': ${(error as Error).message}`;
  }
  return undefined;
}

/** `gone` have been merged into what is below them, which is read-only. */
export async function afterCommit(
  op: Operation,
  job: JobRecord,
  disk: DiskRecord,
  gone: readonly Layer[],
): Promise<void> {
  const at = disk.layers.findIndex(({ n }) => n === job.base);
  if (at < 0 || gone.length === 0) return;
  const base = disk.layers[at]!;
  const below = disk.layers[at + 1];
  await carryOver(op, disk, base, gone, false, async (write) => {
    await reopenImage(op, base, below, false);
    try {
      await write();
    } finally {
      await reopenImage(op, base, below, true);
    }
  });
}

/** @param writable makes `to` writable for a while */
async function carryOver(
  op: Operation,
  disk: DiskRecord,
  to: Layer,
  gone: readonly Layer[],
  isTop: boolean,
  writable: (write: () => Promise<void>) => Promise<void> = (write) => write(),
): Promise<void> {
  const table = await queryBitmaps(op);
  const actions: TransactionAction[] = [];
  const names = validBitmaps(disk, table);
  for (const name of names) {
    const from = gone.filter((layer) => findBitmap(table, layer, name));
    if (from.length === 0 && !isTop) continue;
    if (!findBitmap(table, to, name)) {
      const { granularity } = findBitmap(table, disk.layers[0]!, name)!;
      actions.push(addAction(to, name, { persistent: true, granularity }));
    }
    if (from.length > 0) actions.push(mergeAction(to, name, from, name));
    if (isTop && findBitmap(table, to, TMP_BITMAP)) {
      const bitmaps = [TMP_BITMAP];
      const data = { node: formatNode(to), target: name, bitmaps };
      actions.push({ type: "block-dirty-bitmap-merge", data });
    }
  }
  if (actions.length === 0) return;
  try {
    await writable(() => runTransaction(op, actions));
  } catch (error) {
    if (!(error instanceof QmpError) || error.errno !== undefined) throw error;
    disk.badBitmaps = [...new Set([...disk.badBitmaps, ...names])];
  }
}

/** Where they are; not being there is no error. */
export async function removeBitmaps(
  op: Operation,
  layers: readonly Layer[],
  name: string,
): Promise<void> {
  const table = await queryBitmaps(op);
  const data = layers
    .filter((layer) => findBitmap(table, layer, name))
    .map((layer) => ({ node: formatNode(layer), name }));
  await runTransaction(
    op,
    data.map((one) => ({ type: "block-dirty-bitmap-remove", data: one })),
  );
}

/** Takes a bitmap out of an image below the top, which is writable only for that. */
export async function removeBitmapBelow(
  op: Operation,
  layer: Layer,
  below: Layer | undefined,
  name: string,
): Promise<void> {
  await reopenImage(op, layer, below, false);
  try {
    await removeBitmaps(op, [layer], name);
  } finally {
    await reopenImage(op, layer, below, true);
  }
}

/** An image below the top that stayed writable when a driver was lost amid the above. */
export async function protectBelow(op: Operation): Promise<void> {
  const nodes = await op.execute("query-named-block-nodes", { flat: true });
  const writable = new Set(nodes.filter(({ ro }) => !ro).map((node) => node["node-name"]));
  for (const { layers } of op.record.disks) {
    for (const [at, layer] of layers.entries()) {
      if (at === 0 || !writable.has(formatNode(layer))) continue;
      if (isWritten(op.record, layers, at)) continue;
      try {
        await reopenImage(op, layer, layers[at + 1], true);
      } catch (error) {
        // Somebody else writes to it.
        if (!isRefused(error)) throw error;
      }
    }
  }
}

/** By a job: its base, and the overlay of what a commit merges, which comes to stand on the base. */
function isWritten({ jobs }: DomainRecord, layers: readonly Layer[], at: number): boolean {
  const [image, below] = [layers[at]!.n, layers[at + 1]?.n];
  return jobs.some(({ base, kind, top }) => base === image || (kind === "commit" && top === below));
}
