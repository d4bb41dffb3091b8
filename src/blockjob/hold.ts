/** Nodes that must stay for a while, whoever wants to remove them. */

import { settleAll } from "../base/settle.ts";
import type { BlockBackend } from "../block/backend.ts";
import type { Graph } from "../block/graph.ts";
import type { BlockNode } from "../block/node.ts";
import { Perm } from "../block/permissions.ts";

/** Whom standStill() has put on a node: they only keep it as it is. */
const KEEPERS = new WeakSet<object>();

/** Until Graph.closeBackend() nobody can close the node. @param description as below */
export function hold(graph: Graph, node: BlockNode, description: string): BlockBackend {
  const permissions = { take: Perm.none, share: Perm.all };
  return graph.openBackend(node, { name: "", description, permissions });
}

/** Runs `work` while nobody can close the nodes. @param description for error texts: "job 'j'" */
export async function holding<T>(
  graph: Graph,
  nodes: readonly BlockNode[],
  description: string,
  work: () => Promise<T>,
): Promise<T> {
  const backends: BlockBackend[] = [];
  try {
    for (const node of nodes) backends.push(hold(graph, node, description));
    return await work();
  } finally {
    // All of them, whatever becomes of one.
    await settleAll(backends.map((backend) => graph.closeBackend(backend)));
  }
}

/** A node with nothing under way on it, which nobody closes. */
export interface StillNode {
  readonly node: BlockNode;
  /** See DrainedSection. */
  atEnd(callback: () => void): void;
  /** To be called once. */
  end(): Promise<void>;
}

/** Does this user of a node do no more than bring it to rest: an action of the same transaction? */
export function isKeeper(user: object): boolean {
  return KEEPERS.has(user);
}

/**
 * Brings a node to rest. Its name may mean another one when the one that it meant has come to rest:
 * then that one is.
 *
 * @param name of a device or node
 * @param description for error texts: "job 'j'"
 * @throws BlockError ENOENT
 */
export async function standStill(
  graph: Graph,
  name: string,
  description: string,
): Promise<StillNode> {
  for (;;) {
    const node = graph.getDeviceOrNode(name);
    const holder = hold(graph, node, description);
    KEEPERS.add(holder);
    const section = await graph.drain([node]);
    const still = {
      node,
      atEnd: section.atEnd,
      async end() {
        section.end();
        await graph.closeBackend(holder);
      },
    };
    if (holder.node === node && graph.findDeviceOrNode(name) === node) return still;
    await still.end();
  }
}
