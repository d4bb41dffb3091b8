/**
 * Exports: what lets a client at the bytes of a node. Ours are of type `message-port`: the data
 * port of an engine client opens them by id (src/engine/data-port.ts). To the graph, and so to
 * query-block and block-stream, an export is a device named by its id. (QEMU: block/export/.)
 */

import { BlockError } from "../base/errors.ts";
import type { BlockBackend } from "../block/backend.ts";
import type { Graph } from "../block/graph.ts";
import { Perm } from "../block/permissions.ts";

export const EXPORT_TYPE = "message-port";

export interface ExportOptions {
  readonly id: string;
  readonly nodeName: string;
  /** Default: read only. */
  readonly writable?: boolean | undefined;
}

/** Somebody who has an export open. */
export interface ExportUser {
  /** The export goes away: let go of it, giving up what is under way. */
  disconnect(): void;
}

export class BlockExport {
  readonly id: string;
  readonly writable: boolean;
  readonly backend: BlockBackend;
  readonly users = new Set<ExportUser>();
  shuttingDown = false;

  constructor(id: string, writable: boolean, backend: BlockBackend) {
    this.id = id;
    this.writable = writable;
    this.backend = backend;
  }
}

const ID = /^[A-Za-z][A-Za-z0-9\-._]*$/;

export class ExportList {
  readonly #graph: Graph;
  readonly #onDeleted: (id: string) => void;
  readonly #exports = new Map<string, BlockExport>();

  /** @param onDeleted an export is gone */
  constructor(graph: Graph, onDeleted: (id: string) => void) {
    this.#graph = graph;
    this.#onDeleted = onDeleted;
  }

  /** Oldest first. */
  get all(): readonly BlockExport[] {
    return [...this.#exports.values()];
  }

  /** @throws BlockError ENOENT if there is none, or it is going away */
  get(id: string): BlockExport {
    const found = this.#exports.get(id);
    if (found && !found.shuttingDown) return found;
    throw new BlockError("ENOENT", `Export '${id}' is not found`);
  }

  /**
   * @throws BlockError EINVAL (id), EEXIST (id taken by an export, device or node), ENOENT (node),
   *   EROFS (writable on a read-only node), EPERM (permission conflict)
   */
  add({ id, nodeName, writable = false }: ExportOptions): BlockExport {
    if (!ID.test(id)) {
      throw new BlockError(
        "EINVAL",
        `Invalid block export id '${id}': expected a letter, then letters, digits, '-', '.' and '_'`,
      );
    }
    if (this.#exports.has(id)) {
      throw new BlockError("EEXIST", `Block export id '${id}' is already in use`);
    }
    // As a device it is looked up by the same commands as nodes are.
    if (this.#graph.find(id)) throw new BlockError("EEXIST", `'${id}' is the name of a node`);
    const node = this.#graph.get(nodeName);
    if (writable && node.readOnly) {
      throw new BlockError(
        "EROFS",
        `Node '${nodeName}' is read-only: it cannot be written through`,
      );
    }
    const backend = this.#graph.openBackend(node, {
      name: id,
      description: `export '${id}'`,
      permissions: {
        take: Perm.consistentRead | (writable ? Perm.write : Perm.none),
        share: Perm.all,
      },
    });
    const added = new BlockExport(id, writable, backend);
    this.#exports.set(id, added);
    return added;
  }

  /**
   * Takes an export away; resolves when it is gone.
   *
   * @param hard disconnects those who have it open; without it they are a reason to refuse
   * @throws BlockError ENOENT, EBUSY; what closing nodes that only it used throws
   */
  async remove(id: string, hard: boolean): Promise<void> {
    const removed = this.get(id);
    if (removed.users.size > 0 && !hard) {
      throw new BlockError("EBUSY", `Export '${id}' is still in use`);
    }
    removed.shuttingDown = true;
    for (const user of removed.users) user.disconnect();
    try {
      await this.#graph.closeBackend(removed.backend);
    } finally {
      this.#exports.delete(id);
      this.#onDeleted(id);
    }
  }
}
