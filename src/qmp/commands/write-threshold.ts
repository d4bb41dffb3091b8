/** A word before a disk is full, for who enlarges it as it fills (QEMU: qapi/block-core.json). */

import * as v from "valibot";
import { size } from "../../base/check.ts";
import { command, nothing } from "../schema.ts";

export const blockSetWriteThreshold = command({
  name: "block-set-write-threshold",
  doc: "Sends BLOCK_WRITE_THRESHOLD, once, when a write to the node goes beyond an offset.",
  args: {
    "node-name": v.string(),
    /** In bytes of the node itself; 0: never. */
    "write-threshold": size,
  },
  returns: nothing,
  run({ graph, emit }, args) {
    graph
      .get(args["node-name"])
      .setWriteThreshold(args["write-threshold"], (data) =>
        emit({ event: "BLOCK_WRITE_THRESHOLD", data }),
      );
    return {};
  },
});
