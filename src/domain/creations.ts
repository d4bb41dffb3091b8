/**
 * Images that a driver was making when it was lost, or for a domain that was stopped meanwhile: nobody has any use for
 * them. The engine may be at it still, or may have ended while nobody looked, and keeps the job until it is dismissed.
 *
 *     its job       its node     the engine         the file
 *     at work       any          any                stays until the job has ended
 *     ended well    any          the same one       goes
 *     any other     open         the same one       goes
 *     any other     not there    any                stays: it may not be ours
 *     any           any          one that has       stays: somebody may have put another one there since
 *                                come back
 */

import { QmpError } from "../engine/client.ts";
import { nodesOf } from "./chain.ts";
import { dismiss, unlink } from "./finish.ts";
import { closeNodes, creationId, forgetMaking } from "./images.ts";
import type { Operation } from "./operation.ts";
import { type Layer, storageNode } from "./record.ts";

/** When the driver begins. What is at work still is dealt with as news, when it has ended. */
export async function takeUpCreations(op: Operation): Promise<void> {
  // Before anybody is asked, so that no end is missed.
  for (const layer of op.record.making) op.entry.lostCreations.add(creationId(layer));
  await settleCreations(op);
}

/** Those that have ended. The next save keeps that. */
export async function settleCreations(op: Operation): Promise<void> {
  const lost = op.record.making.filter((layer) => op.entry.lostCreations.has(creationId(layer)));
  for (const layer of lost) await settleCreation(op, layer);
  if (lost.length > 0) await op.save();
}

/** One of them, unless it is at work still. The next save keeps that. */
export async function settleCreation(op: Operation, layer: Layer): Promise<void> {
  const id = creationId(layer);
  const job = (await op.execute("query-jobs")).find((one) => one.id === id);
  if (job && job.status !== "concluded") return;
  const nodes = await op.execute("query-named-block-nodes", { flat: true });
  const isOpen = nodes.some((node) => node["node-name"] === storageNode(layer));
  const isOurs = isOpen || (job !== undefined && job.error === undefined);
  await closeNodes(op, nodesOf([layer]));
  // Somebody else has come to use it.
  const isKept = op.record.leftovers.includes(storageNode(layer));
  if (isOurs && !isKept && !(await hasComeBack(op))) await unlink(op, [layer.source]);
  if (job) await dismiss(op, id);
  op.entry.lostCreations.delete(id);
  forgetMaking(op, [layer]);
}

/** Is the engine one that goes on from the record of another? */
async function hasComeBack(op: Operation): Promise<boolean> {
  try {
    return (await op.execute("x-query-recovery")).length > 0;
  } catch (error) {
    if (error instanceof QmpError && error.class === "CommandNotFound") return false;
    throw error;
  }
}
