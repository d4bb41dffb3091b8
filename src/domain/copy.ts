/**
 * blockCopy(), and blockRebase() with COPY: a disk's bytes to another place, and from then on every write
 * to both, until an abort leaves the disk where it is, or a pivot takes it to the copy.
 *
 *     [base] <── [vda]  ══▶ [copy]            full
 *     [base] <── [vda]  ══▶ [copy] ──▶ [base] shallow: what base has is not copied
 */

import { checkNoLayer, nodesOf } from "./chain.ts";
import { checkChain, type ImageDefinition, layersOf } from "./definition.ts";
import { DomainError } from "./errors.ts";
import { BLOCK_COPY } from "./flags.ts";
import { adopt, closeNodes, discardImages, makeImage, openImage, sizeOf } from "./images.ts";
import type { Operation } from "./operation.ts";
import { type DiskRecord, formatNode, type Layer } from "./record.ts";
import { checkNoJob, isRefused, newJob, startJob } from "./start-job.ts";

export interface CopyOptions {
  readonly disk: string;
  readonly destination: ImageDefinition;
  /** Bytes per second; 0: no limit. */
  readonly speed: number;
  /** Bytes; 0: as the engine likes. */
  readonly granularity: number;
  readonly bufSize: number;
  /** Of BLOCK_COPY. */
  readonly flags: number;
}

export async function copy(op: Operation, options: CopyOptions): Promise<void> {
  const { destination, granularity, bufSize } = options;
  const disk = op.disk(options.disk);
  checkNoJob(op, disk);
  const [top] = disk.layers;
  let { flags } = options;
  // Nothing to be shallow about: libvirt takes the flag away without a word.
  if (disk.layers.length === 1) flags &= ~BLOCK_COPY.SHALLOW;
  checkDestination(disk, destination, flags);
  const isNew = (flags & BLOCK_COPY.REUSE_EXT) === 0;
  const mirror = isNew
    ? [await makeDestination(op, disk.target, destination, flags)]
    : await openDestination(op, disk.target, destination, flags);
  const job = {
    ...newJob(op, "copy", disk, top!, flags),
    mirror,
    ...(isNew && { unlink: [destination.source] }),
  };
  adopt(op, mirror);
  try {
    await startJob(op, job, () =>
      op.execute("blockdev-mirror", {
        "job-id": job.name,
        device: formatNode(top!),
        target: formatNode(mirror[0]!),
        sync: flags & BLOCK_COPY.SHALLOW ? "top" : "full",
        speed: options.speed,
        ...(granularity > 0 && { granularity }),
        ...(bufSize > 0 && { "buf-size": bufSize }),
        ...(flags & BLOCK_COPY.SYNCHRONOUS_WRITES && { "copy-mode": "write-blocking" as const }),
        "auto-dismiss": false,
      }),
    );
  } catch (error) {
    if (!isRefused(error) || op.job(job.serial)) throw error;
    await (isNew ? discardImages(op, mirror) : closeNodes(op, nodesOf(mirror)));
    await op.save();
    throw error;
  }
}

/** @throws DomainError INVALID_ARG, CONFIG_UNSUPPORTED */
function checkDestination(disk: DiskRecord, destination: ImageDefinition, flags: number): void {
  const isShallow = (flags & BLOCK_COPY.SHALLOW) !== 0;
  checkChain(destination, "INVALID_ARG");
  if (destination.backingStore && !isShallow) {
    const text = "A backingStore of the destination is for copies with the flag SHALLOW";
    throw new DomainError("INVALID_ARG", text);
  }
  checkNoLayer(disk, destination.source);
  if (isShallow && (destination.format ?? "raw") === "raw") {
    const text = "A shallow copy cannot be made into a raw image, which has no backing image";
    throw new DomainError("CONFIG_UNSUPPORTED", text);
  }
}

/** What a shallow copy stands on: its own chain if it has one, else the disk's. */
function below(op: Operation, target: string, flags: number): Layer | undefined {
  return flags & BLOCK_COPY.SHALLOW ? op.disk(target).layers[1] : undefined;
}

async function makeDestination(
  op: Operation,
  target: string,
  { format = "raw", source, backingStore }: ImageDefinition,
  flags: number,
): Promise<Layer> {
  if (backingStore) {
    const text = "A new destination stands on the disk's own chain: leave its backingStore out";
    throw new DomainError("INVALID_ARG", text);
  }
  const size = await sizeOf(op, op.disk(target).layers[0]!);
  const layer = below(op, target, flags);
  const backing = layer && { layer, node: formatNode(layer) };
  return makeImage(op, { format, source, size, backing, taken: "CONFIG_UNSUPPORTED" });
}

async function openDestination(
  op: Operation,
  target: string,
  destination: ImageDefinition,
  flags: number,
): Promise<Layer[]> {
  const layers = layersOf(destination).map((one): Layer => ({ n: op.newLayerNumber(), ...one }));
  op.record.leftovers.push(...nodesOf(layers));
  await op.save();
  const shared = layers.length === 1 ? below(op, target, flags) : undefined;
  let backing = shared ? formatNode(shared) : null;
  try {
    for (const layer of layers.toReversed()) {
      await openImage(op, layer, { readOnly: layer !== layers[0], backing });
      backing = formatNode(layer);
    }
  } catch (error) {
    if (isRefused(error)) await closeNodes(op, nodesOf(layers));
    throw error;
  }
  return layers;
}
