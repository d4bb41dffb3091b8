/** Names in images (QEMU: qapi/block.json). */

import * as v from "valibot";
import { changeBackingFile } from "../../blockjob/change-backing-file.ts";
import { command, nothing } from "../schema.ts";

export const changeBackingFileCommand = command({
  name: "change-backing-file",
  doc: "Changes the name that an image's header has for its backing file, and nothing else.",
  args: {
    /** The top of the chain. */
    device: v.string(),
    /** Whose header. */
    "image-node-name": v.string(),
    /** Empty: none. */
    "backing-file": v.string(),
  },
  returns: nothing,
  alone: true,
  async run({ graph }, args) {
    await changeBackingFile(graph, {
      device: args.device,
      imageNodeName: args["image-node-name"],
      backingFile: args["backing-file"],
    });
    return {};
  },
});
