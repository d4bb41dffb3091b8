/**
 * What the queries tell of a node: BlockDeviceInfo with the images of its chain nested in it, as
 * QEMU puts it together (block/qapi.c). Two things QEMU has are left out on purpose:
 * full-backing-filename, since names inside images are never resolved here, and throttle groups.
 */

import { alignUp, SECTOR_BYTES } from "../base/bytes.ts";
import { BlockError } from "../base/errors.ts";
import type { StateInfo, StoredBitmap } from "../block/driver.ts";
import { snapshotJson, snapshotsOf, withBitmaps } from "../block/image-info.ts";
import * as io from "../block/io.ts";
import type { BlockNode } from "../block/node.ts";
import { roleMember } from "../block/options.ts";
import type { BlockDeviceInfo, BlockDirtyInfo, ImageInfo } from "./types.ts";

export interface NodeInfoOptions {
  /** Leave out the images behind the node. */
  readonly flat?: boolean;
  /** What keptBitmaps() has found. */
  readonly kept?: KeptBitmaps;
  /** Look through filters that jobs have put in by themselves, as query-block does. */
  readonly skipImplicit?: boolean;
}

/** By node: the dirty bitmaps that its image keeps, which may lack what is in memory. */
export type KeptBitmaps = ReadonlyMap<BlockNode, readonly StoredBitmap[]>;

/** None of an image whose list cannot be read: whoever wants to use it is told why. */
export async function keptBitmaps(nodes: readonly BlockNode[]): Promise<KeptBitmaps> {
  const kept = new Map<BlockNode, readonly StoredBitmap[]>();
  for (const node of nodes) {
    if (!node.isOpen) continue;
    try {
      kept.set(node, (await node.state.bitmapStore?.list()) ?? []);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
    }
  }
  return kept;
}

export function nodeInfo(node: BlockNode, options: NodeInfoOptions = {}): BlockDeviceInfo {
  const { kept = new Map() } = options;
  const image = imageInfo(node, kept);
  let depth = 0;
  let above = image;
  if (!options.flat) {
    for (let below = behind(node, options); below; below = behind(below, options)) {
      const next = imageInfo(below, kept);
      above["backing-image"] = next;
      above = next;
      depth++;
    }
  }
  const backing = node.children.get("backing")?.node;
  return {
    file: image.filename,
    "node-name": node.name,
    ro: node.readOnly,
    drv: node.driver.name,
    ...(backing && { backing_file: filenameOf(backing) }),
    backing_file_depth: depth,
    children: [...node.children].map(([role, edge]) => ({
      child: roleMember(node.driver, role),
      "node-name": edge.node.name,
    })),
    active: true,
    encrypted: image.encrypted ?? false,
    detect_zeroes: node.settings.detectZeroes,
    bps: 0,
    bps_rd: 0,
    bps_wr: 0,
    iops: 0,
    iops_rd: 0,
    iops_wr: 0,
    image,
    cache: { writeback: true, direct: false, "no-flush": false },
    write_threshold: node.writeThreshold,
    ...(!node.bitmaps.isEmpty && { "dirty-bitmaps": bitmapsOf(node) }),
  };
}

/** The newest first; jobs' own are there without a name, so is what stands in for a busy one. */
function bitmapsOf(node: BlockNode): BlockDirtyInfo[] {
  return [...node.bitmaps.all()]
    .reverse()
    .flatMap((bitmap) => (bitmap.successor ? [bitmap.successor, bitmap] : [bitmap]))
    .map((bitmap) => ({
      ...(bitmap.name !== null && { name: bitmap.name }),
      count: bitmap.count,
      granularity: bitmap.granularity,
      recording: bitmap.recording,
      busy: bitmap.busy,
      persistent: bitmap.persistent,
      ...(bitmap.inconsistent && { inconsistent: true }),
    }));
}

/** The node itself, or the first one below it that no job has put in by itself. */
export function skipImplicit(node: BlockNode): BlockNode {
  let below = node;
  while (below.implicit && below.driver.kind === "filter") below = io.fileOf(below).node;
  return below;
}

/** What a filter stands before, or an overlay; null at the chain's end. */
function behind(node: BlockNode, options: NodeInfoOptions): BlockNode | null {
  const role = node.driver.kind === "filter" ? "file" : "backing";
  const below = node.children.get(role)?.node ?? null;
  return below && options.skipImplicit ? skipImplicit(below) : below;
}

function imageInfo(node: BlockNode, kept: KeptBitmaps): ImageInfo {
  const info: StateInfo = node.state.info?.() ?? {};
  // A filter answers for what it stands before.
  const manner: StateInfo =
    node.driver.kind === "filter" ? (innermost(node).state.info?.() ?? {}) : info;
  const actualSize = actualSizeOf(node);
  const { "dirty-flag": dirty = false } = manner;
  const clusterSize = manner["cluster-size"];
  const specific = info["format-specific"];
  const label = info["backing-filename"];
  const labelFormat = info["backing-filename-format"];
  const snapshots = snapshotsOf(node.state);
  return {
    filename: filenameOf(node),
    format: node.driver.name,
    // Guests see whole sectors, the last one filled up with zeroes.
    "virtual-size": alignUp(io.getLength(node), SECTOR_BYTES),
    ...(actualSize !== undefined && { "actual-size": actualSize }),
    ...(dirty !== null && { "dirty-flag": dirty }),
    ...(clusterSize !== undefined && { "cluster-size": clusterSize }),
    ...(info.encrypted && { encrypted: true }),
    ...(info.compressed && { compressed: true }),
    ...(label !== undefined && { "backing-filename": label }),
    ...(labelFormat !== undefined && { "backing-filename-format": labelFormat }),
    ...(snapshots.length > 0 && { snapshots: snapshots.map(snapshotJson) }),
    ...(specific && { "format-specific": withBitmaps(specific, kept.get(node) ?? []) }),
  };
}

/** What stands below filters. */
function innermost(node: BlockNode): BlockNode {
  let below = node;
  while (below.driver.kind === "filter") below = io.fileOf(below).node;
  return below;
}

/** The store's name for it; what has no name is told by its driver, as QEMU's json: names are. */
function filenameOf(node: BlockNode): string {
  const own = node.state.info?.().filename;
  if (own !== undefined) return own;
  const file = node.children.get("file")?.node;
  return file ? filenameOf(file) : `json:${JSON.stringify({ driver: node.driver.name })}`;
}

/** Of a format: what its own stores take up, not those behind it. Unknown if one is unknown. */
function actualSizeOf(node: BlockNode): number | undefined {
  const own = node.state.info?.()["actual-size"];
  if (own !== undefined || node.driver.kind === "protocol") return own;
  let sum = 0;
  for (const role of ["file", "data-file"] as const) {
    const child = node.children.get(role)?.node;
    if (!child) continue;
    const size = actualSizeOf(child);
    if (size === undefined) return undefined;
    sum += size;
  }
  return sum;
}
