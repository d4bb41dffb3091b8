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
import type { BlockParent, RootParent } from "./child.ts";
import { LinkChanges, type LinkWatcher, type Section } from "./link-changes.ts";
import { BlockNode } from "./node.ts";

/** A drained section that has begun; it lasts until somebody ends it, once. */
export interface DrainedSection {
  /**
   * Called in the turn in which what has changed in the section begins to count: see link-changes.ts. Of
   * a section that fails nothing should: to be called when nothing of it can fail any more.
   */
  atEnd(callback: () => void): void;
  /** Requests go on, now or when whoever watches the links has taken note of those that have changed. */
  end(): void;
}

interface Drain extends Section {
  readonly nodes: readonly BlockNode[];
  /** All whose drainedEnd() is due; grows if new ones come. */
  readonly roots: RootParent[];
}

export class Drains {
  readonly #running = new Set<Drain>();
  readonly #quietBell: Bell;
  readonly #changes = new LinkChanges();

  /** @param quietBell rung whenever a node or a root became quiet */
  constructor(quietBell: Bell) {
    this.#quietBell = quietBell;
  }

  /** Resolves when nothing is under way on the nodes any more, and keeps it so until end(). */
  async begin(nodes: readonly BlockNode[]): Promise<DrainedSection> {
    const roots = rootsAbove(nodes);
    const drain: Drain = {
      nodes,
      roots,
      isOpen: true,
      group: null,
      letGo: () => {
        this.#running.delete(drain);
        passage.end();
        for (const root of roots) root.drainedEnd();
      },
    };
    this.#running.add(drain);
    for (const root of [...roots]) root.drainedBegin();
    const passage = letThrough(nodes);
    while (!roots.every((root) => root.isQuiet()) || !nodes.every((node) => node.isIdle)) {
      await this.#quietBell.rung();
    }
    const callbacks: (() => void)[] = [];
    return {
      atEnd: (callback) => void callbacks.push(callback),
      end: () => {
        assert(drain.isOpen, "a drained section ends once");
        this.#changes.ended(drain, callbacks);
      },
    };
  }

  /**
   * Requests of roots above the nodes that have not begun wait until end(), those of roots that are yet to come
   * included. Nobody waits for what is under way, so there is no quiet to rely on.
   */
  hold(nodes: readonly BlockNode[]): { end(): void } {
    const roots = rootsAbove(nodes);
    const drain: Drain = { nodes, roots, isOpen: false, group: null, letGo: () => {} };
    this.#running.add(drain);
    for (const root of [...roots]) root.drainedBegin();
    return {
      end: () => {
        if (!this.#running.delete(drain)) return;
        for (const root of roots) root.drainedEnd();
      },
    };
  }

  /** See link-changes.ts. */
  set watcher(watcher: LinkWatcher | null) {
    this.#changes.watcher = watcher;
  }

  /** A link is about to be pointed elsewhere, at `to`. */
  linkMoves(parent: BlockParent, role: string, from: BlockNode | null, to: BlockNode | null): void {
    if (!this.#changes.watcher) return;
    const drains = [...this.#running].filter(
      ({ isOpen, nodes }) => isOpen && stands(parent, from, nodes),
    );
    this.#changes.moves({ parent, role, from, to }, drains);
  }

  /** Where a link leads, as far as it counts already: past filters of jobs. */
  settledNode(parent: BlockParent, role: string, now: BlockNode | null): BlockNode | null {
    return this.#changes.settled(parent, role, now);
  }

  /** Whether a node is read-only, as far as that counts already. */
  isReadOnly(node: BlockNode): boolean {
    return this.#changes.isReadOnly(node);
  }

  /** Runs `change` while the nodes are drained, and what it began, to its end. */
  async run<T>(
    nodes: readonly BlockNode[],
    change: (section: DrainedSection) => T | Promise<T>,
  ): Promise<T> {
    const section = await this.begin(nodes);
    try {
      return await change(section);
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
export function letThrough(nodes: readonly BlockNode[]): { end(): void } {
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

/** Whether requests of the parent are held back while these nodes are drained. */
function stands(parent: BlockParent, from: BlockNode | null, nodes: readonly BlockNode[]): boolean {
  const drained = new Set(nodes);
  const seen = new Set<BlockNode>();
  const isAbove = (node: BlockNode): boolean => {
    if (drained.has(node)) return true;
    if (seen.has(node)) return false;
    seen.add(node);
    return [...node.children.values()].some((edge) => isAbove(edge.node));
  };
  if (parent instanceof BlockNode) return isAbove(parent);
  return from !== null && isAbove(from);
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
