/**
 * External snapshots: a new overlay takes the place of a node, which keeps what it has from then on
 * (QEMU: blockdev.c, external_snapshot_action()).
 *
 *   before   users ──▶ [node]          after   users ──▶ [overlay] ──▶ [node]
 *
 * As actions of a transaction: prepared, the overlay is in place but the node is drained still.
 */

import { BlockError } from "../base/errors.ts";
import type { Graph } from "../block/graph.ts";
import * as io from "../block/io.ts";
import type { BlockNode } from "../block/node.ts";
import { skipFilters } from "../block/status.ts";
import { fileNameOf, formatFor } from "./backing-names.ts";
import { isKeeper, type StillNode, standStill } from "./hold.ts";
import { createImage, parseImageName, type StoreName } from "./image-name.ts";
import type { TransactionAction } from "./transaction.ts";
import { protect } from "./writable.ts";

export interface SnapshotOptions {
  /** Name of a device or node. */
  readonly node: string;
  /** Name of a node without a backing file, which nobody uses. */
  readonly overlay: string;
}

/** blockdev-snapshot: the overlay has been opened already. */
export function externalSnapshot(graph: Graph, options: SnapshotOptions): TransactionAction {
  return new ExternalSnapshot(graph, options.node, {
    async open() {
      return graph.get(options.overlay);
    },
    async close() {},
  });
}

export interface SnapshotSyncOptions {
  /** Name of a device or node. */
  readonly node: string;
  /** As createImage() takes it. */
  readonly snapshotFile: string;
  /** The overlay's; one that queries make up if not given. */
  readonly snapshotNodeName?: string | undefined;
  readonly format: string;
  /** "existing": the file is there, and its header names the node's image as its backing file. */
  readonly mode: "existing" | "absolute-paths";
}

/** blockdev-snapshot-sync: the overlay is made, unless it is there, and opened. */
export function externalSnapshotSync(
  graph: Graph,
  options: SnapshotSyncOptions,
): TransactionAction {
  return new ExternalSnapshot(graph, options.node, {
    async open(node) {
      const { format, snapshotNodeName: name } = options;
      if (name !== undefined && graph.find(name)) {
        throw new BlockError("EEXIST", `There is a node '${name}' already`);
      }
      const store = parseImageName(graph, options.snapshotFile, node);
      if (options.mode !== "existing") await createOverlay(graph, node, store, format);
      return graph.addForUsers({
        driver: format,
        ...(name !== undefined && { "node-name": name }),
        file: store.options,
        backing: null,
      });
    },
    close: (overlay) => graph.closeUnused(overlay),
  });
}

async function createOverlay(
  graph: Graph,
  node: BlockNode,
  store: StoreName,
  format: string,
): Promise<void> {
  const layer = skipFilters(node);
  await createImage(graph, store, format, {
    size: io.getLength(node),
    "backing-file": fileNameOf(layer) ?? layer.name,
    "backing-fmt": formatFor(layer, false),
  });
}

interface OverlaySource {
  /** @param node what it will stand on, drained and flushed */
  open(node: BlockNode): Promise<BlockNode>;
  /** It is not needed after all. */
  close(overlay: BlockNode): Promise<void>;
}

class ExternalSnapshot implements TransactionAction {
  readonly #graph: Graph;
  readonly #name: string;
  readonly #source: OverlaySource;
  #still: StillNode | null = null;
  #nodes: { readonly node: BlockNode; readonly overlay: BlockNode } | null = null;

  constructor(graph: Graph, name: string, source: OverlaySource) {
    this.#graph = graph;
    this.#name = name;
    this.#source = source;
  }

  /**
   * @throws BlockError ENOENT (names), EBUSY (a job is at work there, the overlay is in use), EINVAL
   *   (an overlay that does not fit), EPERM, EROFS (what the users need), and what the image throws
   */
  async prepare(): Promise<void> {
    this.#still = await standStill(this.#graph, this.#name, "a snapshot about to be taken");
    const { node } = this.#still;
    try {
      node.checkOperation("snapshot");
      node.checkNotBacking();
      if (!node.readOnly) await io.flush(node);
      const overlay = await this.#source.open(node);
      try {
        this.#install(node, overlay);
      } catch (error) {
        await this.#source.close(overlay);
        throw error;
      }
      this.#nodes = { node, overlay };
    } catch (error) {
      await this.clean();
      throw error;
    }
  }

  /** What the node has is now the snapshot: nobody is to write to it any more. */
  async commit(): Promise<void> {
    const node = this.#nodes?.node;
    if (node && !node.readOnly) await protect(this.#graph, node);
  }

  async abort(): Promise<void> {
    if (!this.#nodes) return;
    const { node, overlay } = this.#nodes;
    this.#graph.replaceNode(overlay, node);
    this.#graph.setBacking(overlay, null);
    await this.#source.close(overlay);
  }

  /** An overlay that is its users' is closed here if there are none. */
  async clean(): Promise<void> {
    await this.#still?.end();
    this.#still = null;
  }

  /** In one turn: what has been checked is still true when it is relied on. */
  #install(node: BlockNode, overlay: BlockNode): void {
    node.checkOperation("snapshot");
    node.checkNotBacking();
    checkOverlay(node, overlay);
    const graph = this.#graph;
    graph.setBacking(overlay, node);
    try {
      graph.replaceNode(node, overlay);
    } catch (error) {
      graph.setBacking(overlay, null);
      throw error;
    }
  }
}

function checkOverlay(node: BlockNode, overlay: BlockNode): void {
  const bad = (problem: string) => new BlockError("EINVAL", problem);
  if (overlay === node) throw bad(`Node '${node.name}' cannot be its own overlay`);
  // An action before this one, of the same transaction, may have something done to the overlay, too.
  const user = [...overlay.parents].find(({ parent }) => !isKeeper(parent));
  if (user) {
    throw new BlockError(
      "EBUSY",
      `The overlay '${overlay.name}' is in use by ${user.parent.description}`,
    );
  }
  overlay.checkOperation("snapshot");
  if (overlay.driver.kind !== "format" || !("backing" in overlay.driver.roles)) {
    throw bad(
      `Driver '${overlay.driver.name}' of the overlay '${overlay.name}' has no backing files`,
    );
  }
  const backing = overlay.children.get("backing");
  if (backing) {
    throw bad(
      `The overlay '${overlay.name}' has a backing file, node '${backing.node.name}', already: open ` +
        "it with 'backing': null",
    );
  }
  // Larger ones are allowed: what they have more reads as zeroes.
  const [length, needed] = [io.getLength(overlay), io.getLength(node)];
  if (length < needed) {
    throw bad(
      `The overlay '${overlay.name}' has ${length} bytes; node '${node.name}' has ${needed}, and ` +
        "would be cut off",
    );
  }
}
