/** States of disks kept inside their images (QEMU: qapi/block-core.json, qapi/migration.json). */

import * as v from "valibot";
import { snapshotJson } from "../../block/image-info.ts";
import {
  deleteInternalSnapshot,
  internalSnapshotAction,
} from "../../blockjob/internal-snapshot.ts";
import {
  startSnapshotDelete,
  startSnapshotLoad,
  startSnapshotSave,
} from "../../blockjob/snapshot.ts";
import { runTransaction } from "../../blockjob/transaction.ts";
import { command, nothing } from "../schema.ts";
import { snapshotInfo } from "../types.ts";

const jobArgs = {
  "job-id": v.string(),
  tag: v.string(),
  /** Node names. */
  devices: v.array(v.string()),
};
const vmStateArgs = {
  ...jobArgs,
  /** One of `devices`. QEMU keeps a machine's memory there; here is none, and nothing is kept. */
  vmstate: v.string(),
};

export const snapshotSave = command({
  name: "snapshot-save",
  doc:
    "Starts a job that takes a snapshot of several disks at one moment, inside their images. Disks " +
    "only: no memory of a machine. The job stays until job-dismiss.",
  args: vmStateArgs,
  returns: nothing,
  isOnce: true,
  run(context, args) {
    const { "job-id": jobId, tag, vmstate, devices } = args;
    startSnapshotSave(context, { jobId, tag, vmstate, devices });
    return {};
  },
});

export const snapshotLoad = command({
  name: "snapshot-load",
  doc:
    "Starts a job that makes several disks what they were when a snapshot was taken. Disks only: a " +
    "machine's memory, if it was saved, is left alone. The job stays until job-dismiss.",
  args: vmStateArgs,
  returns: nothing,
  isOnce: true,
  run(context, args) {
    const { "job-id": jobId, tag, vmstate, devices } = args;
    startSnapshotLoad(context, { jobId, tag, vmstate, devices });
    return {};
  },
});

export const snapshotDelete = command({
  name: "snapshot-delete",
  doc: "Starts a job that deletes a snapshot from several images. The job stays until job-dismiss.",
  args: jobArgs,
  returns: nothing,
  isOnce: true,
  run(context, args) {
    const { "job-id": jobId, tag, devices } = args;
    startSnapshotDelete(context, { jobId, tag, devices });
    return {};
  },
});

export const blockdevSnapshotInternalSync = command({
  name: "blockdev-snapshot-internal-sync",
  doc: "Takes a snapshot of one disk, inside its image.",
  args: {
    /** Name of a device or node. */
    device: v.string(),
    name: v.string(),
  },
  returns: nothing,
  isOnce: true,
  alone: true,
  async run(context, { device, name }) {
    await runTransaction([internalSnapshotAction(context, device, name)]);
    return {};
  },
});

export const blockdevSnapshotDeleteInternalSync = command({
  name: "blockdev-snapshot-delete-internal-sync",
  doc: "Deletes a snapshot from inside an image, and tells what it was.",
  args: {
    /** Name of a device or node. */
    device: v.string(),
    /** At least one of the next two; both must fit. */
    id: v.optional(v.string()),
    name: v.optional(v.string()),
  },
  returns: snapshotInfo,
  isOnce: true,
  alone: true,
  run: async (context, { device, id, name }) =>
    snapshotJson(await deleteInternalSnapshot(context, device, { id, name })),
});
