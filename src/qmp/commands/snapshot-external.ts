/** Snapshots by overlays (QEMU: qapi/block-core.json, qapi/transaction.json). */

import * as v from "valibot";
import { BlockError } from "../../base/errors.ts";
import type { Graph } from "../../block/graph.ts";
import { externalSnapshot, externalSnapshotSync } from "../../blockjob/external-snapshot.ts";
import { runTransaction, type TransactionAction } from "../../blockjob/transaction.ts";
import { command, nothing } from "../schema.ts";

/** The arguments, which are those of the transaction's action as well. */
export const snapshotArgs = {
  /** Name of a device or node. */
  node: v.string(),
  /** Name of a node that was opened with "backing": null. */
  overlay: v.string(),
};

export const snapshotSyncArgs = {
  /** One of the next two. */
  device: v.optional(v.string()),
  "node-name": v.optional(v.string()),
  /** "store:name", or a name in the store of the node's own file. */
  "snapshot-file": v.string(),
  "snapshot-node-name": v.optional(v.string()),
  format: v.optional(v.string()),
  mode: v.optional(v.picklist(["existing", "absolute-paths"])),
};

export const blockdevSnapshot = command({
  name: "blockdev-snapshot",
  doc: "Puts an overlay in a node's place, which keeps what it has.",
  args: snapshotArgs,
  returns: nothing,
  alone: true,
  async run({ graph }, { node, overlay }) {
    await runTransaction([externalSnapshot(graph, { node, overlay })]);
    return {};
  },
});

export const blockdevSnapshotSync = command({
  name: "blockdev-snapshot-sync",
  doc: "Makes an overlay and puts it in a node's place, which keeps what it has.",
  args: snapshotSyncArgs,
  returns: nothing,
  isOnce: true,
  alone: true,
  async run({ graph }, args) {
    await runTransaction([snapshotSyncAction(graph, args)]);
    return {};
  },
});

/** @param args of blockdev-snapshot-sync, checked */
export function snapshotSyncAction(
  graph: Graph,
  args: v.InferOutput<v.StrictObjectSchema<typeof snapshotSyncArgs, undefined>>,
): TransactionAction {
  const { device, "node-name": nodeName, "snapshot-node-name": overlayName } = args;
  const node = deviceOrNodeName(device, nodeName);
  if (nodeName !== undefined && overlayName === undefined) {
    throw new BlockError("EINVAL", "Parameter 'snapshot-node-name' is missing");
  }
  return externalSnapshotSync(graph, {
    node,
    snapshotFile: args["snapshot-file"],
    snapshotNodeName: overlayName,
    format: args.format ?? "qcow2",
    mode: args.mode ?? "absolute-paths",
  });
}

/** @throws BlockError EINVAL unless there is exactly one of them */
export function deviceOrNodeName(device: string | undefined, nodeName: string | undefined): string {
  const name = device ?? nodeName;
  if (name !== undefined && (device === undefined || nodeName === undefined)) return name;
  throw new BlockError("EINVAL", "Give either 'device' or 'node-name'");
}
