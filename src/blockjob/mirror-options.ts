/**
 * What blockdev-mirror takes, and which of it fits together (QEMU: blockdev_mirror_common() in
 * blockdev.c, mirror_start_job() in block/mirror.c). Nothing here changes anything.
 */

import { alignDown, alignUp, MiB } from "../base/bytes.ts";
import { BlockError } from "../base/errors.ts";
import { defaultGranularity } from "../block/bitmap-list.ts";
import type { Graph } from "../block/graph.ts";
import { getLength } from "../block/io.ts";
import { BlockNode } from "../block/node.ts";
import { backingOf, skipFilters } from "../block/status.ts";
import type { OnErrorPolicy } from "./on-error.ts";

/**
 * full   all of the disk
 * top    what the source's own layer holds, and what is written from now on
 * none   what is written from now on
 */
export const MIRROR_SYNCS = ["full", "top", "none"] as const;
export type MirrorSync = (typeof MIRROR_SYNCS)[number];

/**
 * background       guests write to the source; the job copies what they wrote later
 * write-blocking   guests' writes are done when both disks have them
 */
export const COPY_MODES = ["background", "write-blocking"] as const;
export type CopyMode = (typeof COPY_MODES)[number];

/**
 * The target's backing file when it takes the source's place:
 *
 *   leave    whatever it has (QEMU: MIRROR_LEAVE_BACKING_CHAIN)
 *   source   full: none; top: the source's; none: the source (QEMU: MIRROR_SOURCE_BACKING_CHAIN)
 */
export type BackingMode = "leave" | "source";

/** What every kind of mirror job takes. */
export interface MirrorManners {
  /** Bytes per second; 0 is unlimited. */
  readonly speed?: number | undefined;
  /** Bytes, a power of two, 512 .. 64 MiB; default: the target's cluster size in 4 .. 64 KiB. */
  readonly granularity?: number | undefined;
  /** Most bytes that are held in memory; default 16 MiB. */
  readonly bufSize?: number | undefined;
  readonly onSourceError?: OnErrorPolicy | undefined;
  readonly onTargetError?: OnErrorPolicy | undefined;
  readonly filterNodeName?: string | undefined;
  readonly autoFinalize?: boolean | undefined;
  readonly autoDismiss?: boolean | undefined;
}

export interface MirrorOptions extends MirrorManners {
  readonly jobId?: string | undefined;
  /** Name of a device, or of a node that no other node uses. */
  readonly device: string;
  /** Name of a node. */
  readonly target: string;
  /** Name of the node that the target takes the place of; default: the device's. */
  readonly replaces?: string | undefined;
  readonly sync: MirrorSync;
  readonly copyMode?: CopyMode | undefined;
  /** The caller's promise. */
  readonly targetIsZero?: boolean | undefined;
  /** Zero writes to the target may free what they cover; default true. */
  readonly unmap?: boolean | undefined;
  readonly backingMode?: BackingMode | undefined;
  /** See MirrorSetup; no command has it. */
  readonly intent?: string | undefined;
}

export interface MirrorPlan {
  readonly id: string;
  readonly source: BlockNode;
  readonly target: BlockNode;
  readonly sync: MirrorSync;
  /** Whose place the target takes. */
  readonly replaced: BlockNode;
}

export interface MirrorSizes {
  readonly granularity: number;
  readonly bufferBytes: number;
  /** Most bytes of one copy. */
  readonly chunkBytes: number;
}

const GRANULARITY_MIN = 512;
const GRANULARITY_MAX = 64 * MiB;
/**
 * One bit never stands for more: a larger granularity would only copy more than was written, and
 * with a speed limit in larger bursts.
 */
const GRANULE_BYTES_MAX = 1 * MiB;
const BUFFER_BYTES = 16 * MiB;
const CHUNK_BYTES_MIN = 1 * MiB;

/**
 * @throws BlockError ENOENT (device, target, replaces), EINVAL (what does not fit), EBUSY (another
 *   job is at work there), EEXIST (id)
 */
export function planMirror(graph: Graph, options: MirrorOptions): Omit<MirrorPlan, "id"> {
  const source = graph.getDeviceOrNode(options.device);
  const target = graph.get(options.target);
  checkRoot(source);
  mirrorSizes(target, options);
  if (skipFilters(source) === skipFilters(target)) {
    throw new BlockError("EINVAL", `Node '${target.name}' cannot be mirrored into itself`);
  }
  // Filters as well: the links down to the data will be frozen.
  for (let node: BlockNode | undefined = source; node; node = below(node)) {
    node.checkOperation("mirror-source");
  }
  target.checkOperation("mirror-target");
  target.checkNotBacking();
  const replaced = findReplaced(graph, source, options.replaces);
  const isWhole = options.sync === "top" && backingOf(source) === null;
  return { source, target, sync: isWhole ? "full" : options.sync, replaced };
}

/** A job's filter can only see what comes from above. */
function checkRoot(source: BlockNode): void {
  for (const { parent } of source.parents) {
    if (!(parent instanceof BlockNode)) continue;
    throw new BlockError(
      "EINVAL",
      `Node '${source.name}' is below ${parent.description}: a mirror needs a root`,
    );
  }
}

function findReplaced(graph: Graph, source: BlockNode, name: string | undefined): BlockNode {
  if (name === undefined) {
    // Filters that other jobs have put in stay.
    let node = source;
    while (node.implicit && node.driver.kind === "filter") node = below(node)!;
    return node;
  }
  const node = graph.get(name);
  if (getLength(node) !== getLength(source)) {
    throw new BlockError(
      "EINVAL",
      `Node '${name}' has ${getLength(node)} bytes, the mirrored node '${source.name}' ` +
        `${getLength(source)}: one cannot take the place of the other`,
    );
  }
  checkReplaceable(source, node);
  node.checkOperation("replace");
  return node;
}

/**
 * Nobody must see other bytes than before: what is replaced has filters above it at most.
 *
 * @throws BlockError EPERM
 */
export function checkReplaceable(source: BlockNode, replaced: BlockNode): void {
  for (let node: BlockNode | undefined = source; node; node = below(node)) {
    if (node === replaced) return;
  }
  throw new BlockError(
    "EPERM",
    `Node '${replaced.name}' cannot be replaced by a mirror of node '${source.name}': its users ` +
      "might see another disk",
  );
}

function below(node: BlockNode): BlockNode | undefined {
  return node.driver.kind === "filter" ? node.children.get("file")?.node : undefined;
}

/** @throws BlockError EINVAL */
export function mirrorSizes(
  target: BlockNode,
  { granularity, bufSize }: Pick<MirrorManners, "granularity" | "bufSize">,
): MirrorSizes {
  // QEMU takes 0 for "not given", in both.
  const asked = granularity || defaultGranularity(target);
  const isPower = Number.isInteger(Math.log2(asked));
  if (!isPower || asked < GRANULARITY_MIN || asked > GRANULARITY_MAX) {
    throw new BlockError(
      "EINVAL",
      `Parameter 'granularity' expects a power of two from 512 to 64 MiB; got ${asked}`,
    );
  }
  if (bufSize !== undefined && bufSize < 0) {
    throw new BlockError("EINVAL", `Parameter 'buf-size' expects 0 or more; got ${bufSize}`);
  }
  const granule = Math.min(asked, GRANULE_BYTES_MAX);
  const bufferBytes = alignUp(bufSize || BUFFER_BYTES, granule);
  const most = Math.max(alignDown(Math.floor(bufferBytes / 16), granule), CHUNK_BYTES_MIN);
  return { granularity: granule, bufferBytes, chunkBytes: Math.min(most, bufferBytes) };
}
