/** Takes the persistent bitmaps of one image over to another, with their bits (convert --bitmaps). */

import { BlockError } from "../base/errors.ts";
import { addBitmap, beforeChange, mergeBitmaps } from "../block/bitmap-changes.ts";
import type { DirtyBitmap } from "../block/dirty-bitmap.ts";
import * as io from "../block/io.ts";
import type { BlockNode } from "../block/node.ts";
import type { Session } from "./session.ts";

/**
 * Before anything is written.
 *
 * @param skipsBroken what cannot be relied on is left out
 * @throws BlockError ENOTSUP, EINVAL for a bitmap that cannot be copied
 */
export function checkBitmaps(source: BlockNode, skipsBroken: boolean): void {
  if (source.state.bitmapStore === undefined) {
    throw new BlockError("ENOTSUP", "The source's format keeps no bitmaps");
  }
  for (const { name, inconsistent } of kept(source)) {
    if (!inconsistent || skipsBroken) continue;
    throw new BlockError(
      "EINVAL",
      `Bitmap '${name}' of the source is inconsistent and cannot be copied: leave it out with ` +
        "--skip-broken-bitmaps, or remove it with 'bitmap --remove'",
    );
  }
}

/**
 * Before anything is copied.
 *
 * @throws BlockError ENOTSUP, ENOSPC, EINVAL if the target cannot keep them, EEXIST if it has one of such a name
 */
export function checkBitmapsFit(source: BlockNode, target: BlockNode): void {
  const { bitmapStore } = target.state;
  if (bitmapStore === undefined) {
    throw new BlockError("ENOTSUP", `Format '${target.driver.name}' keeps no bitmaps`);
  }
  let others = target.bitmaps.named().length;
  const taken = new Set(target.bitmaps.named().map(({ name }) => name));
  const length = io.getLength(target);
  for (const { name, granularity, inconsistent, size } of kept(source)) {
    if (inconsistent) continue;
    if (taken.has(name)) {
      throw new BlockError("EEXIST", `The target has a bitmap '${name}' already`);
    }
    if (size !== length) {
      const text = `Bitmap '${name}' of the source covers ${size} bytes, and the target has ${length}`;
      throw new BlockError("EINVAL", text);
    }
    bitmapStore.checkRoom(name ?? "", granularity, others++);
  }
}

/** @throws BlockError of the first one that could not be copied; it is not there then */
export async function copyBitmaps(
  session: Session,
  source: BlockNode,
  target: BlockNode,
  warn: (problem: string) => Promise<void>,
): Promise<void> {
  const { graph } = session;
  // A new bitmap is listed before older ones: the last first, and the order is the source's.
  for (const { name, granularity, enabled, inconsistent } of kept(source).reverse()) {
    if (name === null) continue;
    if (inconsistent) {
      await warn(`warning: Skipping inconsistent bitmap '${name}'`);
      continue;
    }
    const added = addBitmap(graph, {
      node: target.name,
      name,
      granularity,
      persistent: true,
      disabled: !enabled,
    });
    try {
      await beforeChange(graph, { node: target.name, name }, "merge-target");
      mergeBitmaps(graph, {
        node: target.name,
        target: name,
        bitmaps: [{ node: source.name, name }],
      });
    } catch (error) {
      added.abort();
      throw error instanceof BlockError ? error.prepend(`Bitmap '${name}' was not copied`) : error;
    }
    added.commit();
  }
}

function kept(node: BlockNode): DirtyBitmap[] {
  return node.bitmaps.named().filter(({ persistent }) => persistent);
}
