/** Works out what every edge of a part of the graph takes and shares, and whether that can be. */

import { BlockError } from "../base/errors.ts";
import type { BlockChild } from "./child.ts";
import type { BlockNode } from "./node.ts";
import {
  type ChildPermissions,
  defaultChildPermissions,
  Perm,
  permissionNames,
} from "./permissions.ts";

/**
 * What every edge below `nodes` takes and shares from now on; changes nothing.
 *
 * @param twinsOf other nodes with the same bytes (BlockState.identity)
 * @throws BlockError EPERM if two users of a node conflict, EROFS if one would write where nothing can
 */
export function planPermissions(
  nodes: readonly BlockNode[],
  twinsOf: (node: BlockNode) => readonly BlockNode[],
): ReadonlyMap<BlockChild, ChildPermissions> {
  const plan = new Map<BlockChild, ChildPermissions>();
  const planned = (edge: BlockChild) => plan.get(edge) ?? edge.permissions;

  const visit = (node: BlockNode): void => {
    const edges = [...node.parents];
    checkConflicts(node, edges, planned);
    for (const twin of twinsOf(node)) checkTwin(node, edges, twin, planned);
    let take: number = Perm.none;
    let share: number = Perm.all;
    for (const edge of edges) {
      take |= planned(edge).take;
      share &= planned(edge).share;
      checkReadOnly(node, edge, planned(edge).take);
    }
    for (const [role, edge] of node.children) {
      const { take: needed, share: shared } =
        node.driver.childPermissions?.(
          role,
          { take, share },
          !node.writesBelow,
          node.options as never,
        ) ?? defaultChildPermissions(node.driver.kind, role, { take, share }, !node.writesBelow);
      const { forceShare } = edge.node.settings;
      const wanted = { take: needed, share: forceShare ? Perm.all : shared };
      const now = planned(edge);
      if (now.take === wanted.take && now.share === wanted.share && plan.has(edge)) continue;
      plan.set(edge, wanted);
      visit(edge.node);
    }
  };
  for (const node of nodes) visit(node);
  return plan;
}

function checkReadOnly(node: BlockNode, user: BlockChild, take: number): void {
  const writing = take & (Perm.write | Perm.writeUnchanged | Perm.resize);
  if (!node.readOnly || writing === 0) return;
  throw new BlockError(
    "EROFS",
    `Node '${node.name}' is read-only, but ${user.parent.description} (as '${user.role}') needs ` +
      permissionNames(writing),
  );
}

function checkConflicts(
  node: BlockNode,
  edges: readonly BlockChild[],
  planned: (edge: BlockChild) => ChildPermissions,
): void {
  for (const user of edges) {
    for (const other of edges) {
      const refused = planned(user).take & ~planned(other).share;
      if (user === other || refused === 0) continue;
      throw new BlockError(
        "EPERM",
        `Permission conflict on node '${node.name}': ${user.parent.description} (as '${user.role}') ` +
          `needs ${permissionNames(refused)}, which ${other.parent.description} ` +
          `(as '${other.role}') does not share`,
      );
    }
  }
}

/** The users of two nodes with the same bytes, as if these were one node. */
function checkTwin(
  node: BlockNode,
  edges: readonly BlockChild[],
  twin: BlockNode,
  planned: (edge: BlockChild) => ChildPermissions,
): void {
  for (const user of edges) {
    for (const other of twin.parents) {
      const [mine, theirs] = [planned(user), planned(other)];
      const refused = mine.take & ~theirs.share;
      const missed = theirs.take & ~mine.share;
      if ((refused | missed) === 0) continue;
      throw new BlockError(
        "EPERM",
        `Permission conflict on node '${node.name}', which has the same bytes as node ` +
          `'${twin.name}': ${user.parent.description} (as '${user.role}') and ` +
          `${other.parent.description} (as '${other.role}') do not share ` +
          permissionNames(refused | missed),
      );
    }
  }
}
