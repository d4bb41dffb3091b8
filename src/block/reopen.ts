/**
 * The same nodes with another right to write (QEMU: block.c, bdrv_reopen_set_read_only()).
 *
 * A node is changed together with the nodes it keeps its bytes in, as far as those were opened with
 * it and without a word about writing. What is below can write before what is above does:
 *
 *     to writing      [file] ──▶ [image]      ──▶ users may write
 *     to read-only    users may not ──▶ [image] flushed ──▶ [file]
 *
 * So a node has two answers: `readOnly` is for those above it, `writesBelow` for those below, and
 * in between, while the driver is at it, it has the right below and nobody has one above.
 */

import { BlockError } from "../base/errors.ts";
import { bitmapsChanged } from "./bitmap-intent.ts";
import * as io from "./io.ts";
import type { BlockNode } from "./node.ts";
import { Perm, permissionNames } from "./permissions.ts";
import { storeBitmaps } from "./persistent-bitmaps.ts";

/** What the graph does for it. */
export interface ReopenHost {
  /** @throws BlockError EPERM, EROFS on a conflict; no edge has changed then */
  refreshPermissions(nodes: readonly BlockNode[]): void;
}

/** The node and all below that change with it, children first. */
export function reopenedNodes(node: BlockNode, readOnly: boolean): readonly BlockNode[] {
  const below = ownChildren(node).filter(
    (child) => child.followsParent && child.readOnly !== readOnly,
  );
  return [...below.flatMap((child) => reopenedNodes(child, readOnly)), node];
}

/**
 * All or nothing, but that a failed change to writing may leave a store below able to write, of
 * which nobody makes use. Everything it changes is drained and stays so.
 *
 * @throws BlockError EROFS if something below may only be read, or somebody writes; EPERM on a
 *   permission conflict; ENOTSUP; what the drivers throw
 */
export async function reopenTree(
  host: ReopenHost,
  node: BlockNode,
  readOnly: boolean,
): Promise<void> {
  if (node.readOnly === readOnly) return;
  await (readOnly ? toReadOnly(host, node) : toWriting(host, node));
}

async function toWriting(host: ReopenHost, node: BlockNode): Promise<void> {
  const changed: BlockNode[] = [];
  try {
    for (const child of ownChildren(node)) {
      if (!child.readOnly) continue;
      checkFollows(node, child);
      await toWriting(host, child);
      changed.push(child);
    }
    await gainRights(host, node);
  } catch (error) {
    await goBack(error, async () => {
      for (const child of changed) await toReadOnly(host, child);
    });
  }
}

/** The node alone; what it needs below can be written already. */
async function gainRights(host: ReopenHost, node: BlockNode): Promise<void> {
  node.writesBelow = true;
  try {
    host.refreshPermissions([node]);
    await changeState(node, false);
  } catch (error) {
    await goBack(error, async () => {
      node.writesBelow = false;
      host.refreshPermissions([node]);
    });
  }
  node.readOnly = false;
  bitmapsChanged(node);
}

async function toReadOnly(host: ReopenHost, node: BlockNode): Promise<void> {
  checkNobodyWrites(node);
  node.readOnly = true;
  try {
    await io.flush(node);
    await storeBitmaps(node);
    await changeState(node, true);
  } catch (error) {
    node.readOnly = false;
    throw error;
  }
  node.writesBelow = false;
  host.refreshPermissions([node]);
  const followers = ownChildren(node).filter((child) => child.followsParent && !child.readOnly);
  try {
    for (const child of followers) await toReadOnly(host, child);
  } catch (error) {
    await goBack(error, () => toWriting(host, node));
  }
}

/** Undoes, then throws what went wrong first, with what went wrong second if that did too. */
export async function goBack(error: unknown, undo: () => Promise<void>): Promise<never> {
  if (!(error instanceof BlockError)) throw error;
  try {
    await undo();
  } catch (second) {
    if (!(second instanceof BlockError)) throw second;
    throw new BlockError(
      error.errno,
      `${error.message}; and it could not be made as it was: ${second.message}`,
      { cause: error },
    );
  }
  throw error;
}

async function changeState(node: BlockNode, readOnly: boolean): Promise<void> {
  if (node.state.reopen) return node.state.reopen(readOnly);
  // A filter keeps nothing: its rights are those of the node below.
  if (node.driver.kind === "filter") return;
  throw new BlockError(
    "ENOTSUP",
    `Driver '${node.driver.name}' of node '${node.name}' cannot change between reading and writing`,
  );
}

/** What the node writes to when it is written; a backing file is only ever read. */
function ownChildren(node: BlockNode): readonly BlockNode[] {
  const edges = [
    node.children.get("file"),
    node.children.get("data-file"),
    node.children.get("log"),
  ];
  return edges.flatMap((edge) => (edge ? [edge.node] : []));
}

function checkFollows(node: BlockNode, child: BlockNode): void {
  if (child.followsParent) return;
  const why = child.monitorOwned ? "was opened on its own" : "was opened with 'read-only': true";
  throw new BlockError(
    "EROFS",
    `Node '${node.name}' cannot be made writable: node '${child.name}' below it is read-only, ` +
      `and ${why}`,
  );
}

function checkNobodyWrites(node: BlockNode): void {
  for (const { parent, role, permissions } of node.parents) {
    const writing = permissions.take & (Perm.write | Perm.writeUnchanged | Perm.resize);
    if (writing === 0) continue;
    throw new BlockError(
      "EPERM",
      `Node '${node.name}' cannot be made read-only: ${parent.description} (as '${role}') needs ` +
        permissionNames(writing),
    );
  }
}
