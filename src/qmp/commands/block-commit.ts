/** Starts the commit job (QEMU: qapi/block-core.json). */

import * as v from "valibot";
import { startCommit } from "../../blockjob/commit.ts";
import { ON_ERROR_POLICIES } from "../../blockjob/on-error.ts";
import { command, int, nothing } from "../schema.ts";

export const blockCommit = command({
  name: "block-commit",
  deprecated: ["base", "top"],
  doc: "Starts a job that merges layers of a chain into the image below them.",
  args: {
    "job-id": v.optional(v.string()),
    /** Name of a device, or of a node that nothing stands above. */
    device: v.string(),
    /** At most one of the next two; without any the deepest layer. */
    "base-node": v.optional(v.string()),
    base: v.optional(v.string()),
    /** At most one of the next two; without any the active layer: then it has to be completed. */
    "top-node": v.optional(v.string()),
    top: v.optional(v.string()),
    /** What the headers of the overlays shall say; not with the active layer. */
    "backing-file": v.optional(v.string()),
    "backing-mask-protocol": v.optional(v.boolean()),
    /** Bytes per second; 0 is unlimited. */
    speed: v.optional(int),
    "on-error": v.optional(v.picklist(ON_ERROR_POLICIES)),
    "filter-node-name": v.optional(v.string()),
    "auto-finalize": v.optional(v.boolean()),
    "auto-dismiss": v.optional(v.boolean()),
  },
  returns: nothing,
  alone: true,
  async run(context, args) {
    await startCommit(context, {
      jobId: args["job-id"],
      device: args.device,
      baseNode: args["base-node"],
      base: args.base,
      topNode: args["top-node"],
      top: args.top,
      backingFile: args["backing-file"],
      maskProtocol: args["backing-mask-protocol"],
      speed: args.speed,
      onError: args["on-error"],
      filterNodeName: args["filter-node-name"],
      autoFinalize: args["auto-finalize"],
      autoDismiss: args["auto-dismiss"],
    });
    return {};
  },
});
