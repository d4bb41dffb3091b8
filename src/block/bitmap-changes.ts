/**
 * What can be done to a node's named bitmaps from outside, each so that it can be taken back: a
 * command commits at once, a transaction when all of its actions have been done.
 *
 *     change = clearBitmap(…)  ──▶  change.commit()  or  change.abort()
 *
 * The change is in effect at once, for the next action of a transaction to see. Until it is ended
 * the nodes must be drained: taking a merge back forgets what has been marked since.
 */

import { BlockError } from "../base/errors.ts";
import { bitmapsChanged, markForeign } from "./bitmap-intent.ts";
import type { NewBitmap } from "./bitmap-list.ts";
import type { BitmapUse, DirtyBitmap } from "./dirty-bitmap.ts";
import type { Graph } from "./graph.ts";
import type { BlockNode } from "./node.ts";
import { distrustStored } from "./persistent-bitmaps.ts";

/** Ended by exactly one of the two. Neither fails. */
export interface BitmapChange {
  commit(): void;
  abort(): void;
}

/** A bitmap by name (QEMU: BlockDirtyBitmap). */
export interface BitmapName {
  /** Of a device or a node. */
  readonly node: string;
  readonly name: string;
}

export interface AddBitmapOptions extends BitmapName {
  /** Bytes; without it the node's default. */
  readonly granularity?: number | undefined;
  /** To be kept in the image; false if it is left out. */
  readonly persistent?: boolean | undefined;
  /** Does not record until it is enabled; false if it is left out. */
  readonly disabled?: boolean | undefined;
}

export interface MergeBitmapsOptions {
  readonly node: string;
  /** Name of a bitmap of that node. */
  readonly target: string;
  /** A name alone is that of a bitmap of the same node. */
  readonly bitmaps: readonly (string | BitmapName)[];
}

/** @throws BlockError ENOENT (no such node, or bitmap) */
export function findBitmap(
  graph: Graph,
  { node, name }: BitmapName,
): { readonly node: BlockNode; readonly bitmap: DirtyBitmap } {
  const found = graph.getDeviceOrNode(node);
  return { node: found, bitmap: found.bitmaps.get(name) };
}

/**
 * @throws BlockError ENOENT (node), EINVAL (name, granularity), EEXIST (name), ENOTSUP, EROFS and
 *   the like if it cannot be persistent
 */
export function addBitmap(graph: Graph, options: AddBitmapOptions): BitmapChange {
  const node = graph.getDeviceOrNode(options.node);
  const { name, granularity, persistent = false, disabled = false } = options;
  const wanted: NewBitmap = { name, granularity, persistent, enabled: !disabled };
  const bitmap = node.bitmaps.add(wanted);
  const forget = () => {
    node.bitmaps.remove(bitmap);
    bitmapsChanged(node);
  };
  try {
    if (persistent) checkCanPersist(node, bitmap);
  } catch (error) {
    forget();
    throw error;
  }
  bitmapsChanged(node);
  return { commit: nothing, abort: forget };
}

/** @param bitmap in the node's list already */
function checkCanPersist(node: BlockNode, bitmap: DirtyBitmap): void {
  const { bitmapStore } = node.state;
  const what = `Bitmap '${bitmap.name}' cannot be kept in the image of node '${node.name}'`;
  if (!bitmapStore) {
    throw new BlockError(
      "ENOTSUP",
      `${what}: driver '${node.driver.name}' has no place for bitmaps`,
    );
  }
  if (node.readOnly) throw new BlockError("EROFS", `${what}: it is not open for writing`);
  const others = node.bitmaps.all().filter((other) => other.persistent && other !== bitmap);
  bitmapStore.checkRoom(bitmap.name ?? "", bitmap.granularity, others.length);
}

/** The bitmap is there, and busy, until the commit. @throws BlockError ENOENT, EBUSY, EROFS */
export function removeBitmap(graph: Graph, name: BitmapName): BitmapChange {
  const { node, bitmap } = findBitmap(graph, name);
  bitmap.checkUsable("remove");
  bitmap.setBusy(true);
  return {
    commit() {
      node.bitmaps.remove(bitmap);
      bitmapsChanged(node);
    },
    abort: () => bitmap.setBusy(false),
  };
}

/** @throws BlockError ENOENT, EBUSY, EROFS, EINVAL (inconsistent) */
export function clearBitmap(graph: Graph, name: BitmapName): BitmapChange {
  const { bitmap } = findBitmap(graph, name);
  bitmap.checkUsable("clear");
  const before = bitmap.snapshot();
  bitmap.clear();
  return { commit: nothing, abort: () => bitmap.restore(before) };
}

/** @throws BlockError ENOENT, EBUSY, EINVAL (inconsistent) */
export function enableBitmap(graph: Graph, name: BitmapName): BitmapChange {
  return setEnabled(graph, name, true);
}

/** @throws BlockError ENOENT, EBUSY, EINVAL (inconsistent) */
export function disableBitmap(graph: Graph, name: BitmapName): BitmapChange {
  return setEnabled(graph, name, false);
}

function setEnabled(graph: Graph, name: BitmapName, enabled: boolean): BitmapChange {
  const { node, bitmap } = findBitmap(graph, name);
  bitmap.checkUsable("enable");
  const before = bitmap.enabled;
  const set = (value: boolean) => {
    if (value) bitmap.enable();
    else bitmap.disable();
    bitmapsChanged(node);
  };
  set(enabled);
  return { commit: nothing, abort: () => set(before) };
}

/**
 * Marks in one bitmap what is dirty in others, of the same node or of nodes of the same size. All
 * of the others, or nothing.
 *
 * @throws BlockError ENOENT, EBUSY, EROFS, EINVAL (inconsistent, or another size)
 */
export function mergeBitmaps(graph: Graph, options: MergeBitmapsOptions): BitmapChange {
  const { node, target: name } = options;
  const { node: marked, bitmap: target } = findBitmap(graph, { node, name });
  target.checkUsable("merge-target");
  const sources = options.bitmaps.map((source) => {
    const full = typeof source === "string" ? { node, name: source } : source;
    const { bitmap } = findBitmap(graph, full);
    bitmap.checkUsable("merge-source");
    checkSameSize(target, bitmap);
    return bitmap;
  });
  const before = target.snapshot();
  for (const source of sources) {
    target.merge(source);
    markForeign(marked, source);
  }
  return { commit: nothing, abort: () => target.restore(before) };
}

/**
 * To be called before mergeBitmaps(), enableBitmap() and removeBitmap(): the image that keeps the bitmap does
 * not know of the change, and a crash must not leave it there as if there had been none.
 *
 * @throws BlockError ENOENT, EBUSY, EROFS, EINVAL as the change, and what writing to the image throws
 */
export async function beforeChange(
  graph: Graph,
  name: BitmapName,
  use: Extract<BitmapUse, "merge-target" | "enable" | "remove">,
): Promise<void> {
  const { node, bitmap } = findBitmap(graph, name);
  bitmap.checkUsable(use);
  await distrustStored(node, bitmap);
}

function checkSameSize(target: DirtyBitmap, source: DirtyBitmap): void {
  if (source.size === target.size) return;
  throw new BlockError(
    "EINVAL",
    `${source.description} covers ${source.size} bytes and cannot be merged into bitmap ` +
      `'${target.name}' of node '${target.nodeName}', which covers ${target.size}`,
  );
}

function nothing(): void {}
