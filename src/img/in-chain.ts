/** A layer of an image's chain by a name that the user has for it, as seen from the image. */

import { BlockError } from "../base/errors.ts";
import type { BlockNode } from "../block/node.ts";
import { chainOf, skipFilters } from "../block/status.ts";
import { findFile } from "./find-file.ts";
import type { Session } from "./session.ts";

/**
 * The layer below `top` that the name stands for: as the layer above it calls it, or whatever name
 * leads to the same file. Undefined if none is.
 */
export async function findInChain(
  session: Session,
  top: BlockNode,
  image: string,
  name: string,
): Promise<BlockNode | undefined> {
  const layers = chainOf(top);
  const below = layers.slice(1);
  const labelled = below.find((_, i) => layers[i]!.state.info?.()["backing-filename"] === name);
  if (labelled) return labelled;
  const identity = await identityOf(session, image, name);
  if (identity === undefined) return undefined;
  return below.find((layer) => storeOf(layer).state.identity === identity);
}

function storeOf(node: BlockNode): BlockNode {
  const file = skipFilters(node).children.get("file");
  return file ? storeOf(file.node) : node;
}

async function identityOf(session: Session, image: string, name: string): Promise<unknown> {
  const { host } = session;
  try {
    const store = host.store(await host.follow(name, { image, role: "backing", trusted: true }));
    return (await findFile(session, store))?.identity;
  } catch (error) {
    // What no file can be called is no layer.
    if (error instanceof BlockError) return undefined;
    throw error;
  }
}
