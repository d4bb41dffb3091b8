/** Is there a file, and is it one that has another name as well? */

import { BlockError } from "../base/errors.ts";
import type { BlockdevOptions } from "../block/options.ts";
import { storeNameOf } from "./peek.ts";
import type { Session } from "./session.ts";

/** What a file is: the same for all its names. */
interface Found {
  readonly identity: unknown;
}

/**
 * null if there is none. Of one that cannot be opened nothing is known: whoever opens it next is told
 * what is wrong with it.
 */
export async function findFile(session: Session, store: BlockdevOptions): Promise<Found | null> {
  const { graph, signal } = session;
  try {
    const node = await graph.addForUsers({ ...store, "read-only": true }, signal);
    const { identity } = node.state;
    await graph.closeUnused(node);
    return { identity: identity ?? storeNameOf(store) };
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return error.errno === "ENOENT" ? null : { identity: undefined };
  }
}
