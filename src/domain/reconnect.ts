/**
 * The driver begins anew, beside an engine that may have gone on, may have been recovered from its journal, or
 * may be a new one. What the record says and what the engine knows are brought together:
 *
 *     record                     engine                      what follows
 *     its end                    -                           the last steps, again
 *     new                        does not know it            dropped, no event
 *     new                        has it                      running
 *     running                    ready                       READY
 *     ready, pivoting            running, from the start     running: READY will be told again
 *     pivoting                   ready                       ready: the pivot was not accepted
 *     aborting                   still at it                 told again to end
 *     any                        concluded, or in history    its end, as at any time
 *     any                        does not know it            the graph tells of a switch; else FAILED
 *     an overlay                 nothing below it            dropped; else it is the top of its disk
 *     a pending checkpoint       has its bitmap              made; without one: dropped
 *     a checkpoint that goes     may have some bitmaps       they go, and then it
 *     an image in the making     makes it still              closed, and its file removed, when it has ended
 *     a disk without a job       has no device for it        added again: a shutdown was broken off
 *     not understood             -                           cancelled, put aside; the disk is usable
 *     -                          not ours                    left alone
 *
 * If none of a domain's images is open, the engine is new: the domain has stopped, its jobs have failed.
 */

import { QmpError } from "../engine/client.ts";
import { cancelAll } from "./backup.ts";
import { settle } from "./backup-end.ts";
import { serveAgain, stopServing } from "./backup-serve.ts";
import { protectBelow } from "./bitmaps.ts";
import { indexOfLayer, nodesOf } from "./chain.ts";
import { settleCheckpoints } from "./checkpoint.ts";
import { takeUpCreations } from "./creations.ts";
import { removeDevice } from "./devices.ts";
import type { DomainEntry } from "./entry.ts";
import { END_STATES, LIFECYCLE, TWO_PHASE } from "./enums.ts";
import { conclude, dismiss, tell, tellCompleted, unlink } from "./finish.ts";
import { closeNodes } from "./images.ts";
import { addDevice, cancel, clear } from "./lifecycle.ts";
import { withJob } from "./locks/with-job.ts";
import { ready } from "./news.ts";
import { type Host, Operation, type Qmp } from "./operation.ts";
import { settleOverlays } from "./overlay.ts";
import { deviceId, formatNode, type JobRecord, type Layer } from "./record.ts";
import { describeSource, type Source } from "./source.ts";
import { isRefused, jobOf, unlessNeedless } from "./start-job.ts";

/** Jobs that the engine has done with, the newest first. */
type History = readonly {
  readonly id: string;
  readonly error?: string;
  readonly began: { readonly seconds: number; readonly microseconds: number };
}[];

export async function reconnect(host: Host, entry: DomainEntry): Promise<void> {
  const { object, record } = entry;
  if (record.state === "shutoff") return;
  object.setRunning(record.state === "running");
  await object.driver.call("the driver's start", (ctx) =>
    withJob(ctx, object, { class: "modify", offline: true }, async () => {
      const op = new Operation(host, entry, ctx);
      if (record.state !== "running") return clear(op);
      await settleOverlays(op);
      await takeUpCreations(op);
      if (!(await isOpen(op))) return crashed(op);
      const history = await queryHistory(host.qmp);
      await dropUnbegun(op, history);
      for (const job of [...record.jobs]) await takeUp(op, job, history);
      await takeUpBackup(op);
      await settleCheckpoints(op);
      await protectBelow(op);
      await addDevices(op);
      await closeNodes(op, record.leftovers);
      await op.save();
    }),
  );
}

/** A backup of which one disk has failed goes on to be called off; else its clients find all that is to be seen. */
async function takeUpBackup(op: Operation): Promise<void> {
  const { backup } = op.record;
  const isEnding = ["failed", "cancelled", "cancelling"];
  if (backup?.disks.some(({ state }) => isEnding.includes(state))) await cancelAll(op);
  else if (backup) await serveAgain(op, backup);
}

/** Under a job's filter one would go round it; and no job is there where a shutdown has begun. */
async function addDevices(op: Operation): Promise<void> {
  const exports = await op.execute("query-block-exports");
  for (const disk of op.record.disks) {
    const id = deviceId(op.record, disk);
    const found = exports.find((one) => one.id === id);
    if ((found && !found["shutting-down"]) || jobOf(op, disk.target)) continue;
    await removeDevice(op, id, "safe");
    try {
      await addDevice(op, disk);
    } catch (error) {
      // Its image is not open: whoever wants the device is told, and the other disks can be used.
      if (!isRefused(error)) throw error;
    }
  }
}

async function isOpen({ record, execute }: Operation): Promise<boolean> {
  const nodes = await execute("query-named-block-nodes", { flat: true });
  const names = new Set(nodes.map((node) => node["node-name"]));
  const layers = record.disks.flatMap((disk) => disk.layers);
  return layers.length === 0 || layers.some((layer) => names.has(formatNode(layer)));
}

const GONE = "The engine it ran in is gone";

