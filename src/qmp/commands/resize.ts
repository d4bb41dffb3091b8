/** Larger disks (QEMU: qapi/block-core.json). */

import * as v from "valibot";
import { size } from "../../base/check.ts";
import { resizeNode } from "../../blockjob/resize.ts";
import { command, nothing } from "../schema.ts";
import { deviceOrNodeName } from "./snapshot-external.ts";

export const blockResize = command({
  name: "block_resize",
  doc: "Makes a disk larger, or a store any size; new bytes read as zeroes.",
  args: {
    /** One of the next two. */
    device: v.optional(v.string()),
    "node-name": v.optional(v.string()),
    /** In bytes. */
    size,
  },
  returns: nothing,
  alone: true,
  async run({ graph }, args) {
    await resizeNode(graph, deviceOrNodeName(args.device, args["node-name"]), args.size);
    return {};
  },
});
