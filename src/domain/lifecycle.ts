/**
 * Domains come and go: create() opens the chains of a definition and exports each disk as a device,
 * destroy() ends what works on them and closes all. There is no guest in between: whoever opens the devices
 * is the guest.
 */

import { QmpError } from "../engine/client.ts";
import { nodesOf } from "./chain.ts";
import { settleCheckpoints } from "./checkpoint.ts";
import { settleCreation } from "./creations.ts";
import { type DiskDefinition, imageOf, layersOf } from "./definition.ts";
import { removeDevice } from "./devices.ts";
import { END_STATES, LIFECYCLE } from "./enums.ts";
import { DomainError } from "./errors.ts";
import { conclude, type Outcome } from "./finish.ts";
import { closeNodes, creationId, openImage } from "./images.ts";
import type { Operation, Qmp } from "./operation.ts";
import { settleOverlays } from "./overlay.ts";
import { type DiskRecord, deviceId, formatNode, type Layer } from "./record.ts";
import { unlessNeedless } from "./start-job.ts";

/** @throws DomainError OPERATION_INVALID if it runs; QmpError what cannot be opened, and then nothing is */
export async function create(op: Operation): Promise<void> {
  const { record, host } = op;
  if (record.state !== "shutoff") {
    throw new DomainError("OPERATION_INVALID", `Domain '${op.entry.name}' is already running`);
  }
  record.id = host.record.nextId++;
  record.state = "starting";
  record.disks = record.definition.disks.map(({ target, readonly = false, ...image }) => ({
    target,
    readonly,
    layers: layersOf(image).map((layer) => ({ n: op.newLayerNumber(), ...layer })),
    badBitmaps: [],
  }));
  await op.save();
  try {
    // What somebody else had in use when the domain stopped would keep its images from being opened.
    await closeNodes(op, record.leftovers);
    for (const disk of record.disks) await openDisk(op, disk);
    await settleCheckpoints(op);
  } catch (error) {
    await clear(op);
    throw error;
  }
  record.state = "running";
  await op.save();
  op.entry.object.setRunning(true);
  host.emit({ event: "lifecycle", domain: op.entry.name, type: LIFECYCLE.STARTED });
}

async function openDisk(op: Operation, disk: DiskRecord): Promise<void> {
  let backing: string | null = null;
  for (const layer of disk.layers.toReversed()) {
    const readOnly = disk.readonly || layer !== disk.layers[0];
    await openImage(op, layer, { readOnly, backing });
    backing = formatNode(layer);
  }
  await addDevice(op, disk);
}

export async function addDevice(op: Operation, disk: DiskRecord): Promise<void> {
  await op.run("block-export-add", {
    type: "message-port",
    id: deviceId(op.record, disk),
    "node-name": formatNode(disk.layers[0]!),
    writable: !disk.readonly,
  });
}

/** Stops it, whatever works on it. */
export async function destroy(op: Operation): Promise<void> {
  op.record.state = "stopping";
  await op.save();
  await clear(op);
  op.host.emit({ event: "lifecycle", domain: op.entry.name, type: LIFECYCLE.STOPPED });
}

/** Stops it if nobody has a disk open and no block job is at work. @throws DomainError OPERATION_INVALID */
export async function shutdown(op: Operation): Promise<void> {
  await checkIdle(op);
  op.entry.object.setRunning(false);
  await destroy(op);
}

/** A disk as it is now, as one would define it. */
export function diskDefinition({ target, readonly, layers }: DiskRecord): DiskDefinition {
  return { target, ...(readonly && { readonly }), ...imageOf(layers) };
}

async function checkIdle(op: Operation): Promise<void> {
  const [job] = op.record.jobs;
  if (job) {
    const text = `Disk '${job.disk}' of domain '${op.entry.name}' has a ${job.kind} job`;
    throw new DomainError("OPERATION_INVALID", text);
  }
  const removed: DiskRecord[] = [];
  for (const disk of op.record.disks) {
    try {
      await removeDevice(op, deviceId(op.record, disk), "safe");
      removed.push(disk);
    } catch (error) {
      if (!(error instanceof QmpError) || error.errno !== undefined) throw error;
      for (const other of removed) await addDevice(op, other);
      throw new DomainError("OPERATION_INVALID", `Disk '${disk.target}' is in use`, error);
    }
  }
}

/**
 * Everything of the domain's leaves the engine; also what is there of a start that was broken off. Its jobs
 * come to their end first, each with all that follows from it: one that has switched has switched.
 */
export async function clear(op: Operation): Promise<void> {
  const { record } = op;
  await settleOverlays(op);
  for (const job of [...record.jobs]) {
    const outcome = await cancel(op, job.name);
    if (!END_STATES.includes(job.state)) job.state = "aborting";
    await conclude(op, job, outcome);
  }
  for (const layer of [...record.making]) await endCreation(op, layer);
  for (const disk of record.disks) await removeDevice(op, deviceId(record, disk), "hard");
  const layers = record.disks.flatMap((disk) => disk.layers);
  await closeNodes(op, [...new Set([...record.leftovers, ...nodesOf(layers)])]);
  Object.assign(record, { state: "shutoff", id: null, disks: [], making: [] });
  await op.save();
}

/** Whoever waits for it hears nothing of it any more. */
async function endCreation(op: Operation, layer: Layer): Promise<void> {
  const id = creationId(layer);
  const isThere = (await op.execute("query-jobs")).some((job) => job.id === id);
  if (isThere) await op.unlocked(() => over(op.host.qmp, id));
  await settleCreation(op, layer);
}

/** @returns how the job has ended, when it has; it is not dismissed */
export async function cancel(op: Operation, id: string): Promise<Outcome> {
  const find = async () => (await op.execute("query-jobs")).find((job) => job.id === id);
  let job = await find();
  if (!job) return { error: "The engine does not know it" };
  if (job.status !== "concluded") {
    await unlessNeedless(op.execute("job-cancel", { id }));
    await op.unlocked(() => over(op.host.qmp, id));
    job = await find();
  }
  return { error: job?.error };
}

/** Nobody calls this wait off: of a domain that has stopped half way nobody has any use. */
async function over(qmp: Qmp, id: string): Promise<void> {
  try {
    await qmp.waitForJob(id, "concluded");
  } catch (error) {
    // Somebody else has dismissed it.
    if (!(error instanceof QmpError) || error.errno !== "ENOENT") throw error;
  }
}
