/**
 * What a block-commit is asked to do: which nodes are merged into which, and whether that may be.
 *
 *     device ──▶ [active] ──▶ … ──▶ [overlay] ──▶ [top] ──▶ … ──▶ [lowest] ──▶ [base]
 *                                                 └────── merged into base ──────┘
 *
 * The order of the checks decides which of two refusals a client sees (QEMU: qmp_block_commit() in
 * blockdev.c).
 */

import { BlockError } from "../base/errors.ts";
import type { Graph } from "../block/graph.ts";
import { BlockNode } from "../block/node.ts";
import { Perm } from "../block/permissions.ts";
import { chainOf, linkDown, skipFilters } from "../block/status.ts";
import { findByFileName } from "./backing-names.ts";

/** The members of a commit's options that say what is merged into what. */
export interface CommitRange {
  /** Name of a device, or of a node that nothing stands above. */
  readonly device: string;
  /** At most one of these two; without any the deepest layer. */
  readonly baseNode?: string | undefined;
  readonly base?: string | undefined;
  /** At most one of these two; without any the active layer. */
  readonly topNode?: string | undefined;
  readonly top?: string | undefined;
  /** What to write into the overlays' headers instead of base's own name. */
  readonly backingFile?: string | undefined;
}

export interface CommitPlan {
  /** The node of the device. */
  readonly root: BlockNode;
  readonly top: BlockNode;
  readonly base: BlockNode;
  /** top … the last one above base, filters among them. */
  readonly merged: readonly BlockNode[];
  /** Guests write to top: it takes a mirror to keep up with them. */
  readonly isActive: boolean;
}

/**
 * @throws BlockError ENOENT (DeviceNotFound for the device), EINVAL (not in this chain, not in this
 *   order, options that do not fit), EBUSY (a job is at work there)
 */
export function planCommit(graph: Graph, range: CommitRange): CommitPlan {
  const root = findRoot(graph, range.device);
  root.checkOperation("commit-source");
  const top = findTop(graph, root, range);
  const base = findBase(graph, top, range);
  const merged = nodesBetween(top, base);
  // Of another job the user knows the layers it works on, and not the filter it has put in.
  const nodes = [...merged, base];
  for (const node of nodes) if (!node.implicit) node.checkOperation("commit-target");
  for (const node of nodes) node.checkOperation("commit-target");
  if (skipFilters(top) === skipFilters(base)) {
    throw new BlockError("EINVAL", `Node '${base.name}' cannot be committed into itself`);
  }
  const isTopOfAll = skipFilters(top) === skipFilters(root);
  const isWritten = [...top.parents].some(({ permissions }) => permissions.take & Perm.write);
  if (range.backingFile !== undefined && (isTopOfAll || isWritten)) {
    const why = isTopOfAll ? "is the active layer" : "has a writer on it";
    throw new BlockError(
      "EINVAL",
      `'backing-file' is for overlays above the top node, but '${top.name}' ${why}`,
    );
  }
  const isActive = isTopOfAll || isWritten;
  if (!isActive) {
    for (const overlay of overlaysAbove(top)) {
      overlay.checkOperation("commit-target");
      if (overlay.state.changeBackingFile) continue;
      const { name } = overlay.driver;
      throw new BlockError(
        "ENOTSUP",
        `Driver '${name}' of node '${overlay.name}' cannot change its backing file`,
      );
    }
  }
  return { root, top, base, merged, isActive };
}

/** The images whose backing file is `node`, directly or through filters. */
export function overlaysAbove(node: BlockNode): BlockNode[] {
  return [...node.parents].flatMap(({ parent, role }) => {
    if (!(parent instanceof BlockNode)) return [];
    if (role === "backing") return [parent];
    return role === "file" && parent.driver.kind === "filter" ? overlaysAbove(parent) : [];
  });
}

/** The nodes of a chain from `top` down to the last one above `base`, filters among them. */
export function nodesBetween(top: BlockNode, base: BlockNode): BlockNode[] {
  const nodes: BlockNode[] = [];
  for (let node: BlockNode | undefined = top; node && node !== base; ) {
    nodes.push(node);
    node = linkDown(node)?.node;
  }
  return nodes;
}

function findRoot(graph: Graph, device: string): BlockNode {
  let root: BlockNode;
  try {
    root = graph.getDeviceOrNode(device);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw new BlockError(error.errno, error.message, { class: "DeviceNotFound", cause: error });
  }
  for (const { parent } of root.parents) {
    if (!(parent instanceof BlockNode)) continue;
    throw new BlockError(
      "EINVAL",
      `Node '${root.name}' is below ${parent.description}: a commit needs the root of the chain`,
    );
  }
  return root;
}

function findTop(graph: Graph, root: BlockNode, range: CommitRange): BlockNode {
  exclude(range, "top", "topNode");
  if (range.topNode !== undefined) return inChain(root, graph.get(range.topNode));
  if (range.top === undefined) return root;
  const layers = chainOf(root);
  const top = findByFileName(layers, range.top) ?? notFound(range.top, root);
  // The active layer goes with the filters above it.
  return top === layers[0] ? root : top;
}

function findBase(graph: Graph, top: BlockNode, range: CommitRange): BlockNode {
  exclude(range, "base", "baseNode");
  if (range.baseNode !== undefined) return inChain(top, graph.get(range.baseNode));
  const layers = chainOf(top);
  if (range.base !== undefined)
    return findByFileName(layers, range.base) ?? notFound(range.base, top);
  if (layers.length === 1) {
    throw new BlockError("EINVAL", `Node '${top.name}' has no backing file to be committed into`);
  }
  return layers.at(-1)!;
}

function exclude(range: CommitRange, name: "top" | "base", node: "topNode" | "baseNode"): void {
  if (range[name] === undefined || range[node] === undefined) return;
  throw new BlockError("EINVAL", `'${name}' and '${name}-node' exclude each other`);
}

function inChain(from: BlockNode, node: BlockNode): BlockNode {
  for (let at: BlockNode | undefined = from; at; at = linkDown(at)?.node)
    if (at === node) return at;
  return notFound(node.name, from);
}

function notFound(name: string, from: BlockNode): never {
  throw new BlockError("EINVAL", `'${name}' is not in the chain of node '${from.name}'`);
}
