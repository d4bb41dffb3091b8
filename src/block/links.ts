/**
 * The graph's edges: made, pointed elsewhere, taken away.
 *
 * Every change is synchronous and all or nothing: edges are changed, permissions are worked out anew
 * for everything below, and on a conflict the edges are put back. Whoever comes to stand above nodes
 * that are drained is drained with them.
 */

import { BlockError } from "../base/errors.ts";
import { BlockChild } from "./child.ts";
import type { Drains } from "./drain.ts";
import type { ChildRole } from "./driver.ts";
import { BlockNode } from "./node.ts";
import type { NodeTable } from "./node-table.ts";
import { roleMember } from "./options.ts";
import { planPermissions } from "./permission-plan.ts";
import { Perm } from "./permissions.ts";

export class Links {
  readonly #drains: Drains;
  readonly #table: NodeTable;

  constructor(drains: Drains, table: NodeTable) {
    this.#drains = drains;
    this.#table = table;
  }

  /**
   * A node gets a child, by an edge of its own.
   *
   * @throws BlockError EPERM, EROFS on a conflict; there is no edge then
   */
  add(parent: BlockNode, role: ChildRole, child: BlockNode): void {
    const edge = new BlockChild(parent, role, child, { take: Perm.none, share: Perm.all });
    parent.children.set(role, edge);
    child.parents.add(edge);
    try {
      this.refreshPermissions([parent]);
    } catch (error) {
      parent.children.delete(role);
      child.parents.delete(edge);
      throw error;
    }
    this.#drains.joinNew();
  }

  /** A root comes to stand above its node. @throws BlockError EPERM, EROFS on a conflict */
  addRoot(edge: BlockChild): void {
    const { node } = edge;
    node.parents.add(edge);
    try {
      this.refreshPermissions([node]);
    } catch (error) {
      node.parents.delete(edge);
      throw error;
    }
    this.#drains.joinNew();
  }

  /**
   * Gives all users of one node to another, but for those that the other one has below itself, and
   * those that stay (BlockDriver.staysAtChildren).
   *
   * @throws BlockError EBUSY if a link is frozen, EPERM on a conflict; nothing has changed then
   */
  giveUsers(from: BlockNode, to: BlockNode): void {
    const below = subtree(to);
    const moves = ({ parent }: BlockChild) =>
      !(parent instanceof BlockNode && (below.has(parent) || parent.driver.staysAtChildren));
    this.point([...from.parents].filter(moves), to);
  }

  /** Points edges at another node, all or none. @throws BlockError as giveUsers() */
  point(edges: readonly BlockChild[], target: BlockNode): void {
    for (const edge of edges) checkThawed(edge);
    const before = edges.map((edge) => edge.node);
    for (const { parent, role, node } of edges) {
      this.#drains.linkMoves(parent, role, node, target);
    }
    const move = (edge: BlockChild, node: BlockNode) => {
      edge.node.parents.delete(edge);
      edge.node = node;
      node.parents.add(edge);
    };
    for (const edge of edges) move(edge, target);
    try {
      // Those that lost an edge first: what a filter no longer passes on must not conflict.
      this.refreshPermissions([...before, target]);
    } catch (error) {
      for (const [i, edge] of edges.entries()) move(edge, before[i]!);
      throw error;
    }
    this.#drains.joinNew();
  }

  /**
   * Gives a node another child in a role, or none.
   *
   * @returns the one that it had, if that is another one
   * @throws BlockError EBUSY if the link is frozen, EINVAL for a circle, EPERM on a conflict
   */
  setChild(node: BlockNode, role: ChildRole, child: BlockNode | null): BlockNode | null {
    const edge = node.children.get(role);
    const old = edge?.node ?? null;
    if (old === child) return null;
    if (edge) checkThawed(edge);
    if (child && subtree(child).has(node)) {
      throw new BlockError(
        "EINVAL",
        `Node '${child.name}' cannot become the ${role} of node '${node.name}', on which it ` +
          "stands itself: the graph would become a circle",
      );
    }
    if (!edge || !child) this.#drains.linkMoves(node, role, old, child);
    if (edge && child) this.point([edge], child);
    else if (child) this.add(node, role, child);
    else if (edge) {
      node.children.delete(role);
      edge.node.parents.delete(edge);
      this.refreshPermissions([edge.node]);
    }
    return old;
  }

  /** @throws BlockError EPERM, EROFS on a conflict; no edge has changed then */
  refreshPermissions(nodes: readonly BlockNode[]): void {
    const plan = planPermissions(nodes, (node) => this.#table.twinsOf(node));
    for (const [edge, permissions] of plan) edge.permissions = permissions;
  }
}

function checkThawed(edge: BlockChild): void {
  if (!edge.frozen) return;
  throw new BlockError(
    "EBUSY",
    `The link '${linkName(edge)}' from ${edge.parent.description} to node '${edge.node.name}' is frozen by a job`,
  );
}

/** As blockdev-add has it. */
function linkName({ parent, role }: BlockChild): string {
  return parent instanceof BlockNode && role !== "root" ? roleMember(parent.driver, role) : role;
}

/** A node and all below it. */
function subtree(node: BlockNode): ReadonlySet<BlockNode> {
  const found = new Set<BlockNode>();
  const visit = (below: BlockNode): void => {
    if (found.has(below)) return;
    found.add(below);
    for (const edge of below.children.values()) visit(edge.node);
  };
  visit(node);
  return found;
}
