/**
 * Who decides what a run of the disk reads as: one layer's answer, and the whole chain's
 * (QEMU: bdrv_block_status() and bdrv_common_block_status_above() in block/io.c).
 */

import type { BlockChild } from "./child.ts";
import * as io from "./io.ts";
import type { BlockNode } from "./node.ts";

/** One run with one answer, of one layer. */
export interface BlockStatus {
  /** Length of the run from the asked offset; > 0, may be less than asked. */
  readonly bytes: number;
  /** This layer decides the content; nothing below shows through. */
  readonly allocated: boolean;
  /** The run is known to read as zeroes, as far as this layer decides. */
  readonly zero: boolean;
  /** There are bytes of the run in a file, which may be zeroes all the same. */
  readonly data: boolean;
  /** They are packed. */
  readonly compressed: boolean;
  /** Offset of the run in the file below, if there is one place to point at. */
  readonly offset?: number;
  /** Of data: where that is; the node itself, of a store. */
  readonly file?: BlockNode;
}

/** One run with one answer, of a chain. */
export interface ChainStatus {
  readonly bytes: number;
  /** The layer that decides, null if none of those asked does. */
  readonly node: BlockNode | null;
  readonly zero: boolean;
}

/** One run, allocated in one place of a chain. */
export interface DepthStatus {
  readonly bytes: number;
  readonly depth: number;
}

/** Below filters: the first node that holds data of its own. */
export function skipFilters(node: BlockNode): BlockNode {
  let below = node;
  while (below.driver.kind === "filter") below = io.fileOf(below).node;
  return below;
}

/** The next layer below `node`, filters left out on both sides; null at the chain's end. */
export function backingOf(node: BlockNode): BlockNode | null {
  const backing = skipFilters(node).children.get("backing");
  return backing === undefined ? null : skipFilters(backing.node);
}

/** The link that makes up the chain: to what is filtered, or to the backing file. */
export function linkDown(node: BlockNode): BlockChild | undefined {
  return node.children.get(node.driver.kind === "filter" ? "file" : "backing");
}

/** The layers from `top` down, filters left out. */
export function chainOf(top: BlockNode): BlockNode[] {
  const chain: BlockNode[] = [];
  for (let node: BlockNode | null = skipFilters(top); node; node = backingOf(node))
    chain.push(node);
  return chain;
}

/**
 * Which layer from `top` down to, but without, `base` decides the run at `offset`.
 *
 * A layer that ends before `offset` hides everything below it with zeroes, so it decides. Only
 * `top` itself is never asked past its end.
 *
 * @param base null: to the end of the chain
 */
export async function chainStatus(
  top: BlockNode,
  base: BlockNode | null,
  offset: number,
  bytes: number,
): Promise<ChainStatus> {
  let run = bytes;
  for (let node: BlockNode | null = top; node && node !== base; ) {
    if (node.driver.kind === "filter") {
      if (node.state.checkStatus) await node.state.checkStatus(offset, run);
      node = io.fileOf(node).node;
      continue;
    }
    const length = io.getLength(node);
    if (offset >= length) return { bytes: run, node, zero: true };
    const status = await io.blockStatus(node, offset, Math.min(run, length - offset));
    run = Math.min(run, status.bytes);
    if (status.allocated) return { bytes: run, node, zero: status.zero };
    node = node.children.get("backing")?.node ?? null;
  }
  return { bytes: run, node: null, zero: base === null };
}

/**
 * How many nodes down from `top`, which is 1, the run at `offset` is allocated; 0 if it is nowhere.
 * A filter counts as a node with what it stands before, as it does for QEMU.
 */
export async function depthStatus(
  top: BlockNode,
  offset: number,
  bytes: number,
): Promise<DepthStatus> {
  let run = bytes;
  let depth = 0;
  for (let node: BlockNode | undefined = top; node; node = linkDown(node)?.node) {
    depth++;
    const length = io.getLength(node);
    if (offset >= length) return { bytes: run, depth };
    const status = await io.blockStatus(node, offset, Math.min(run, length - offset));
    run = Math.min(run, status.bytes);
    if (status.allocated) return { bytes: run, depth };
  }
  return { bytes: run, depth: 0 };
}
