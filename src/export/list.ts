/**
 * Exports of all types: who is there, who has them open, and how they go away (QEMU:
 * block/export/export.c).
 *
 *   add()  ──▶  there  ──remove()──▶  shutting down  ──the last user leaves──▶  gone, BLOCK_EXPORT_DELETED
 *
 * The id of one that is shutting down stays taken, and so does its node; the id until all know who must.
 */

import * as v from "valibot";
import { Bell } from "../base/bell.ts";
import { check } from "../base/check.ts";
import { assert, BlockError } from "../base/errors.ts";
import type { BlockBackend } from "../block/backend.ts";
import type { OptionEntries } from "../block/driver.ts";
import type { Graph } from "../block/graph.ts";
import { Perm } from "../block/permissions.ts";
import type {
  BlockExport,
  BlockExportDriver,
  ExportOptions,
  ExportUser,
  OpenedExport,
} from "./driver.ts";

export interface ExportListInit {
  readonly graph: Graph;
  readonly drivers: Iterable<BlockExportDriver>;
  /** An export is closed: its id is free when this resolves. @throws BlockError if it must not be */
  readonly beforeFree?: (id: string) => Promise<void>;
  /** An export is gone. */
  readonly onDeleted: (id: string) => void;
  /** Something that is no BlockError came out where nobody waits: the engine must stop. */
  readonly onBug: (bug: unknown) => void;
}

const ID = /^[A-Za-z][A-Za-z0-9\-._]*$/;

class Export implements BlockExport {
  readonly id: string;
  readonly driver: BlockExportDriver;
  readonly writable: boolean;
  readonly backend: BlockBackend;
  readonly options: Readonly<Record<string, unknown>>;
  readonly users = new Set<ExportUser>();
  /** Rung when the last user has left. */
  readonly unused = new Bell();
  opened: OpenedExport = {};
  /** Resolves when it is gone; null while nobody has asked for that. */
  gone: Promise<void> | null = null;

  constructor(
    id: string,
    driver: BlockExportDriver,
    backend: BlockBackend,
    options: Readonly<Record<string, unknown>> & { readonly writable: boolean },
  ) {
    this.id = id;
    this.driver = driver;
    this.writable = options.writable;
    this.backend = backend;
    this.options = options;
  }

  get type(): string {
    return this.driver.type;
  }

  get shuttingDown(): boolean {
    return this.gone !== null;
  }

  enter(user: ExportUser): void {
    assert(!this.shuttingDown, "nobody comes to an export that goes away");
    this.users.add(user);
  }

  leave(user: ExportUser): void {
    if (this.users.delete(user) && this.users.size === 0) this.unused.ring();
  }
}

export class ExportList {
  readonly #graph: Graph;
  readonly #drivers: ReadonlyMap<string, BlockExportDriver>;
  readonly #beforeFree: ExportListInit["beforeFree"];
  readonly #onDeleted: (id: string) => void;
  readonly #onBug: (bug: unknown) => void;
  readonly #exports = new Map<string, Export>();

  constructor({ graph, drivers, beforeFree, onDeleted, onBug }: ExportListInit) {
    this.#graph = graph;
    this.#drivers = new Map([...drivers].map((driver) => [driver.type, driver]));
    this.#beforeFree = beforeFree;
    this.#onDeleted = onDeleted;
    this.#onBug = onBug;
  }

