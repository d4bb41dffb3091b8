/** Nodes: making images, opening and closing them (QEMU: qapi/block-core.json). */

import * as v from "valibot";
import { startCreate } from "../../blockjob/create.ts";
import { command, nothing } from "../schema.ts";

export const blockdevCreate = command({
  name: "blockdev-create",
  doc: "Starts a job that makes a new, empty image. The job stays until job-dismiss.",
  args: {
    "job-id": v.string(),
    /** `driver`, and what that driver takes to make an image. */
    options: v.looseObject({ driver: v.string() }),
  },
  returns: nothing,
  async run(context, args) {
    await startCreate(context, { jobId: args["job-id"], options: args.options });
    return {};
  },
});

export const blockdevAdd = command({
  name: "blockdev-add",
  doc: "Opens a node, and the nodes that are nested in its options.",
  args: {
    driver: v.string(),
    "node-name": v.optional(v.string()),
  },
  open: true,
  returns: nothing,
  async run({ graph, signal }, args) {
    const { "node-name": nodeName, ...options } = args;
    await graph.add(
      { ...options, ...(nodeName !== undefined && { "node-name": nodeName }) },
      signal,
    );
    return {};
  },
});

export const blockdevDel = command({
  name: "blockdev-del",
  doc: "Flushes and closes a node that blockdev-add has opened and nothing uses.",
  args: { "node-name": v.string() },
  returns: nothing,
  async run({ graph }, args) {
    await graph.remove(args["node-name"]);
    return {};
  },
});
