/** Larger disks (QEMU: qapi/block-core.json). */

import * as v from "valibot";
import { size } from "../../base/check.ts";
import { BlockError } from "../../base/errors.ts";
import { resizeNode } from "../../blockjob/resize.ts";
import { command, nothing } from "../schema.ts";

export const blockResize = command({
  name: "block_resize",
  doc: "Makes a disk larger, or a store any size; new bytes read as zeroes.",
  args: {
    /** One of the next two; of both the device counts, if there is one of that name. */
    device: v.optional(v.string()),
    "node-name": v.optional(v.string()),
    /** In bytes. */
    size,
  },
  returns: nothing,
  alone: true,
  async run(context, args) {
    const { graph } = context;
    const { device, "node-name": node } = args;
    const isDevice = graph.backends.some(({ name }) => name !== "" && name === device);
    const name = isDevice ? device : (node ?? device);
    if (name === undefined) throw new BlockError("ENOENT", "Give 'device' or 'node-name'");
    await resizeNode(context, name, args.size);
    return {};
  },
});
