/** Starts the mirror job, and changes it (QEMU: qapi/block-core.json). */

import * as v from "valibot";
import { type MirrorOptions, startMirror } from "../../blockjob/mirror.ts";
import { COPY_MODES, MIRROR_SYNCS } from "../../blockjob/mirror-options.ts";
import { ON_ERROR_POLICIES } from "../../blockjob/on-error.ts";
import { command, int, nothing } from "../schema.ts";
import { union } from "../union.ts";
import { getBlockJob } from "./job.ts";

/** What blockdev-mirror and drive-mirror have in common. */
export const mirrorCommon = {
  "job-id": v.optional(v.string()),
  /** Name of a device, or of a node that no other node uses. */
  device: v.string(),
  /** Name of the node that the target takes the place of; default: the device's. */
  replaces: v.optional(v.string()),
  /** What is copied of what is there already. */
  sync: v.picklist(MIRROR_SYNCS),
  /** Bytes per second; 0 is unlimited. */
  speed: v.optional(int),
  /** Bytes; a power of two from 512 to 64 MiB. */
  granularity: v.optional(int),
  /** Most bytes held in memory. */
  "buf-size": v.optional(int),
  "on-source-error": v.optional(v.picklist(ON_ERROR_POLICIES)),
  "on-target-error": v.optional(v.picklist(ON_ERROR_POLICIES)),
  /** Whether guests' writes wait for the target. Default background. */
  "copy-mode": v.optional(v.picklist(COPY_MODES)),
  "auto-finalize": v.optional(v.boolean()),
  "auto-dismiss": v.optional(v.boolean()),
};

type MirrorCommonArgs = v.InferOutput<v.StrictObjectSchema<typeof mirrorCommon, undefined>>;

/** The arguments, as the job takes them. */
export function mirrorOptions(args: MirrorCommonArgs): Omit<MirrorOptions, "target"> {
  return {
    jobId: args["job-id"],
    device: args.device,
    replaces: args.replaces,
    sync: args.sync,
    speed: args.speed,
    granularity: args.granularity,
    bufSize: args["buf-size"],
    onSourceError: args["on-source-error"],
    onTargetError: args["on-target-error"],
    copyMode: args["copy-mode"],
    autoFinalize: args["auto-finalize"],
    autoDismiss: args["auto-dismiss"],
  };
}

export const blockdevMirror = command({
  name: "blockdev-mirror",
  doc: "Starts a job that makes another node the same as a disk, and keeps it so until it ends.",
  args: {
    ...mirrorCommon,
    /** Name of a node of the same size. */
    target: v.string(),
    "filter-node-name": v.optional(v.string()),
    /** A promise that the target reads as zeroes everywhere. */
    "target-is-zero": v.optional(v.boolean()),
  },
  returns: nothing,
  alone: true,
  async run(context, args) {
    await startMirror(context, {
      ...mirrorOptions(args),
      target: args.target,
      filterNodeName: args["filter-node-name"],
      targetIsZero: args["target-is-zero"],
    });
    return {};
  },
});

const jobChangeOptions = union(
  "type",
  { id: v.string() },
  { mirror: { "copy-mode": v.picklist(COPY_MODES) } },
);

export const blockJobChange = command({
  name: "block-job-change",
  doc: "Changes a running job: a mirror's copy mode, from background to write-blocking.",
  args: {
    id: v.string(),
    /** The job's type, which decides what else there is to say. */
    type: v.literal("mirror"),
    "copy-mode": v.picklist(COPY_MODES),
  },
  exactArgs: () => jobChangeOptions,
  returns: nothing,
  run({ jobs }, { id, type, "copy-mode": copyMode }) {
    getBlockJob(jobs, id).change({ type, copyMode });
    return {};
  },
});
