/** Nodes that are read-only but for the time that a job writes to them. */

import { BlockError } from "../base/errors.ts";
import type { Graph } from "../block/graph.ts";
import type { BlockNode } from "../block/node.ts";

/**
 * Makes a node writable for `start`; if that fails, the node is as it was.
 *
 * @param start is told whether the node was read-only: then protect() it at the job's end
 * @throws BlockError EROFS and the like if nothing can write there
 */
export async function withWritable<T>(
  graph: Graph,
  node: BlockNode,
  start: (wasReadOnly: boolean) => Promise<T>,
): Promise<T> {
  const wasReadOnly = node.readOnly;
  // Before it is: who keeps a record of nodes shall not take it for one that stays writable.
  node.isLentForWriting = wasReadOnly;
  try {
    if (wasReadOnly) await graph.reopen(node, { readOnly: false });
  } catch (error) {
    node.isLentForWriting = false;
    throw error;
  }
  try {
    return await start(wasReadOnly);
  } catch (error) {
    if (wasReadOnly) await protect(graph, node);
    throw error;
  }
}

/**
 * The node becomes read-only again. Where that fails, as somebody else has come to write to it, it
 * stays writable: nothing is lost by that, and there is nothing that the job could still do.
 */
export async function protect(graph: Graph, node: BlockNode): Promise<void> {
  try {
    await graph.reopen(node, { readOnly: true });
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
  } finally {
    node.isLentForWriting = false;
  }
}