  /** The newest first, as QEMU lists them. */
  get all(): readonly BlockExport[] {
    return [...this.#exports.values()].reverse();
  }

  /** The export types there are, and what block-export-add takes for each. */
  get types(): readonly { readonly type: string; readonly options: OptionEntries }[] {
    return [...this.#drivers.values()];
  }

  /** @throws BlockError ENOENT if there is none, or it is going away */
  get(id: string): BlockExport {
    return this.#get(id);
  }

  /**
   * @param own the type's own options, not yet checked
   * @throws BlockError EINVAL (options, id), EEXIST (id taken by an export; of a device also by a
   *   device or node), ENOENT (node), EROFS (writable on a read-only node), ENOENT (iothread), EPERM (permission
   *   conflict), and what the type throws
   */
  async add(options: ExportOptions, own: object = {}): Promise<BlockExport> {
    const { id, nodeName, writable = false, writethrough = false } = options;
    const driver = this.#driver(options.type);
    const checked = check(v.strictObject(driver.options), own);
    this.#checkId(id);
    // As a device it is looked up by the same commands as nodes are.
    if (driver.isDevice && this.#graph.find(id)) {
      throw new BlockError("EEXIST", `'${id}' is the name of a node`);
    }
    const node = this.#graph.get(nodeName);
    if (writable && node.readOnly) {
      throw new BlockError(
        "EROFS",
        `Node '${nodeName}' is read-only: it cannot be written through`,
      );
    }
    if (options.iothread !== undefined) {
      throw new BlockError("ENOENT", `iothread '${options.iothread}' is not found`);
    }
    const backend = this.#graph.openBackend(node, {
      name: driver.isDevice ? id : "",
      description: `export '${id}'`,
      permissions: {
        take: Perm.consistentRead | (writable ? Perm.write : Perm.none),
        share: driver.share ?? Perm.all,
      },
      writethrough,
    });
    const added = new Export(id, driver, backend, { ...own, writable, writethrough });
    try {
      added.opened = driver.open(added, checked as never, this.#graph);
    } catch (error) {
      await this.#graph.closeBackend(backend);
      throw error;
    }
    this.#exports.set(id, added);
    return added;
  }

  /**
   * Takes an export away. What cannot wait is done at once: nobody finds it any more.
   *
   * @param hard disconnects those who have it open; without it they are a reason to refuse
   * @returns when it is gone, or at once if its users still have to leave
   * @throws BlockError ENOENT, EBUSY; what closing nodes that only it used throws
   */
  async remove(id: string, hard: boolean): Promise<void> {
    const removed = this.#get(id);
    if (removed.users.size > 0 && !hard) {
      throw new BlockError("EBUSY", `Export '${id}' is still in use`);
    }
    const gone = this.#shutDown(removed);
    if (removed.users.size === 0) return gone;
    // The command is answered before: there is nobody to tell what the world has said no to.
    gone.catch((error) => {
      if (!(error instanceof BlockError)) this.#onBug(error);
    });
  }

  /**
   * Takes all exports away, or those of one type, and waits until they are gone. Goes on where one
   * fails, and then throws the first failure.
   */
  async removeAll(type?: string): Promise<void> {
    const removed = [...this.#exports.values()].reverse();
    const gone = removed.filter((one) => !type || one.type === type).map((one) => this.#end(one));
    for (const result of await Promise.allSettled(gone)) {
      if (result.status === "rejected") throw result.reason;
    }
  }

  /** The engine closes down. */
  async close(): Promise<void> {
    try {
      await this.removeAll();
    } finally {
      for (const driver of this.#drivers.values()) await driver.close?.();
    }
  }

  #end(removed: Export): Promise<void> {
    return removed.gone ?? this.#shutDown(removed);
  }

  #shutDown(removed: Export): Promise<void> {
    removed.opened.shutdown?.();
    removed.gone = this.#bury(removed);
    return removed.gone;
  }

  async #bury(removed: Export): Promise<void> {
    for (const user of [...removed.users]) user.disconnect();
    while (removed.users.size > 0) await removed.unused.rung();
    removed.opened.close?.();
    try {
      await this.#graph.closeBackend(removed.backend);
    } finally {
      await this.#beforeFree?.(removed.id);
      this.#exports.delete(removed.id);
      this.#onDeleted(removed.id);
    }
  }

  #get(id: string): Export {
    const found = this.#exports.get(id);
    if (!found) throw new BlockError("ENOENT", `Export '${id}' is not found`);
    if (!found.shuttingDown) return found;
    throw new BlockError("ENOENT", `Export '${id}' is already shutting down`);
  }

  #checkId(id: string): void {
    if (!ID.test(id)) {
      throw new BlockError(
        "EINVAL",
        `Invalid block export id '${id}': expected a letter, then letters, digits, '-', '.' and '_'`,
      );
    }
    if (this.#exports.has(id)) {
      throw new BlockError("EEXIST", `Block export id '${id}' is already in use`);
    }
  }

  #driver(type: string): BlockExportDriver {
    const driver = this.#drivers.get(type);
    if (driver) return driver;
    const known = [...this.#drivers.keys()].map((name) => `'${name}'`).join(", ");
    throw new BlockError(
      "EINVAL",
      `Parameter 'type' does not accept value '${type}'; it takes ${known}`,
    );
  }
}
