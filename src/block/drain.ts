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
import { assert } from "../base/errors.ts";
import type { RootParent } from "./child.ts";
import { BlockNode } from "./node.ts";

/** A drained section that has begun; it lasts until somebody ends it, once. */
export interface DrainedSection {
  end(): void;
}

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

  /** Resolves when nothing is under way on the nodes any more, and keeps it so until end(). */
  async begin(nodes: readonly BlockNode[]): Promise<DrainedSection> {
    const roots = rootsAbove(nodes);
    const drain: Drain = { nodes, roots };
    this.#running.add(drain);
    for (const root of [...roots]) root.drainedBegin();
    const passage = letThrough(nodes);
    while (!roots.every((root) => root.isQuiet()) || !nodes.every((node) => node.isIdle)) {
      await this.#quietBell.rung();
    }
    return {
      end: () => {
        assert(this.#running.delete(drain), "a drained section ends once");
        passage.end();
        for (const root of roots) root.drainedEnd();
      },
    };
  }

  /** Runs `change` while the nodes are drained, and what it began, to its end. */
  async run<T>(nodes: readonly BlockNode[], change: () => T | Promise<T>): Promise<T> {
    const section = await this.begin(nodes);
    try {
      return await change();
    } finally {
      section.end();
    }
  }

  /** Edges are new: roots that have come to stand above drained nodes wait with the others. */
  joinNew(): void {
    for (const { nodes, roots } of this.#running) {
      for (const root of rootsAbove(nodes)) {
        if (roots.includes(root)) continue;
        roots.push(root);
        root.drainedBegin();
      }
    }
  }
}

/**
 * Tells all states that a request of somebody above the nodes may be in not to hold it back: what is
 * waited for must not wait for a throttle's time to come. QEMU tells those at and above the nodes;
 * here those below are told as well, since requests wait there, too.
 */
export function letThrough(nodes: readonly BlockNode[]): DrainedSection {
  const told = new Set<BlockNode>();
  const down = (node: BlockNode): void => {
    if (told.has(node)) return;
    told.add(node);
    for (const { node: child } of node.children.values()) down(child);
  };
  const seen = new Set<BlockNode>();
  const up = (node: BlockNode): void => {
    if (seen.has(node)) return;
    seen.add(node);
    down(node);
    for (const { parent } of node.parents) if (parent instanceof BlockNode) up(parent);
  };
  for (const node of nodes) up(node);
  const states = [...told].flatMap((node) => (node.isOpen ? [node.state] : []));
  for (const state of states) state.drainedBegin?.();
  return {
    end: () => {
      for (const state of states) state.drainedEnd?.();
    },
  };
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
