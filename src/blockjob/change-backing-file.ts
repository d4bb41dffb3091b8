/**
 * change-backing-file: another name in the header of an image, for who has moved or renamed what it
 * stands on (QEMU: blockdev.c, qmp_change_backing_file()). Nothing in the graph changes: names are labels.
 */

import { BlockError } from "../base/errors.ts";
import type { Graph } from "../block/graph.ts";
import { BlockNode } from "../block/node.ts";
import { backingOf, chainOf } from "../block/status.ts";
import { formatFor } from "./backing-names.ts";
import { holding } from "./hold.ts";
import { protect, withWritable } from "./writable.ts";

export interface BackingFileChange {
  /** Name of a device or node that no other node uses: the chain's top. */
  readonly device: string;
  /** Name of the node whose header it is. */
  readonly imageNodeName: string;
  /** "": none. */
  readonly backingFile: string;
}

/**
 * An image that is read-only is written all the same, and is read-only again afterwards.
 *
 * @throws BlockError ENOENT (names); EINVAL for what is no chain's top, has no backing file, or is not
 *   in the chain; EBUSY while a job works there; ENOTSUP; EROFS if nothing can write there
 */
export async function changeBackingFile(graph: Graph, change: BackingFileChange): Promise<void> {
  const image = imageOf(graph, change);
  await holding(graph, [image], "change-backing-file", () =>
    withWritable(graph, image, async (wasReadOnly) => {
      await graph.drained([image], async () => {
        // What was waited for may have changed the chain.
        const backing = backingIn(image, imageOf(graph, change));
        const name = change.backingFile === "" ? null : change.backingFile;
        await write(image, name, name === null ? null : formatFor(backing, false));
      });
      if (wasReadOnly) await protect(graph, image);
    }),
  );
}

/** In QEMU's order of checks. */
function imageOf(graph: Graph, { device, imageNodeName }: BackingFileChange): BlockNode {
  const top = graph.getDeviceOrNode(device);
  const user = [...top.parents].find(({ parent }) => parent instanceof BlockNode);
  if (user) {
    throw new BlockError(
      "EINVAL",
      `Node '${top.name}' is not the top of a chain: ${user.parent.description} uses it`,
    );
  }
  const image = graph.get(imageNodeName);
  backingIn(image, image);
  if (!chainOf(top).includes(image)) {
    throw new BlockError("EINVAL", `Node '${image.name}' is not in the chain of '${device}'`);
  }
  image.checkOperation("change");
  return image;
}

/** @returns what the image stands on */
function backingIn(image: BlockNode, now: BlockNode): BlockNode {
  const backing = now === image ? backingOf(image) : null;
  if (backing) return backing;
  throw new BlockError(
    "EINVAL",
    `Node '${image.name}' has no backing file whose name could be changed`,
  );
}

async function write(image: BlockNode, name: string | null, format: string | null): Promise<void> {
  const { state, driver } = image;
  if (state.changeBackingFile) return state.changeBackingFile(name, format);
  throw new BlockError("ENOTSUP", `Driver '${driver.name}' keeps no name of a backing file`);
}
