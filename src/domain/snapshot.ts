/**
 * snapshotCreate() of disks alone: each disk gets a new image on top, and what was the top stays as it is.
 * The new image goes on recording what the checkpoints record.
 *
 *     [vda]      [vda] <── [vda.snap1]
 */

import * as v from "valibot";
import {
  addAction,
  findBitmap,
  queryBitmaps,
  runTransaction,
  type TransactionAction,
  validBitmaps,
} from "./bitmaps.ts";
import { nodesOf } from "./chain.ts";
import { formatSchema, nameSchema } from "./definition.ts";
import { DomainError } from "./errors.ts";
import { SNAPSHOT_CREATE } from "./flags.ts";
import { closeNodes, discardImages, makeImage, openImage, sizeOf } from "./images.ts";
import type { Operation } from "./operation.ts";
import { putOnTop } from "./overlay.ts";
import { formatNode, type Layer } from "./record.ts";
import { checkSource, fromPath, pathOf, sourceSchema } from "./source.ts";
import { checkNoJob, isRefused } from "./start-job.ts";

export const snapshotSchema = v.strictObject({
  /** Default: the time, in seconds. New images are named after it. */
  name: v.optional(nameSchema),
  /** Those that are not listed are left out; without a list all are in that can be written. */
  disks: v.optional(
    v.array(
      v.strictObject({
        /** Target or path. */
        name: v.string(),
        format: v.optional(formatSchema),
        source: v.optional(sourceSchema),
      }),
    ),
  ),
});
export type SnapshotDefinition = v.InferOutput<typeof snapshotSchema>;
type Listed = NonNullable<SnapshotDefinition["disks"]>[number];

/** @param flags of SNAPSHOT_CREATE */
export async function snapshot(
  op: Operation,
  definition: SnapshotDefinition,
  flags: number,
): Promise<void> {
  if (!(flags & SNAPSHOT_CREATE.DISK_ONLY)) {
    const text = "There is no machine whose memory a snapshot could have: use DISK_ONLY";
    throw new DomainError("OPERATION_UNSUPPORTED", text);
  }
  const { name = `${op.host.clock.timestamp().seconds}` } = definition;
  const isNew = !(flags & SNAPSHOT_CREATE.REUSE_EXT);
  const chosen = chooseDisks(op, definition);
  const overlays = new Map<string, Layer>();
  try {
    for (const [target, { format = "qcow2", source }] of chosen) {
      const disk = op.disk(target);
      if (format !== "qcow2")
        throw new DomainError("CONFIG_UNSUPPORTED", "An overlay has to be a qcow2");
      const [top] = disk.layers;
      const path = pathOf(top!.source);
      if (!source && path === null) {
        const text = `The image of '${disk.target}' has no path: say where its overlay is to be`;
        throw new DomainError("CONFIG_UNSUPPORTED", text);
      }
      const where = source ?? fromPath(`${path}.${name}`);
      checkSource(where, "INVALID_ARG");
      // blockdev-snapshot gives it its backing image.
      const layer = isNew
        ? await makeImage(op, {
            format,
            source: where,
            size: await sizeOf(op, top!),
            backing: { layer: top!, node: null },
            taken: "CONFIG_UNSUPPORTED",
          })
        : await open(op, { n: op.newLayerNumber(), format, source: where });
      overlays.set(disk.target, layer);
    }
    // Kept first: from the transaction on the guest may write to it, whoever is there to hear the reply.
    for (const [target, overlay] of overlays) op.disk(target).overlay = overlay;
    await op.save();
    const table = await queryBitmaps(op);
    const actions = [...overlays].flatMap(([target, overlay]): TransactionAction[] => {
      const disk = op.disk(target);
      const [top] = disk.layers;
      const names = validBitmaps(disk, table);
      const bitmaps = names.map((bitmap) => {
        const { granularity } = findBitmap(table, top!, bitmap)!;
        return addAction(overlay, bitmap, { persistent: true, granularity });
      });
      const data = { node: formatNode(top!), overlay: formatNode(overlay) };
      return [...bitmaps, { type: "blockdev-snapshot", data }];
    });
    await runTransaction(op, actions);
  } catch (error) {
    if (!isRefused(error)) throw error;
    // Before its file goes: what is on record is taken for the top if its node is not there.
    for (const disk of op.record.disks) delete disk.overlay;
    await op.save();
    await undo(op, [...overlays.values()], isNew);
    throw error;
  }
  for (const disk of op.record.disks) putOnTop(op, disk);
  await op.save();
}

/** By target. @throws DomainError CONFIG_UNSUPPORTED; BLOCK_COPY_ACTIVE, OPERATION_UNSUPPORTED if one has a job */
function chooseDisks(op: Operation, { disks = [] }: SnapshotDefinition): Map<string, Listed> {
  const refuse = (text: string): never => {
    throw new DomainError("CONFIG_UNSUPPORTED", text);
  };
  const all = op.record.disks;
  const writable = all.filter(({ readonly }) => !readonly).map(({ target }) => ({ name: target }));
  const chosen = new Map<string, Listed>();
  for (const listed of disks.length > 0 ? disks : writable) {
    const { name } = listed;
    const disk = all.find(({ target, layers }) =>
      [target, pathOf(layers[0]!.source)].includes(name),
    );
    if (!disk) return refuse(`There is no disk '${name}' to be overlaid`);
    if (chosen.has(disk.target)) refuse(`Disk '${disk.target}' is there twice`);
    if (disk.readonly) refuse(`Disk '${disk.target}' is read-only`);
    checkNoJob(op, disk);
    chosen.set(disk.target, listed);
  }
  if (chosen.size === 0) refuse("No disk is to be overlaid");
  return chosen;
}

async function open(op: Operation, layer: Layer): Promise<Layer> {
  op.record.leftovers.push(...nodesOf([layer]));
  await op.save();
  await openImage(op, layer, { readOnly: false, backing: null });
  return layer;
}

async function undo(op: Operation, layers: readonly Layer[], isNew: boolean): Promise<void> {
  await (isNew ? discardImages(op, layers) : closeNodes(op, nodesOf(layers)));
  await op.save();
}
