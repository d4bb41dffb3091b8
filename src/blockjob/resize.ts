/** block_resize (QEMU: blockdev.c, qmp_block_resize()). */

import type { Graph } from "../block/graph.ts";
import { Perm } from "../block/permissions.ts";

/**
 * Makes a disk `length` bytes long, with nothing else under way on it.
 *
 * @param name of a device or node
 * @throws BlockError ENOENT; EBUSY if a job has blocked it, or another node stands on it; EPERM if some user of the node does not
 *   let others resize it; EROFS; ENOTSUP where the driver cannot
 */
export async function resizeNode(graph: Graph, name: string, length: number): Promise<void> {
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
  try {
    await graph.drained([node], async () => {
      // It may be another node's place by now, or a job's.
      resizer.node.checkOperation("resize");
      resizer.node.checkNotBacking();
      await resizer.truncate(length);
    });
  } finally {
    await graph.closeBackend(resizer);
  }
}
