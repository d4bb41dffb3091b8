/**
 * Reopens nodes of a graph: one change after the other, each with everything it touches drained and
 * held, so that nobody closes it meanwhile. What is changed how: reopen.ts (the right to write, for
 * jobs), reopen-plan.ts and reopen-all.ts (blockdev-reopen).
 */

import { Mutex } from "../base/mutex.ts";
import { settleAll } from "../base/settle.ts";
import type { BackendInit, BlockBackend } from "./backend.ts";
import { replacedError } from "./filters.ts";
import * as io from "./io.ts";
import type { Links } from "./links.ts";
import type { BlockNode } from "./node.ts";
import type { BlockdevOptions } from "./options.ts";
import { Perm } from "./permissions.ts";
import { reopenedNodes, reopenTree } from "./reopen.ts";
import { type ReopenAllHost, reopenAll } from "./reopen-all.ts";
import { type NodeChange, type PlanHost, planReopen } from "./reopen-plan.ts";

/** What the graph has for it. */
export interface ReopenerInit extends PlanHost {
  readonly links: Links;
  openBackend(node: BlockNode, init: BackendInit): BlockBackend;
  closeBackend(backend: BlockBackend): Promise<void>;
  closeUnused(node: BlockNode): Promise<void>;
  drained<T>(nodes: readonly BlockNode[], change: () => Promise<T>): Promise<T>;
}

export class Reopener {
  readonly #init: ReopenerInit;
  readonly #turns = new Mutex();
  readonly #host: ReopenAllHost;

  constructor(init: ReopenerInit) {
    this.#init = init;
    this.#host = {
      refreshPermissions: (nodes) => init.links.refreshPermissions(nodes),
      setChild: (node, role, child) => init.links.setChild(node, role, child),
    };
  }

  /** @throws BlockError as Graph.reopen() */
  reopen(node: BlockNode, readOnly: boolean): Promise<void> {
    return this.#turns.run(async () => {
      if (node.readOnly === readOnly) return;
      const look = () => ({ nodes: reopenedNodes(node, readOnly) });
      await this.#whileStill([node], look, () => reopenTree(this.#host, node, readOnly));
    });
  }

  /** @throws BlockError as Graph.reopenAll() */
  reopenAll(list: readonly BlockdevOptions[]): Promise<void> {
    return this.#turns.run(async () => {
      const look = () => {
        const changes = planReopen(this.#init, list);
        return { changes, nodes: changes.flatMap(touched) };
      };
      const named = look().changes.map(({ node }) => node);
      let left: readonly BlockNode[] = [];
      await this.#whileStill(named, look, async ({ changes }) => {
        left = await reopenAll(this.#host, changes);
        for (const { node } of changes) io.resized(node);
      });
      await settleAll(left.map((node) => this.#init.closeUnused(node)));
    });
  }

  /** @throws BlockError as Graph.movesBytes() */
  movesBytes(list: readonly BlockdevOptions[]): boolean {
    const changes = planReopen(this.#init, list);
    return changes.some(({ links, movesWindow }) => movesWindow || links.has("file"));
  }

  /**
   * Runs `change` with what look() sees, once all of it has come to rest: other nodes may have come in
   * while that was waited for.
   */
  async #whileStill<Seen extends { readonly nodes: readonly BlockNode[] }>(
    held: readonly BlockNode[],
    look: () => Seen,
    change: (seen: Seen) => Promise<void>,
  ): Promise<void> {
    const holds = held.map((node) =>
      this.#init.openBackend(node, {
        name: "",
        description: "a change of its options",
        permissions: { take: Perm.none, share: Perm.all },
      }),
    );
    try {
      for (let isDone = false; !isDone; ) {
        const { nodes } = look();
        await this.#init.drained(nodes, async () => {
          for (const [i, hold] of holds.entries()) {
            if (hold.node !== held[i]) throw replacedError(held[i]!);
          }
          const seen = look();
          if (seen.nodes.some((node) => !nodes.includes(node))) return;
          await change(seen);
          isDone = true;
        });
      }
    } finally {
      await settleAll(holds.map((hold) => this.#init.closeBackend(hold)));
    }
  }
}

/** The node, those that change with it, and those that it leaves or comes to stand on. */
function touched({ node, readOnly, links }: NodeChange): BlockNode[] {
  const others = [...links].flatMap(([role, child]) => [node.children.get(role)?.node, child]);
  return [...reopenedNodes(node, readOnly), ...others.filter((other) => other != null)];
}
