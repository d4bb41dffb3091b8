/** The nodes of a graph by their names, which are taken from before a node is there until after. */

import { assert, BlockError } from "../base/errors.ts";
import type { BlockNode } from "./node.ts";

/** Only who opens nodes again may want one of these. */
const MADE_UP = /^#block(\d+)$/;

export class NodeTable {
  readonly #nodes = new Map<string, BlockNode>();
  /** On their way in: what their image keeps beside the disk is not there yet. */
  readonly #opening = new Set<BlockNode>();
  /** On their way out: their names and stores are still taken, but nobody finds them any more. */
  readonly #closing = new Set<BlockNode>();
  #generated = 0;

  /** Open nodes, oldest first; the store of an image comes before it, its backing file after it. */
  get open(): readonly BlockNode[] {
    return this.all.filter((node) => this.#isThere(node));
  }

  /** Also those on their way in or out: their stores are in use. */
  get all(): readonly BlockNode[] {
    return [...this.#nodes.values()];
  }

  /** Other nodes with the same bytes; also those on their way out, which still may write. */
  twinsOf(node: BlockNode): readonly BlockNode[] {
    const identity = node.isOpen ? node.state.identity : undefined;
    if (identity === undefined) return [];
    return this.all.filter(
      (other) => other !== node && other.isOpen && other.state.identity === identity,
    );
  }

  find(name: string): BlockNode | undefined {
    const node = this.#nodes.get(name);
    return node && this.#isThere(node) ? node : undefined;
  }

  #isThere(node: BlockNode): boolean {
    return node.isOpen && !this.#closing.has(node) && !this.#opening.has(node);
  }

  /** True from the moment on when it begins to be closed. */
  isGone(node: BlockNode): boolean {
    return this.#closing.has(node) || this.#nodes.get(node.name) !== node;
  }

  /**
   * @param wanted undefined: one is made up
   * @throws BlockError EEXIST
   */
  freeName(wanted: string | undefined): string {
    if (wanted === undefined) return `#block${++this.#generated}`;
    const [, made] = MADE_UP.exec(wanted) ?? [];
    this.#generated = Math.max(this.#generated, Number(made ?? 0));
    if (!this.#nodes.has(wanted)) return wanted;
    throw new BlockError("EEXIST", `There is a node '${wanted}' already`);
  }

  /** The name is taken from now on. */
  beginOpening(node: BlockNode): void {
    this.#nodes.set(node.name, node);
    this.#opening.add(node);
  }

  /** Stands behind all others from now on. */
  enlist(node: BlockNode): void {
    this.#nodes.delete(node.name);
    this.#nodes.set(node.name, node);
  }

  /** It can be found from now on, if it has been opened. */
  endOpening(node: BlockNode): void {
    this.#opening.delete(node);
  }

  /** The name stays taken until the store is let go of: whoever reuses it must find it free. */
  beginClosing(node: BlockNode): void {
    assert(!this.#closing.has(node), "a node is closed once");
    this.#closing.add(node);
  }

  endClosing(node: BlockNode): void {
    this.#nodes.delete(node.name);
    this.#closing.delete(node);
  }
}
