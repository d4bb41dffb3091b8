/**
 * What a mirror job holds of the graph: which nodes, with what permissions, and which links must
 * stay as they are.
 *
 *     device ──▶ [mirror_top] ══▶ [throttle] ══▶ [data] ──▶ [backing]      [target]
 *                    └─ frozen, down to where the bitmap is ─┘
 *
 *     device ──▶ [mirror_top] ══▶ [top] ══▶ [mid] ══▶ [base]               active commit
 */

import type { BlockBackend } from "../block/backend.ts";
import { getLength } from "../block/io.ts";
import type { BlockNode } from "../block/node.ts";
import { Perm } from "../block/permissions.ts";
import { linkDown, skipFilters } from "../block/status.ts";
import type { BlockJob } from "./block-job.ts";
import { nodesBetween } from "./commit-plan.ts";
import type { MirrorSetup } from "./mirror.ts";
import type { Mirror } from "./mirror-end.ts";

/** Permissions, blocks and frozen links of the table in the QEMU notes. */
export function takeNodes(
  job: BlockJob,
  setup: MirrorSetup,
  mirror: Mirror,
): { reader: BlockBackend; writer: BlockBackend } {
  const { source, target } = setup;
  const { filter, holds } = mirror;
  const isCommit = setup.type === "commit";
  const { consistentRead, writeUnchanged, write, resize, none, all } = Perm;
  const reading = consistentRead | writeUnchanged | write;
  const hold = (node: BlockNode, take: number, share: number) => {
    const backend = job.addNode(node, { take, share });
    holds.push(backend);
    return backend;
  };
  const reader = hold(filter, consistentRead, reading);
  job.block(filter);
  // Not among the holds: it keeps the target open until the very end.
  job.addNode(target, { take: none, share: all });
  job.block(target);
  for (const node of nodesOf(setup)) {
    // Between the disks of a commit nobody may rely on what he reads; but a filter right above the
    // target shows what the target is, to whoever likes that.
    const isBetween = isCommit && node !== source && skipFilters(node) !== skipFilters(target);
    hold(node, none, isBetween ? writeUnchanged | write : reading);
    job.block(node);
  }
  const isShort = isCommit && getLength(target) < getLength(source);
  const writer = hold(
    target,
    write | (isShort ? resize : none),
    isCommit ? reading : writeUnchanged,
  );
  for (const node of [filter, ...nodesOf(setup)]) {
    const link = linkDown(node);
    // The bitmap is on the data node: what is between it and the filter must stay; and all of the
    // chain in a commit.
    if (link && (isCommit || node.driver.kind === "filter")) job.freeze(link);
  }
  return { reader, writer };
}

/** All of the source that is the job's: in a commit down to the last node above the target. */
export function nodesOf({ type, source, target }: MirrorSetup): BlockNode[] {
  return type === "commit" ? nodesBetween(source, target) : filtersAndData(source);
}

/** From the source down to the node that holds its data. */
export function filtersAndData(source: BlockNode): BlockNode[] {
  const data = skipFilters(source);
  return [...nodesBetween(source, data), data];
}

/** Both disks' images: first the one that the bitmap is of, and in a commit all down to the target. */
export function imagesOf(setup: MirrorSetup): BlockNode[] {
  const all = [setup.source, ...nodesOf(setup), setup.target].map(skipFilters);
  return [...new Set(all)];
}

/** Cluster size of a target whose backing file is named, but not open; else 0. */
export function wholeClusters(target: BlockNode): number {
  const { state, children } = skipFilters(target);
  const isBacked = state.info?.()["backing-filename"] !== undefined;
  return isBacked && !children.has("backing") ? state.limits.clusterSize : 0;
}

/** Keeps other operations away while no job does it yet. @returns to end that */
export function claim(nodes: Iterable<BlockNode>, type: string): () => void {
  const claimed = new Set(nodes);
  const blocker = { reason: `block device is in use by block job: ${type}` };
  for (const node of claimed) node.blockers.add(blocker);
  return () => {
    for (const node of claimed) node.blockers.delete(blocker);
  };
}