async function crashed(op: Operation): Promise<void> {
  const { record, entry } = op;
  const { backup } = record;
  const useless: Source[] = [];
  for (const job of record.jobs) {
    const hasEnded = END_STATES.includes(job.state);
    if (!hasEnded) {
      job.error ??= GONE + whereElse(op, job);
      job.state = job.state === "aborting" ? "cancelled" : "failed";
    }
    // What is to go once it has ended is on record; of others it is a copy that is none.
    if (hasEnded || (job.kind === "copy" && !job.wasReady)) useless.push(...(job.unlink ?? []));
    tell(op, job);
  }
  if (backup) {
    for (const disk of backup.disks) if (disk.state !== "complete") disk.state = "failed";
    backup.error ??= GONE;
    useless.push(...settle(op, backup));
    tellCompleted(op, backup, record.completed!);
  }
  // Before the record forgets them: doing it twice does no harm. Stores are there of images that are not.
  const layers = [
    ...record.disks.flatMap((disk) => disk.layers),
    ...record.jobs.flatMap(targetsOf),
  ];
  await closeNodes(op, [...new Set([...record.leftovers, ...nodesOf(layers)])]);
  await unlink(op, useless);
  const nothing = { disks: [], jobs: [], backup: null, making: [] };
  Object.assign(record, { state: "shutoff", id: null, ...nothing });
  await op.save();
  entry.object.setRunning(false);
  op.host.emit({ event: "lifecycle", domain: entry.name, type: LIFECYCLE.CRASHED });
}

/** Of a pivot nobody knows whether it was done: if it was, a guest may have written to the new image since. */
function whereElse(
  { record }: Operation,
  { disk: name, base, kind, mirror, state }: JobRecord,
): string {
  const disk = record.disks.find(({ target }) => target === name);
  const to = kind === "copy" ? mirror?.[0] : disk?.layers[indexOfLayer(disk, base)];
  if (state !== "pivoting" || !to) return "";
  return `, amid a pivot: what was written last may be in '${describeSource(to.source)}'`;
}

/** @returns empty where the engine keeps none */
async function queryHistory(qmp: Qmp): Promise<History> {
  try {
    return (await qmp.execute("x-query-job-history" as never, {} as never)) as History;
  } catch (error) {
    if (error instanceof QmpError && error.class === "CommandNotFound") return [];
    throw error;
  }
}

/** How a job has ended that the engine does not list any more: names come again, so the run must be the same. */
function endOf(job: JobRecord, history: History): { readonly error?: string } | undefined {
  return history.find(
    ({ id, began }) =>
      id === job.name && began.seconds * 1000 + began.microseconds / 1000 >= job.began,
  );
}

/** Of a pull or commit: are the images that were to go out of the chain? The graph tells. */
async function isRelinked(op: Operation, job: JobRecord): Promise<boolean> {
  const disk = op.record.disks.find(({ target }) => target === job.disk);
  const top = job.kind === "commit" ? indexOfLayer(disk, job.top) - 1 : 0;
  const above = disk?.layers[top];
  const base = disk?.layers[indexOfLayer(disk, job.base)];
  // Where nothing was to go nothing can be told.
  if (!above || base === disk?.layers[top + 1]) return false;
  const nodes = await op.execute("query-named-block-nodes", { flat: true });
  const node = nodes.find((one) => one["node-name"] === formatNode(above));
  const backing = node?.children.find(({ child }) => child === "backing");
  return node !== undefined && backing?.["node-name"] === (base && formatNode(base));
}

/** Jobs of which the engine has never heard. */
async function dropUnbegun(op: Operation, history: History): Promise<void> {
  const { record } = op;
  const known = new Set((await op.execute("query-jobs")).map(({ id }) => id));
  const isUnbegun = (job: JobRecord) =>
    job.state === "new" && !known.has(job.name) && !endOf(job, history);
  const dropped = record.jobs.filter(isUnbegun);
  if (dropped.length === 0) return;
  // One transaction: none of a backup's jobs has begun.
  const backup = dropped.some(({ kind }) => kind === "backup") ? record.backup : null;
  // Before the jobs go: who is lost meanwhile finds them again, and stops it once more.
  if (backup) await stopServing(op, backup);
  // In one turn, as others save it, too.
  record.jobs = record.jobs.filter((job) => !isUnbegun(job));
  record.leftovers.push(...nodesOf(dropped.flatMap(targetsOf)));
  if (backup) record.backup = null;
  await op.save();
}

/** What it copies to, and has opened for that. */
function targetsOf({ mirror = [], store }: JobRecord): Layer[] {
  return [...mirror, ...(store ? [store] : [])];
}

async function takeUp(op: Operation, job: JobRecord, history: History): Promise<void> {
  if (job.kind === "broken") return putAside(op, job);
  if (END_STATES.includes(job.state)) return conclude(op, job, {});
  const found = (await op.execute("query-jobs")).find(({ id }) => id === job.name);
  if (!found) {
    const lost = { error: "The engine does not know it any more" };
    const isChain = job.kind === "pull" || job.kind === "commit";
    const isDone = isChain && (await isRelinked(op, job));
    return conclude(op, job, isDone ? {} : (endOf(job, history) ?? lost));
  }
  if (found.status === "concluded") return conclude(op, job, { error: found.error });
  if (job.state === "new") job.state = "running";
  if (job.state === "aborting") {
    if (found.status !== "aborting") {
      const force = !TWO_PHASE.includes(job.kind);
      await unlessNeedless(op.execute("block-job-cancel", { device: job.name, force }));
    }
    return;
  }
  const isReady = found.status === "ready" || found.status === "standby";
  if (!TWO_PHASE.includes(job.kind)) return;
  if (job.state === "pivoting") job.state = isReady ? "ready" : "running";
  if (job.state === "ready" && !isReady) job.state = "running";
  if (isReady) await ready(op, job);
}

/** Whatever it was: it ends, its record is kept for those who want to know, and the disk is usable. */
async function putAside(op: Operation, job: JobRecord): Promise<void> {
  await cancel(op, job.name);
  await dismiss(op, job.name);
  op.host.record.broken.push(job);
  op.record.jobs = op.record.jobs.filter((other) => other !== job);
  await op.save();
}
