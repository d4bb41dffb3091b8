/**
 * One run of `img`: a graph of its own, what it has open, and where its words go.
 *
 * Whatever a command opens is closed at the end, also after a failure; a failure to close is a failure
 * of the command, since it may be lost data.
 */

import { BlockError } from "../base/errors.ts";
import type { BackendInit, BlockBackend } from "../block/backend.ts";
import { Graph } from "../block/graph.ts";
import type { BlockNode } from "../block/node.ts";
import { withFileNames } from "./file-names.ts";
import type { ImgHost } from "./host.ts";

export class Session {
  readonly host: ImgHost;
  readonly graph: Graph;
  /** Names inside images are followed wherever they lead. */
  readonly trustsNames: boolean;
  readonly #backends = new Set<BlockBackend>();
  readonly #nodes = new Set<BlockNode>();

  constructor(host: ImgHost, { trustsNames }: { readonly trustsNames: boolean }) {
    this.host = host;
    this.graph = new Graph(host.world, host.drivers);
    this.trustsNames = trustsNames;
  }

  get signal(): AbortSignal | undefined {
    return this.host.signal;
  }

  print(text: string): Promise<void> {
    return this.host.print(text);
  }

  /** One line for people: a sentence without its end. */
  complain(problem: string): Promise<void> {
    const text = withFileNames(problem, (node) => this.graph.find(node));
    return this.host.complain(`${this.host.name}: ${text}\n`);
  }

  /** Takes hold of a node that was opened for its users; nobody else does. */
  async hold(node: BlockNode, init: Omit<BackendInit, "name">): Promise<BlockBackend> {
    try {
      const backend = this.graph.openBackend(node, { name: "", ...init });
      this.#backends.add(backend);
      return backend;
    } catch (error) {
      await this.graph.closeUnused(node);
      throw error;
    }
  }

  /** The same for a node that has no users: it is closed when nothing else is left. */
  keep(node: BlockNode): BlockNode {
    this.#nodes.add(node);
    return node;
  }

  /** Lets go of it, and closes what nobody else uses. @throws BlockError what closing throws */
  async release(backend: BlockBackend): Promise<void> {
    if (!this.#backends.delete(backend)) return;
    await this.graph.closeBackend(backend);
  }

  /** Closes all, whatever becomes of one. @throws BlockError the first failure */
  async close(): Promise<void> {
    const failures: BlockError[] = [];
    const attempt = async (step: () => Promise<void>) => {
      try {
        await step();
      } catch (error) {
        if (!(error instanceof BlockError)) throw error;
        failures.push(error);
      }
    };
    // The last first: what stands on others was opened after them.
    for (const backend of [...this.#backends].reverse()) await attempt(() => this.release(backend));
    for (const node of [...this.#nodes].reverse()) {
      this.#nodes.delete(node);
      if (this.graph.find(node.name) === node) await attempt(() => this.graph.remove(node.name));
    }
    if (failures[0]) throw failures[0];
  }
}
