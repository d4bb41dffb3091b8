/**
 * blockdev-reopen: several nodes with other options, all of them or none
 * (QEMU: block.c, bdrv_reopen_multiple()).
 *
 *   1  those that shall only be read stop writing          from the top down
 *   2  settings, links, the drivers' own options
 *   3  those that shall write begin to                     from the bottom up
 *
 * So nobody is asked to write to what cannot be written, at no time in between. Each step knows how to
 * take itself back, and if one fails those before it are, the last one first.
 */

import type { ChildRole } from "./driver.ts";
import * as io from "./io.ts";
import type { BlockNode } from "./node.ts";
import { exchangeBitmaps, storeBitmaps } from "./persistent-bitmaps.ts";
import { goBack, type ReopenHost, reopenTree } from "./reopen.ts";
import type { NodeChange } from "./reopen-plan.ts";

export interface ReopenAllHost extends ReopenHost {
  /** @returns the child it had; @throws BlockError EBUSY, EINVAL, EPERM; nothing has changed then */
  setChild(node: BlockNode, role: ChildRole, child: BlockNode | null): BlockNode | null;
}

type Undo = () => void | Promise<void>;

/**
 * Everything it changes is drained and stays so.
 *
 * @returns nodes that have lost a user
 * @throws BlockError as reopenTree() and setChild(), and what the drivers throw
 */
export async function reopenAll(
  host: ReopenAllHost,
  changes: readonly NodeChange[],
): Promise<readonly BlockNode[]> {
  const undo: Undo[] = [];
  const left: BlockNode[] = [];
  try {
    for (const change of changes) changeSettings(change, undo);
    await changeMode(host, true, changes, undo);
    for (const change of changes) left.push(...(await changeInside(host, change, undo)));
    await changeMode(host, false, changes, undo);
  } catch (error) {
    await goBack(error, async () => {
      for (const step of undo.reverse()) await step();
    });
  }
  return left;
}

function changeSettings({ node, settings, followsParent }: NodeChange, undo: Undo[]): void {
  const before = { settings: node.settings, followsParent: node.followsParent };
  Object.assign(node, { settings, followsParent });
  undo.push(() => void Object.assign(node, before));
}

async function changeMode(
  host: ReopenHost,
  readOnly: boolean,
  changes: readonly NodeChange[],
  undo: Undo[],
): Promise<void> {
  const wanted = changes.filter((change) => change.readOnly === readOnly);
  const upwards = childrenFirst(wanted.map(({ node }) => node));
  for (const node of readOnly ? upwards.reverse() : upwards) {
    if (node.readOnly === readOnly) continue;
    await reopenTree(host, node, readOnly);
    undo.push(() => reopenTree(host, node, !readOnly));
  }
}

/** Links and own options. With another file below it an image is read anew from that. */
async function changeInside(
  host: ReopenAllHost,
  { node, options, links, movesWindow }: NodeChange,
  undo: Undo[],
): Promise<BlockNode[]> {
  const left: BlockNode[] = [];
  const before = node.options;
  const isChanged = JSON.stringify(options) !== JSON.stringify(before);
  const moves = links.has("file");
  if (moves) await leaveFile(node, before, undo);
  for (const [role, child] of links) {
    const old = host.setChild(node, role, child);
    undo.push(() => void host.setChild(node, role, old));
    if (old) left.push(old);
  }
  if (!moves && !isChanged) return left;
  const takeOptions = (taken: unknown) => {
    node.options = taken;
    host.refreshPermissions([node]);
  };
  undo.push(() => takeOptions(before));
  // For whoever has to know after a crash which writes there were to the disk as it was.
  if (movesWindow) await node.gate?.announce();
  takeOptions(options);
  await node.state.reopen?.(node.readOnly, options);
  if (!moves) {
    undo.push(() => node.state.reopen?.(node.readOnly, before));
    return left;
  }
  undo.push(await exchangeBitmaps(node));
  undo.push(() => stopWriting(node, options));
  return left;
}

/** All that the image keeps in memory is in the file that it goes away from. */
async function leaveFile(node: BlockNode, options: unknown, undo: Undo[]): Promise<void> {
  await stopWriting(node, options);
  node.gate?.moved();
  undo.push(() => node.state.reopen?.(node.readOnly, options));
}

async function stopWriting(node: BlockNode, options: unknown): Promise<void> {
  if (node.readOnly) return;
  await io.flush(node);
  await storeBitmaps(node);
  await node.state.reopen?.(true, options);
}

/** Each after all that are below it. */
function childrenFirst(nodes: readonly BlockNode[]): BlockNode[] {
  const wanted = new Set(nodes);
  const seen = new Set<BlockNode>();
  const order: BlockNode[] = [];
  const visit = (node: BlockNode): void => {
    if (seen.has(node)) return;
    seen.add(node);
    for (const edge of node.children.values()) visit(edge.node);
    if (wanted.has(node)) order.push(node);
  };
  for (const node of nodes) visit(node);
  return order;
}
