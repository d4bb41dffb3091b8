/** Starts the stream job (QEMU: qapi/block-core.json). */

import * as v from "valibot";
import { startStream } from "../../blockjob/stream.ts";
import { command, int, nothing } from "../schema.ts";

export const blockStream = command({
  name: "block-stream",
  doc: "Starts a job that copies what an overlay inherits from its backing files into it.",
  args: {
    "job-id": v.optional(v.string()),
    /** Name of a device or node. */
    device: v.string(),
    /** At most one of the next three. Without any the whole chain is pulled. */
    base: v.optional(v.string()),
    "base-node": v.optional(v.string()),
    bottom: v.optional(v.string()),
    "backing-file": v.optional(v.string()),
    "backing-mask-protocol": v.optional(v.boolean()),
    /** Bytes per second; 0 is unlimited. */
    speed: v.optional(int),
    "on-error": v.optional(v.picklist(["report", "ignore", "enospc", "stop", "auto"])),
    "filter-node-name": v.optional(v.string()),
    "auto-finalize": v.optional(v.boolean()),
    "auto-dismiss": v.optional(v.boolean()),
  },
  returns: nothing,
  alone: true,
  async run(context, args) {
    await startStream(context, {
      jobId: args["job-id"],
      device: args.device,
      base: args.base,
      baseNode: args["base-node"],
      bottom: args.bottom,
      backingFile: args["backing-file"],
      maskProtocol: args["backing-mask-protocol"],
      speed: args.speed ?? 0,
      onError: args["on-error"] ?? "report",
      filterNodeName: args["filter-node-name"],
      autoFinalize: args["auto-finalize"] ?? true,
      autoDismiss: args["auto-dismiss"] ?? true,
    });
    return {};
  },
});
