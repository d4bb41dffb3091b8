/** block_resize (QEMU: blockdev.c, qmp_block_resize()). */

import { getLength } from "../block/io.ts";
import { Perm } from "../block/permissions.ts";
import type { BlockJobServices } from "./block-job.ts";

/**
 * Makes a disk `length` bytes long, with nothing else under way on it.
 *
 * @param name of a device or node
 * @throws BlockError ENOENT; EBUSY if a job has blocked it, or another node stands on it; EPERM if some user of the node does not
 *   let others resize it; EROFS; ENOTSUP where the driver cannot
 */
export async function resizeNode(
  { graph, replacing }: Pick<BlockJobServices, "graph" | "replacing">,
  name: string,
  length: number,
): Promise<void> {
  const node = graph.getDeviceOrNode(name);
  node.checkOperation("resize");
  node.checkNotBacking();
  const resizer = graph.openBackend(node, {
    name: "",
    description: "block_resize",
    permissions: { take: Perm.resize, share: Perm.all },
    // Drained itself, it is what the drain is for.
    onDrain: { begin() {}, isQuiet: () => true, end() {} },
  });
  const resize = () =>
    graph.drained([node], async () => {
      // It may be another node's place by now, or a job's.
      resizer.node.checkOperation("resize");
      resizer.node.checkNotBacking();
      await resizer.truncate(length);
    });
  try {
    // What is cut off must not come back: zeroes are there if the disk grows again.
    if (replacing && length < getLength(node)) await replacing(resize);
    else await resize();
  } finally {
    await graph.closeBackend(resizer);
  }
}
