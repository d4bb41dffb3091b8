/**
 * The chain under a node, as boxes to draw: `[http base.raw] <── [http top.qcow2] <── [opfs disk.qcow2]`.
 */

import type { NodeInfo } from "./wire.ts";

export interface ChainBox {
  readonly nodeName: string;
  /** Driver of the store that holds it: http, opfs, indexeddb, blob. */
  readonly store: string;
  /** Last part of its address. */
  readonly name: string;
  /** The whole of it. */
  readonly filename: string;
  readonly format: string;
  /** Bytes of the disk in it. */
  readonly virtualSize: number;
  /** Bytes that it takes where it is kept, or the length of its file; undefined if nobody knows. */
  readonly actualSize: number | undefined;
  readonly readOnly: boolean;
  /** Tags of the states that are kept inside it. */
  readonly snapshots: readonly string[];
  /** Bitmaps of what has changed; those that jobs have for themselves are not told. */
  readonly bitmaps: readonly { readonly name: string; readonly dirtyBytes: number }[];
}

/** Base first, `top` last; filters and stores have no box of their own. Empty if there is no `top`. */
export function chainBoxes(nodes: readonly NodeInfo[], top: string): ChainBox[] {
  const boxes: ChainBox[] = [];
  const seen = new Set<NodeInfo>();
  let node = imageUnder(nodes, top);
  while (node !== undefined && !seen.has(node)) {
    seen.add(node);
    boxes.unshift(boxOf(node, byName(nodes, childOf(node, "file"))));
    node = imageUnder(nodes, childOf(node, "backing"));
  }
  return boxes;
}

/** Stores that are in this browser. */
const LOCAL = new Set(["opfs", "indexeddb", "memory"]);

export function isLocal({ store }: ChainBox): boolean {
  return isLocalStore(store);
}

/** @param driver of the store */
export function isLocalStore(driver: string): boolean {
  return LOCAL.has(driver);
}

const FORMATS = new Set(["qcow2", "raw"]);

/** The node itself, or the first one below the filters that jobs have put in: a copy-on-read, say. */
export function imageUnder(nodes: readonly NodeInfo[], name: string): NodeInfo | undefined {
  let node = byName(nodes, name);
  for (let n = 0; node !== undefined && !FORMATS.has(node.drv) && n < nodes.length; n++) {
    const below = byName(nodes, childOf(node, "file")) ?? byName(nodes, childOf(node, "backing"));
    if (below === undefined) break;
    node = below;
  }
  return node;
}

function byName(nodes: readonly NodeInfo[], name: string): NodeInfo | undefined {
  return nodes.find((node) => node["node-name"] === name);
}

function boxOf(node: NodeInfo, file: NodeInfo | undefined): ChainBox {
  const { filename } = file?.image ?? node.image;
  return {
    nodeName: node["node-name"],
    store: file?.drv ?? node.drv,
    name: shortName(filename),
    filename,
    format: node.drv,
    virtualSize: node.image["virtual-size"],
    actualSize: node.image["actual-size"] ?? file?.image["virtual-size"],
    readOnly: node.ro,
    snapshots: node.image.snapshots?.map((snapshot) => snapshot.name) ?? [],
    bitmaps: (node["dirty-bitmaps"] ?? []).flatMap(({ name, count }) =>
      name === undefined ? [] : [{ name, dirtyBytes: count }],
    ),
  };
}

/** Its name; "" if there is none, which is the name of no node. */
function childOf(node: NodeInfo, role: string): string {
  return node.children.find(({ child }) => child === role)?.["node-name"] ?? "";
}

/** "https://host/images/top.qcow2?x" -> "top.qcow2". */
export function shortName(filename: string): string {
  const path = URL.canParse(filename) ? new URL(filename).pathname : filename;
  const last = path.split(/[/:]/).findLast((part) => part !== "");
  if (last === undefined) return filename;
  try {
    return decodeURIComponent(last);
  } catch (error) {
    // A name with a lone % is not an escape: it is shown as it is.
    if (error instanceof URIError) return last;
    throw error;
  }
}
