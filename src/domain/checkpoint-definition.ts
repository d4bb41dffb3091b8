/**
 * What checkpointCreate() takes: libvirt's domaincheckpoint XML as plain JSON; and what that means for a domain
 * and its disks.
 *
 *     [one] <── [two] <── [three]      the last in the list is the current one: the parent of the next
 */

import * as v from "valibot";
import { layersOf, nameSchema } from "./definition.ts";
import { DomainError } from "./errors.ts";
import type { Operation } from "./operation.ts";
import type { CheckpointRecord, DomainRecord } from "./record.ts";
import { pathOf } from "./source.ts";

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

export const checkpointSchema = v.strictObject({
  /** Default: the time, in seconds. */
  name: v.optional(nameSchema),
  description: v.optional(v.string()),
  /** For CHECKPOINT_CREATE.REDEFINE: what it was. */
  parent: v.optional(nameSchema),
  creationTime: v.optional(count),
  /** Those that are not listed are left out; without a list all are in that can be written. */
  disks: v.optional(
    v.array(
      v.strictObject({
        /** Target or path. */
        name: v.string(),
        checkpoint: v.optional(v.picklist(["no", "bitmap"])),
        bitmap: v.optional(v.string()),
        /** checkpointGetDesc() tells it; here it means nothing. */
        size: v.optional(count),
      }),
    ),
  ),
});
export type CheckpointDefinition = v.InferOutput<typeof checkpointSchema>;
type Listed = NonNullable<CheckpointDefinition["disks"]>[number];

/** The parent of the next one. */
function current({ checkpoints }: DomainRecord): CheckpointRecord | undefined {
  return checkpoints.at(-1);
}

/** Those that it comes from, the nearest first. */
export function ancestors(
  { checkpoints }: Pick<DomainRecord, "checkpoints">,
  { parent }: Pick<CheckpointRecord, "parent">,
): CheckpointRecord[] {
  const found = checkpoints.find(({ name }) => name === parent);
  return found ? [found, ...ancestors({ checkpoints }, found)] : [];
}

/**
 * @param definition its parent counts if it is redefined; else that is the current one
 * @throws DomainError OPERATION_FAILED (name taken), XML_ERROR, INVALID_ARG (parent), CONFIG_UNSUPPORTED (disks)
 */
export function newCheckpoint(
  op: Operation,
  definition: CheckpointDefinition,
  isRedefined = false,
): CheckpointRecord {
  const { seconds } = op.host.clock.timestamp();
  const { name = `${seconds}`, description } = definition;
  if (isRedefined) checkRedefined(op.record, definition);
  checkFree(op.record, name, isRedefined);
  const parent = isRedefined ? definition.parent : current(op.record)?.name;
  return {
    name,
    ...(description !== undefined && { description }),
    ...(parent !== undefined && { parent }),
    creationTime: definition.creationTime ?? seconds,
    disks: alignDisks(op.record, name, definition.disks ?? []),
  };
}

/** What was cannot be made up. @throws DomainError XML_ERROR, INVALID_ARG */
function checkRedefined(record: DomainRecord, definition: CheckpointDefinition): void {
  const { name, creationTime, parent } = definition;
  if (name === undefined || creationTime === undefined) {
    throw new DomainError("XML_ERROR", "To be redefined a checkpoint needs name and creationTime");
  }
  if (parent === undefined) return;
  const line = ancestors(record, { parent });
  if (parent === name || line.some((one) => one.name === name)) {
    throw new DomainError("INVALID_ARG", `Checkpoint '${name}' cannot come from itself`);
  }
  if (line.length > 0) return;
  throw new DomainError("INVALID_ARG", `There is no checkpoint '${parent}' to be the parent`);
}

/** One that is there can be redefined, but not while its bitmaps come or go. @throws DomainError OPERATION_FAILED */
function checkFree({ checkpoints }: DomainRecord, name: string, isRedefined: boolean): void {
  const found = checkpoints.find((one) => one.name === name);
  if (!found || (isRedefined && !found.pending && !found.going)) return;
  throw new DomainError("OPERATION_FAILED", `There is a checkpoint '${name}' already`);
}

/** All disks of the domain, each with what is listed for it. @throws DomainError CONFIG_UNSUPPORTED */
function alignDisks(
  record: DomainRecord,
  checkpoint: string,
  listed: readonly Listed[],
): CheckpointRecord["disks"] {
  const refuse = (text: string): never => {
    throw new DomainError("CONFIG_UNSUPPORTED", text);
  };
  const disks = disksOf(record);
  if (disks.length === 0) refuse("A domain without disks has no checkpoints");
  const wishes = new Map<string, Listed>();
  for (const one of listed) {
    const disk = disks.find(({ target, path }) => one.name === target || one.name === path);
    if (!disk) return refuse(`There is no disk '${one.name}'`);
    if (wishes.has(disk.target)) refuse(`Disk '${disk.target}' is there twice`);
    if (disk.readonly && one.checkpoint !== "no") refuse(`Disk '${disk.target}' is read-only`);
    wishes.set(disk.target, one);
  }
  return disks.map(({ target, readonly, format }) => {
    const wish = wishes.get(target);
    const isIn = listed.length > 0 ? wish && wish.checkpoint !== "no" : !readonly;
    if (!isIn) return { name: target, checkpoint: "no" as const };
    if (wish?.bitmap !== undefined && wish.bitmap !== checkpoint) {
      refuse(`The bitmap of disk '${target}' must have the checkpoint's name, '${checkpoint}'`);
    }
    if (format !== "qcow2") refuse(`Disk '${target}' is not a qcow2, and keeps no bitmaps`);
    return { name: target, checkpoint: "bitmap" as const, bitmap: checkpoint };
  });
}

/** As they are; of a domain that does not run as they will be. */
function disksOf({ state, disks, definition }: DomainRecord) {
  const chains =
    state === "shutoff"
      ? definition.disks.map((disk) => ({ ...disk, layers: layersOf(disk) }))
      : disks;
  return chains.map(({ target, readonly = false, layers }) => {
    const { format, source } = layers[0]!;
    return { target, readonly, format, path: pathOf(source) };
  });
}

/** Puts a redefined one into the list: as the current one if it comes from that, or if there is none. */
export function putInList(record: DomainRecord, checkpoint: CheckpointRecord): void {
  const { name, parent } = checkpoint;
  const last = current(record)?.name;
  const before = record.checkpoints.findIndex((one) => one.name === name);
  const others = record.checkpoints.filter((one) => one.name !== name);
  const isCurrent = last === undefined || last === parent || last === name;
  const place = before < 0 ? others.length - 1 : before;
  record.checkpoints = others.toSpliced(isCurrent ? others.length : place, 0, checkpoint);
}

/** Takes one out. Its children come from its parent then, which is the current one if this was. */
export function takeOutOfList(record: DomainRecord, name: string): void {
  // As it is on record now: another one that went may have been its parent.
  const parent = record.checkpoints.find((one) => one.name === name)?.parent;
  const wasCurrent = current(record)?.name === name;
  const others = record.checkpoints
    .filter((one) => one.name !== name)
    .map((one) => (one.parent === name ? reparented(one, parent) : one));
  const isLast = (one: CheckpointRecord) => wasCurrent && one.name === parent;
  record.checkpoints = [...others.filter((one) => !isLast(one)), ...others.filter(isLast)];
}

function reparented(
  { parent: _old, ...checkpoint }: CheckpointRecord,
  parent: string | undefined,
): CheckpointRecord {
  return { ...checkpoint, ...(parent !== undefined && { parent }) };
}
