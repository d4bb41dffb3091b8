/**
 * An overlay on its way onto a disk. It is on record before the transaction that puts it there, so that
 * whoever comes after a loss (the next driver, a destroy() amid the call) looks for it in the graph:
 *
 *     [libvirt-1-format]   [libvirt-2-format]          below it is nothing: it is not on the disk
 *     [libvirt-1-format] <── [libvirt-2-format]        it is, and has what the guest has written since
 *
 * Where the graph is gone with the engine it counts as the top: over the same image it reads the same if
 * nobody has written to it, and if somebody has, leaving it out would lose that.
 */

import { redefine } from "./finish.ts";
import { adopt } from "./images.ts";
import type { Operation } from "./operation.ts";
import { type DiskRecord, formatNode } from "./record.ts";

/** It is the top now. The next save keeps that. */
export function putOnTop(op: Operation, disk: DiskRecord): void {
  const { overlay } = disk;
  if (!overlay) return;
  const [top] = disk.layers;
  disk.layers = [overlay, ...disk.layers];
  delete disk.overlay;
  redefine(op.record, disk, top!);
  adopt(op, [overlay]);
}

/** Decides what has become of those that are on their way. Nodes of those that are not on a disk stay leftovers. */
export async function settleOverlays(op: Operation): Promise<void> {
  if (!op.record.disks.some(({ overlay }) => overlay)) return;
  const nodes = await op.execute("query-named-block-nodes", { flat: true });
  for (const disk of op.record.disks) {
    const { overlay } = disk;
    const node = overlay && nodes.find((one) => one["node-name"] === formatNode(overlay));
    if (node && !node.children.some(({ child }) => child === "backing")) delete disk.overlay;
    else putOnTop(op, disk);
  }
  await op.save();
}
