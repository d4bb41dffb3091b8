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
}

/** Base first, `top` last; filters and stores have no box of their own. Empty if there is no `top`. */
export function chainBoxes(nodes: readonly NodeInfo[], top: string): ChainBox[] {
  const byName = new Map(nodes.map((node) => [node["node-name"], node]));
  const boxes: ChainBox[] = [];
  const seen = new Set<NodeInfo>();
  let node = byName.get(top);
  while (node !== undefined && !seen.has(node)) {
    seen.add(node);
    const file = byName.get(childOf(node, "file"));
    boxes.unshift(boxOf(node, file));
    node = byName.get(childOf(node, "backing"));
  }
  return boxes;
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
  };
}

/** Its name; "" if there is none, which is the name of no node. */
function childOf(node: NodeInfo, role: string): string {
  return node.children.find(({ child }) => child === role)?.["node-name"] ?? "";
}

/** "https://host/images/top.qcow2?x" -> "top.qcow2". */
function shortName(filename: string): string {
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
