/**
 * Targets of drive-backup and drive-mirror: an image file by its name, made or found, and opened for
 * the job alone. The job's end closes it, unless a mirror has moved the disk there.
 */

import { BlockError } from "../base/errors.ts";
import type { Graph } from "../block/graph.ts";
import * as io from "../block/io.ts";
import type { BlockNode } from "../block/node.ts";
import { backingOf, skipFilters } from "../block/status.ts";
import { fileNameOf, formatFor } from "./backing-names.ts";
import { createImage, parseImageName } from "./image-name.ts";

export interface DriveTarget {
  /** "store:name", or a name in the store of the source's own file. */
  readonly file: string;
  /** Default: the source's. */
  readonly format?: string | undefined;
  /** existing: the file is there. absolute-paths: it is made, or emptied. Default. */
  readonly mode?: "existing" | "absolute-paths" | undefined;
  readonly nodeName?: string | undefined;
  /** What the job copies, and so what a new image has to stand on. */
  readonly sync: string;
}

/**
 * @param source what will be copied; drained, or about to be
 * @throws BlockError EEXIST (node name), EINVAL (file's name), EBUSY (file in use), ENOTSUP (format)
 *   and what the drivers throw
 */
export async function openDriveTarget(
  graph: Graph,
  source: BlockNode,
  target: DriveTarget,
): Promise<BlockNode> {
  const { nodeName, mode = "absolute-paths" } = target;
  if (nodeName !== undefined && graph.find(nodeName)) {
    throw new BlockError("EEXIST", `There is a node '${nodeName}' already`);
  }
  const layer = skipFilters(source);
  const format = target.format ?? layer.driver.name;
  const store = parseImageName(graph, target.file, source);
  if (mode === "absolute-paths") {
    await createImage(graph, store, format, {
      size: io.getLength(source),
      ...backingLabels(layer, target.sync),
    });
  }
  const hasBacking = "backing" in graph.driver(format).roles;
  return graph.addForUsers({
    driver: format,
    ...(nodeName !== undefined && { "node-name": nodeName }),
    file: store.options,
    ...(hasBacking && { backing: null }),
  });
}

/** Closes it, where no job has come to use it. */
export function closeDriveTarget(graph: Graph, target: BlockNode): Promise<void> {
  return graph.closeUnused(target);
}

/** What a new image inherits from: full: nothing; top: what the source does; none: the source. */
function backingLabels(source: BlockNode, sync: string): Record<string, string> {
  const below = sync === "none" ? source : sync === "top" ? backingOf(source) : null;
  if (below === null) return {};
  return {
    "backing-file": fileNameOf(below) ?? below.name,
    "backing-fmt": formatFor(below, false),
  };
}
