/**
 * Before a job copies all of a disk: can its images hold what they claim? Asked before the job is there,
 * so that nothing is made or written for an image that only wants to fill the target.
 *
 * What a target has room for is not asked: ENOSPC is the job's to tell of, and its policy's to decide.
 */

import type { BlockNode } from "../block/node.ts";

/**
 * @param nodes those that may be copied from
 * @throws BlockError EIO; see qcow2/plausible.ts
 */
export async function checkSources(nodes: Iterable<BlockNode>): Promise<void> {
  for (const node of [...nodes]) {
    // One may have left the chain while another was asked.
    if (!node.isOpen) continue;
    node.enter();
    try {
      await node.state.checkPlausible?.();
    } finally {
      node.leave();
    }
  }
}
