/**
 * Before a job copies all of a disk: can its images hold what they claim? Asked before the job is there,
 * so that nothing is made or written for an image that only wants to fill the target.
 *
 * What a target has room for is not asked: ENOSPC is the job's to tell of, and its policy's to decide.
 */

import type { BlockNode } from "../block/node.ts";

/**
 * @param nodes those that may be copied from; the caller keeps them where they are
 * @throws BlockError EIO; see qcow2/plausible.ts
 */
export async function checkSources(nodes: Iterable<BlockNode>): Promise<void> {
  for (const { state } of nodes) await state.checkPlausible?.();
}
