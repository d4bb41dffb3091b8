/**
 * Drained sections: times at which nothing is under way on some nodes, nor on anything above them.
 * Devices hold their requests back, jobs are paused.
 *
 *   device 'vda'   job 's0'     roots: told to hold back, then waited for
 *         └────┬──────┘
 *          [filter]
 *           [top]               drained
 *
 * QEMU polls in a nested event loop; here it is a wait, so the world may have changed when the section
 * begins: who drains looks again at what it relies on.
 */

import type { Bell } from "../base/bell.ts";
import type { RootParent } from "./child.ts";
import { BlockNode } from "./node.ts";

interface Drain {
  readonly nodes: readonly BlockNode[];
  /** All whose drainedEnd() is due; grows if new ones come. */
  readonly roots: RootParent[];
}

export class Drains {
  readonly #running = new Set<Drain>();
  readonly #quietBell: Bell;

  /** @param quietBell rung whenever a node or a root became quiet */
  constructor(quietBell: Bell) {
    this.#quietBell = quietBell;
  }

  /** Runs `change` while the nodes are drained, and what it began, to its end. */
  async run<T>(nodes: readonly BlockNode[], change: () => T | Promise<T>): Promise<T> {
    const roots = rootsAbove(nodes);
    const drain: Drain = { nodes, roots };
    this.#running.add(drain);
    for (const root of [...roots]) root.drainedBegin();
    try {
      while (!roots.every((root) => root.isQuiet()) || !nodes.every((node) => node.isIdle)) {
        await this.#quietBell.rung();
      }
      return await change();
    } finally {
      this.#running.delete(drain);
      for (const root of roots) root.drainedEnd();
    }
  }

  /** A new root above drained nodes waits with the others. */
  join(root: RootParent): void {
    for (const drain of this.#running) {
      if (!rootsAbove(drain.nodes).includes(root)) continue;
      drain.roots.push(root);
      root.drainedBegin();
    }
  }
}

/** Devices and jobs that stand above the nodes, one entry for every edge of theirs. */
function rootsAbove(nodes: readonly BlockNode[]): RootParent[] {
  const roots: RootParent[] = [];
  const seen = new Set<BlockNode>();
  const visit = (node: BlockNode): void => {
    if (seen.has(node)) return;
    seen.add(node);
    for (const { parent } of node.parents) {
      if (parent instanceof BlockNode) visit(parent);
      else roots.push(parent);
    }
  };
  for (const node of nodes) visit(node);
  return roots;
}
