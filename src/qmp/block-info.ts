/**
 * What the queries tell of a node: BlockDeviceInfo with the images of its chain nested in it, as
 * QEMU puts it together (block/qapi.c). Two things QEMU has are left out on purpose:
 * full-backing-filename, since names inside images are never resolved here, and throttle groups.
 */

import type { StateInfo } from "../block/driver.ts";
import * as io from "../block/io.ts";
import type { BlockNode } from "../block/node.ts";
import type { BlockDeviceInfo, ImageInfo } from "./types.ts";

export interface NodeInfoOptions {
  /** Leave out the images behind the node. */
  readonly flat?: boolean;
  /** Look through filters that jobs have put in by themselves, as query-block does. */
  readonly skipImplicit?: boolean;
}

export function nodeInfo(node: BlockNode, options: NodeInfoOptions = {}): BlockDeviceInfo {
  const image = imageInfo(node);
  let depth = 0;
  let above = image;
  if (!options.flat) {
    for (let below = behind(node, options); below; below = behind(below, options)) {
      const next = imageInfo(below);
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
    children: [...node.children].map(([child, edge]) => ({ child, "node-name": edge.node.name })),
    active: true,
    encrypted: image.encrypted ?? false,
    detect_zeroes: "off",
    bps: 0,
    bps_rd: 0,
    bps_wr: 0,
    iops: 0,
    iops_rd: 0,
    iops_wr: 0,
    image,
    cache: { writeback: true, direct: false, "no-flush": false },
    write_threshold: 0,
  };
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

function imageInfo(node: BlockNode): ImageInfo {
  const info: StateInfo = node.state.info?.() ?? {};
  // A filter answers for what it stands before.
  const manner: StateInfo =
    node.driver.kind === "filter" ? (innermost(node).state.info?.() ?? {}) : info;
  const actualSize = actualSizeOf(node);
  const clusterSize = manner["cluster-size"];
  const specific = info["format-specific"];
  const label = info["backing-filename"];
  const labelFormat = info["backing-filename-format"];
  return {
    filename: filenameOf(node),
    format: node.driver.name,
    "virtual-size": io.getLength(node),
    ...(actualSize !== undefined && { "actual-size": actualSize }),
    "dirty-flag": manner["dirty-flag"] ?? false,
    ...(clusterSize !== undefined && { "cluster-size": clusterSize }),
    ...(info.encrypted && { encrypted: true }),
    ...(info.compressed && { compressed: true }),
    ...(label !== undefined && { "backing-filename": label }),
    ...(labelFormat !== undefined && { "backing-filename-format": labelFormat }),
    ...(specific && { "format-specific": specific }),
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
