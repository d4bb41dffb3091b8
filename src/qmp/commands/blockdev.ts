/** Nodes: making images, opening and closing them (QEMU: qapi/block-core.json). */

import * as v from "valibot";
import { startAmend } from "../../blockjob/amend.ts";
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
  exactArgs: ({ createOptions }) =>
    v.strictObject({ "job-id": v.string(), options: createOptions }),
  returns: nothing,
  isOnce: true,
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
  exactArgs: ({ blockdevOptions }) => blockdevOptions,
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
  alone: true,
  async run({ graph }, args) {
    await graph.remove(args["node-name"]);
    return {};
  },
});

export const blockdevReopen = command({
  name: "blockdev-reopen",
  doc: "Gives nodes other options, all of them or none; what is left out goes back to its default.",
  args: {
    /** As blockdev-add takes them, complete. */
    options: v.array(v.looseObject({ driver: v.string() })),
  },
  exactArgs: ({ blockdevOptions }) => v.strictObject({ options: v.array(blockdevOptions) }),
  returns: nothing,
  alone: true,
  async run({ graph, replacing }, { options }) {
    const reopen = () => graph.reopenAll(options);
    // What was written to one place is not for the other.
    if (replacing && graph.movesBytes(options)) await replacing(reopen);
    else await reopen();
    return {};
  },
});

const amendArgs = {
  "job-id": v.string(),
  "node-name": v.string(),
  /** `driver`, which must be the node's, and what that driver takes to be changed. */
  options: v.looseObject({ driver: v.string() }),
  /** Also what could make the image unreadable. */
  force: v.optional(v.boolean()),
};

export const xBlockdevAmend = command({
  name: "x-blockdev-amend",
  doc: "Starts a job that changes an image's own properties. The job stays until job-dismiss.",
  args: amendArgs,
  exactArgs: ({ amendOptions }) => v.strictObject({ ...amendArgs, options: amendOptions }),
  returns: nothing,
  isOnce: true,
  run(context, args) {
    startAmend(context, {
      jobId: args["job-id"],
      nodeName: args["node-name"],
      options: args.options,
      force: args.force ?? false,
    });
    return {};
  },
});
