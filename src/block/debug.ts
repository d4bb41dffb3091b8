/**
 * Named moments inside drivers, at which a test can stop a request or make the next one fail. Drivers
 * tell their file child what comes next; where that child is a blkdebug node it listens, and anywhere
 * else it costs a look (QEMU: BLKDBG_EVENT(), bdrv_debug_breakpoint() and its kin).
 *
 *   [qcow2] ── "l2_load" ──▶ [blkdebug] ──▶ [store]
 *                            stops here until resume(node, tag)
 */

import { BlockError } from "../base/errors.ts";
import type { BlockNode } from "./node.ts";

/** QEMU's names (BlkdebugEvent in qapi/block-core.json). Not all of them happen here. */
export const DEBUG_EVENTS = [
  "l1_update",
  "l1_grow_alloc_table",
  "l1_grow_write_table",
  "l1_grow_activate_table",
  "l2_load",
  "l2_update",
  "l2_update_compressed",
  "l2_alloc_cow_read",
  "l2_alloc_write",
  "read_aio",
  "read_backing_aio",
  "read_compressed",
  "write_aio",
  "write_compressed",
  "vmstate_load",
  "vmstate_save",
  "cow_read",
  "cow_write",
  "reftable_load",
  "reftable_grow",
  "reftable_update",
  "refblock_load",
  "refblock_update",
  "refblock_update_part",
  "refblock_alloc",
  "refblock_alloc_hookup",
  "refblock_alloc_write",
  "refblock_alloc_write_blocks",
  "refblock_alloc_write_table",
  "refblock_alloc_switch_table",
  "cluster_alloc",
  "cluster_alloc_bytes",
  "cluster_free",
  "flush_to_os",
  "flush_to_disk",
  "pwritev_rmw_head",
  "pwritev_rmw_after_head",
  "pwritev_rmw_tail",
  "pwritev_rmw_after_tail",
  "pwritev",
  "pwritev_zero",
  "pwritev_done",
  "empty_image_prepare",
  "l1_shrink_write_table",
  "l1_shrink_free_l2_clusters",
  "cor_write",
  "cluster_alloc_space",
  "none",
] as const;

export type DebugEvent = (typeof DEBUG_EVENTS)[number];

/** What a state that listens has. Tags are the caller's own names for its breakpoints. */
export interface DebugPoints {
  /**
   * The moment has come. Resolves at once, or when whoever stopped it lets it go on.
   *
   * @throws BlockError ECANCELED if the signal is raised while it is stopped
   */
  event(event: DebugEvent, signal?: AbortSignal): Promise<void>;
  addBreak(event: DebugEvent, tag: string): void;
  /** Takes the breakpoint away and lets those go on that it stopped. @returns false: none such */
  removeBreak(tag: string): boolean;
  /** Lets one stopped request go on. @returns false: none such */
  resume(tag: string): boolean;
  isSuspended(tag: string): boolean;
  /** Resolves when a request is stopped under this tag. @throws BlockError ECANCELED */
  suspended(tag: string, signal?: AbortSignal): Promise<void>;
}

/**
 * Stops the next request that comes to the event, once, until resume() (qemu-io: break). A stopped
 * request is under way: a drain waits for it, as for any other.
 *
 * @param node a blkdebug node, or one whose chain of file children leads to one
 * @throws BlockError ENOTSUP if there is none, for this and all functions below
 */
export function breakpoint(node: BlockNode, event: DebugEvent, tag: string): void {
  pointsOf(node).addBreak(event, tag);
}

/** qemu-io: remove_break. @throws BlockError ENOENT */
export function removeBreak(node: BlockNode, tag: string): void {
  if (!pointsOf(node).removeBreak(tag)) throw unknownTag(node, tag);
}

/** qemu-io: resume. @throws BlockError ENOENT */
export function resume(node: BlockNode, tag: string): void {
  if (!pointsOf(node).resume(tag)) throw unknownTag(node, tag);
}

export function isSuspended(node: BlockNode, tag: string): boolean {
  return pointsOf(node).isSuspended(tag);
}

/** Resolves when a request has stopped there (qemu-io: wait_break). @throws BlockError ECANCELED */
export function waitBreak(node: BlockNode, tag: string, signal?: AbortSignal): Promise<void> {
  return pointsOf(node).suspended(tag, signal);
}

function pointsOf(node: BlockNode): DebugPoints {
  for (let below: BlockNode | undefined = node; below; below = below.children.get("file")?.node) {
    if (below.state.debug) return below.state.debug;
  }
  throw new BlockError(
    "ENOTSUP",
    `Node '${node.name}' has no breakpoints: no blkdebug is below it`,
  );
}

function unknownTag(node: BlockNode, tag: string): BlockError {
  return new BlockError("ENOENT", `Node '${node.name}' has no breakpoint '${tag}'`);
}
