/**
 * The graph of nodes: opens and closes them, joins and parts them, and keeps their permissions.
 *
 * Every change of the edges is synchronous and all or nothing: edges are changed, permissions are
 * worked out anew for everything below, and on a conflict the edges are put back. Changes that
 * requests could notice happen inside drained().
 */

import { Bell } from "../base/bell.ts";
import { assert, BlockError } from "../base/errors.ts";
import { Mutex } from "../base/mutex.ts";
import { type BackendInit, BlockBackend } from "./backend.ts";
import { BlockChild } from "./child.ts";
import { type DrainedSection, Drains, letThrough } from "./drain.ts";
import type { BlockDriver, ChildRole, Children, World } from "./driver.ts";
import * as io from "./io.ts";
import { BlockNode } from "./node.ts";
import { type BlockdevOptions, type BlockdevRef, checkOptions, roleMember } from "./options.ts";
import { planPermissions } from "./permission-plan.ts";
import { Perm } from "./permissions.ts";
import { loadBitmaps, storeBitmaps } from "./persistent-bitmaps.ts";
import { type ReopenHost, reopenedNodes, reopenTree } from "./reopen.ts";
import { ThrottleGroups } from "./throttle-group.ts";

/** Deeper nesting of nodes than this is taken for a mistake, or an attack on the stack. */
export const CHAIN_NODES_MAX = 200;

interface Inherited {
  readonly readOnly: boolean;
  readonly monitorOwned: boolean;
  readonly implicit: boolean;
  readonly depth: number;
}

export class Graph {
  readonly world: World;
  readonly drivers: ReadonlyMap<string, BlockDriver>;
  /** For throttle nodes; made by object-add. */
  readonly throttleGroups: ThrottleGroups;
  readonly #nodes = new Map<string, BlockNode>();
  /** On their way out: their names and stores are still taken, but nobody finds them any more. */
  readonly #closing = new Set<BlockNode>();
  /** On their way in: what their image keeps beside the disk is not there yet. */
  readonly #opening = new Set<BlockNode>();
  readonly #backends = new Set<BlockBackend>();
  readonly #insertions = new Mutex();
  readonly #reopens = new Mutex();
  readonly #drains: Drains;
  readonly #quietBell = new Bell();
  readonly #reopenHost: ReopenHost = {
    refreshPermissions: (nodes) => this.#refreshPermissions(nodes),
    beforeReadOnly: storeBitmaps,
    afterWritable: async () => {},
  };
  #generated = 0;

  constructor(world: World, drivers: Iterable<BlockDriver>) {
    this.world = world;
    this.throttleGroups = new ThrottleGroups(world.clock);
    this.#drains = new Drains(this.#quietBell);
    this.drivers = new Map([...drivers].map((driver) => [driver.name, driver]));
  }

  /** Open nodes, oldest first. */
  get nodes(): readonly BlockNode[] {
    return [...this.#nodes.values()].filter((node) => this.#isThere(node));
  }

  get backends(): readonly BlockBackend[] {
    return [...this.#backends];
  }

  find(name: string): BlockNode | undefined {
    const node = this.#nodes.get(name);
    return node && this.#isThere(node) ? node : undefined;
  }

  #isThere(node: BlockNode): boolean {
    return node.isOpen && !this.#closing.has(node) && !this.#opening.has(node);
  }

  /** @throws BlockError ENOENT (GenericError) */
  get(name: string): BlockNode {
    const node = this.find(name);
    if (node) return node;
    throw new BlockError("ENOENT", `Cannot find node '${name}'`);
  }

  /** A device by its name, else a node by its. @throws BlockError ENOENT (GenericError) */
  getDeviceOrNode(name: string): BlockNode {
    const node = this.findDeviceOrNode(name);
    if (node) return node;
    throw new BlockError("ENOENT", `Cannot find device or node '${name}'`);
  }

  findDeviceOrNode(name: string): BlockNode | undefined {
    // Jobs and the like have no name.
    const backend = name === "" ? undefined : this.backends.find((one) => one.name === name);
    if (backend) return backend.node;
    return this.find(name);
  }

  /** @throws BlockError EINVAL with the drivers that there are */
  driver(name: string): BlockDriver {
    const driver = this.drivers.get(name);
    if (driver) return driver;
    const known = [...this.drivers.keys()].sort().join(", ");
    throw new BlockError("EINVAL", `Unknown driver '${name}'; there are: ${known}`);
  }

  /**
   * Opens a node and the nodes nested in its options (blockdev-add). All of them or none.
   *
   * @throws BlockError EINVAL (options), EEXIST (name taken), EPERM (permission conflict), and what
   *   the driver throws; nothing is left open then
   */
  add(options: BlockdevOptions, signal?: AbortSignal): Promise<BlockNode> {
    const inherited = { readOnly: false, monitorOwned: true, implicit: false, depth: 0 };
    return this.#open(options, inherited, signal);
  }

  /**
   * The same for a node that is its users': the last of them to go closes it. If none comes:
   * closeUnused().
   */
  addForUsers(options: BlockdevOptions, signal?: AbortSignal): Promise<BlockNode> {
    const inherited = { readOnly: false, monitorOwned: false, implicit: false, depth: 0 };
    return this.#open(options, inherited, signal);
  }

  /** Closes a node that nobody uses, unless it is the monitor's. */
  async closeUnused(node: BlockNode): Promise<void> {
    await this.#disposeIfUnused(node);
  }

  async #open(
    options: BlockdevOptions,
    inherited: Inherited,
    signal?: AbortSignal,
    driver = this.driver(options.driver),
  ): Promise<BlockNode> {
    if (inherited.depth > CHAIN_NODES_MAX) {
      throw new BlockError("EINVAL", `Options nest deeper than ${CHAIN_NODES_MAX} nodes`);
    }
    const checked = checkOptions(driver, options);
    if (checked.nodeName === undefined && inherited.monitorOwned && !inherited.implicit) {
      throw new BlockError(
        "EINVAL",
        "Parameter 'node-name' is missing: it must be given for a root",
      );
    }
    const node = new BlockNode({
      name: this.#takeName(checked.nodeName),
      driver,
      world: this.world,
      readOnly: checked.readOnly ?? inherited.readOnly,
      quietBell: this.#quietBell,
      implicit: inherited.implicit,
      monitorOwned: inherited.monitorOwned,
      followsParent: !inherited.monitorOwned && checked.readOnly === undefined,
      options: checked.own,
      detectZeroes: checked.detectZeroes,
      discard: checked.discard,
    });
    this.#nodes.set(node.name, node);
    this.#opening.add(node);
    try {
      for (const [role, reference] of checked.roles) {
        if (reference !== null) await this.#openChild(node, role, reference, inherited, signal);
      }
      const state = await driver.open({
        world: this.world,
        options: checked.own as never,
        throttleGroups: this.throttleGroups,
        nodeName: node.name,
        readOnly: node.readOnly,
        children: liveChildren(node),
        ...(signal && { signal }),
      });
      node.setState(state);
      checkBackingIsDecided(node, checked.roles);
      await loadBitmaps(node);
      return node;
    } catch (error) {
      // The first failure is the one to tell; nothing has been written that a close could lose.
      await this.#dispose(node, false).catch((later: unknown) => {
        if (!(later instanceof BlockError)) throw later;
      });
      throw error;
    } finally {
      this.#opening.delete(node);
    }
  }

  async #openChild(
    parent: BlockNode,
    role: ChildRole,
    reference: BlockdevRef,
    inherited: Inherited,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const child =
      typeof reference === "string"
        ? this.get(reference)
        : await this.#open(
            reference,
            {
              readOnly: role === "backing" || parent.readOnly,
              monitorOwned: false,
              implicit: false,
              depth: inherited.depth + 1,
            },
            signal,
          );
    const edge = new BlockChild(parent, role, child, { take: Perm.none, share: Perm.all });
    parent.children.set(role, edge);
    child.parents.add(edge);
    // A failure here leaves the edge to #dispose().
    this.#refreshPermissions([parent]);
  }

  /**
   * Closes a node that blockdev-add opened, and what was nested in its options.
   *
   * @throws BlockError ENOENT, EBUSY while something uses it; what flushing it throws, and then
   *   the node is still open: nothing that was written is given up
   */
  async remove(name: string): Promise<void> {
    const node = this.get(name);
    this.#checkRemovable(node);
    if (!node.readOnly) {
      await io.flush(node);
      await storeBitmaps(node);
    }
    this.#checkRemovable(node);
    await this.#dispose(node);
  }

  #checkRemovable(node: BlockNode): void {
    if (this.#closing.has(node)) throw new BlockError("ENOENT", `Cannot find node '${node.name}'`);
    if (!node.monitorOwned) {
      throw new BlockError("EPERM", `Node '${node.name}' is not owned by the monitor`);
    }
    // A job first: that its filter uses the node would tell nothing to whoever is refused.
    node.checkOperation("remove");
    const [user] = node.parents;
    if (user) {
      throw new BlockError("EBUSY", `Node '${node.name}' is in use by ${user.parent.description}`);
    }
  }

  /** Takes a node nobody uses out of the graph, closes it, then its children if they were its own. */
  async #dispose(node: BlockNode, keepsBitmaps = true): Promise<void> {
    assert(node.parents.size === 0, "only unused nodes are closed");
    assert(!this.#closing.has(node), "a node is closed once");
    this.#closing.add(node);
    // The name stays taken until the store is let go of: whoever reuses it must find it free.
    try {
      if (node.isOpen) await closeState(node, keepsBitmaps);
    } finally {
      this.#nodes.delete(node.name);
      this.#closing.delete(node);
      const edges = [...node.children.values()];
      node.children.clear();
      for (const edge of edges) await this.#detach(edge);
    }
  }

  async #detach(edge: BlockChild): Promise<void> {
    const { node } = edge;
    node.parents.delete(edge);
    if (node.parents.size === 0 && !node.monitorOwned) await this.#dispose(node);
    else this.#refreshPermissions([node]);
  }

  /** @throws BlockError EPERM if what it takes is not shared, or the other way round */
  openBackend(node: BlockNode, init: BackendInit): BlockBackend {
    if (init.name !== "" && this.backends.some((other) => other.name === init.name)) {
      throw new BlockError("EEXIST", `There is a device '${init.name}' already`);
    }
    const backend = new BlockBackend(init, node, this.#quietBell);
    node.parents.add(backend.edge);
    try {
      this.#refreshPermissions([node]);
    } catch (error) {
      node.parents.delete(backend.edge);
      throw error;
    }
    this.#backends.add(backend);
    this.#drains.join(backend);
    return backend;
  }

  /** Waits for the backend's requests, then takes it away; nodes that only it used are closed. */
  async closeBackend(backend: BlockBackend): Promise<void> {
    backend.markClosed();
    // Not isQuiet(): a job that closes its own backend is at work.
    const passage = letThrough([backend.node]);
    while (!backend.isIdle) await this.#quietBell.rung();
    passage.end();
    if (!this.#backends.delete(backend)) return;
    await this.#detach(backend.edge);
  }

  /**
   * Opens a filter and puts it between a node and all who use it now.
   *
   *   before   users ──▶ [node]          after   users ──▶ [filter] ──▶ [node]
   *
   * @param options the filter's, without `file`; without a name queries do not show it as a layer
   * @param driver a job's own, which blockdev-add does not know
   * @throws BlockError EBUSY if a link that would move is frozen by a job
   */
  insertFilter(
    options: BlockdevOptions,
    node: BlockNode,
    driver?: BlockDriver,
  ): Promise<BlockNode> {
    // One after another: of two on their way in, each would take the other for a user of the node,
    // and the graph would become a circle.
    return this.#insertions.run(async () => {
      const implicit = options["node-name"] === undefined;
      const inherited = { readOnly: node.readOnly, monitorOwned: true, implicit, depth: 0 };
      const filter = await this.#open(
        { ...options, [roleMember(driver ?? this.driver(options.driver), "file")]: node.name },
        inherited,
        undefined,
        driver,
      );
      try {
        await this.drained([node], () => {
          // Not those below the filter: its target may have the node for a backing file.
          const below = subtree(filter);
          const users = [...node.parents].filter(({ parent }) => !below.has(parent as BlockNode));
          this.#repoint(users, filter);
        });
      } catch (error) {
        await this.#dispose(filter);
        throw error;
      }
      return filter;
    });
  }

  /** Puts a filter's users back onto what is below it and closes it. */
  async removeFilter(filter: BlockNode): Promise<void> {
    assert(filter.driver.kind === "filter", "only filters can be taken out");
    await this.drained([filter], () => {
      this.#repoint([...filter.parents], io.fileOf(filter).node);
    });
    await this.#dispose(filter);
  }

  /**
   * Gives all users of one node to another, which stands for it from then on. Users that the other
   * one has below itself stay: an overlay may take the place of its own backing file. Call it in a
   * drained section of both.
   *
   *   before   users ──▶ [from]   [to]       after   users ──▶ [to]   [from]
   *
   * @returns to be called after the drained section: closes `from` if nobody needs it any more
   * @throws BlockError EBUSY if a link is frozen, EPERM on a conflict; nothing has changed then
   */
  replaceNode(from: BlockNode, to: BlockNode): () => Promise<void> {
    const below = subtree(to);
    const users = [...from.parents].filter(({ parent }) => !below.has(parent as BlockNode));
    this.#repoint(users, to);
    return () => this.#disposeIfUnused(from);
  }

  /** Gives `node` another backing node, or none. Call it in drained(). */
  setBacking(node: BlockNode, backing: BlockNode | null): () => Promise<void> {
    const edge = node.children.get("backing");
    if (edge?.node === backing || (!edge && !backing)) return async () => {};
    if (edge?.frozen) throw frozenError(edge);
    if (edge && backing) {
      const old = edge.node;
      this.#repoint([edge], backing);
      return () => this.#disposeIfUnused(old);
    }
    if (backing) {
      const added = new BlockChild(node, "backing", backing, { take: Perm.none, share: Perm.all });
      node.children.set("backing", added);
      backing.parents.add(added);
      try {
        this.#refreshPermissions([node]);
      } catch (error) {
        node.children.delete("backing");
        backing.parents.delete(added);
        throw error;
      }
      return async () => {};
    }
    assert(edge, "there is a backing edge to take away");
    const old = edge.node;
    node.children.delete("backing");
    old.parents.delete(edge);
    this.#refreshPermissions([old]);
    return () => this.#disposeIfUnused(old);
  }

  async #disposeIfUnused(node: BlockNode): Promise<void> {
    const isGone = this.#closing.has(node) || this.#nodes.get(node.name) !== node;
    if (node.parents.size === 0 && !node.monitorOwned && !isGone) await this.#dispose(node);
  }

  /** Points edges at another node, all or none. */
  #repoint(edges: readonly BlockChild[], target: BlockNode): void {
    for (const edge of edges) if (edge.frozen) throw frozenError(edge);
    const before = edges.map((edge) => edge.node);
    const move = (edge: BlockChild, node: BlockNode) => {
      edge.node.parents.delete(edge);
      edge.node = node;
      node.parents.add(edge);
    };
    for (const edge of edges) move(edge, target);
    try {
      // Those that lost an edge first: what a filter no longer passes on must not conflict.
      this.#refreshPermissions([...before, target]);
    } catch (error) {
      for (const [i, edge] of edges.entries()) move(edge, before[i]!);
      throw error;
    }
  }

  /**
   * Gives a node another right to write, and with it the nodes that it keeps its bytes in, as far
   * as they were opened with it. Drains and flushes. A job calls it when it is not at work: see
   * BlockJob.drain().
   *
   * @throws BlockError EROFS if what is below may only be read; EPERM if somebody writes, or on a
   *   permission conflict; ENOTSUP; what the drivers throw. Everything is as before then
   */
  reopen(node: BlockNode, { readOnly }: { readonly readOnly: boolean }): Promise<void> {
    return this.#reopens.run(async () => {
      if (node.readOnly === readOnly) return;
      // Nobody closes it meanwhile.
      const hold = this.openBackend(node, {
        name: "",
        description: "a change of its 'read-only'",
        permissions: { take: Perm.none, share: Perm.all },
      });
      try {
        for (let isDone = false; !isDone; ) {
          const nodes = reopenedNodes(node, readOnly);
          await this.drained(nodes, async () => {
            // Other nodes may have come in below while those were drained.
            if (reopenedNodes(node, readOnly).some((below) => !nodes.includes(below))) return;
            await reopenTree(this.#reopenHost, node, readOnly);
            isDone = true;
          });
        }
      } finally {
        await this.closeBackend(hold);
      }
    });
  }

  /** Runs `change` while nothing is under way on the nodes nor above them: see drain.ts. */
  drained<T>(nodes: readonly BlockNode[], change: () => T | Promise<T>): Promise<T> {
    return this.#drains.run(nodes, change);
  }

  /**
   * The same in two halves, for those who have to keep still across several steps. Whoever begins
   * one ends it, whatever happens in between.
   */
  drain(nodes: readonly BlockNode[]): Promise<DrainedSection> {
    return this.#drains.begin(nodes);
  }

  /** For roots that became quiet in a way only they know of: a job that has parked. */
  ringQuiet(): void {
    this.#quietBell.ring();
  }

  #takeName(wanted: string | undefined): string {
    if (wanted === undefined) return `#block${++this.#generated}`;
    if (this.#nodes.has(wanted)) {
      throw new BlockError("EEXIST", `There is a node '${wanted}' already`);
    }
    if (this.backends.some((backend) => backend.name === wanted)) {
      throw new BlockError("EEXIST", `'${wanted}' is the name of a device already`);
    }
    return wanted;
  }

  /** @throws BlockError EPERM, EROFS on a conflict; no edge has changed then */
  #refreshPermissions(nodes: readonly BlockNode[]): void {
    for (const [edge, permissions] of planPermissions(nodes)) edge.permissions = permissions;
  }
}

/** A name inside an image is never followed: whoever opens it says what stands below. */
function checkBackingIsDecided(
  node: BlockNode,
  roles: ReadonlyMap<ChildRole, BlockdevRef | null>,
): void {
  const name = node.state.info?.()["backing-filename"];
  if (name === undefined || roles.has("backing")) return;
  throw new BlockError(
    "EINVAL",
    `The image of node '${node.name}' has the backing file '${name}'. Names inside images are not ` +
      "followed: give 'backing' as a node or its options, or null to open the image without",
  );
}

async function closeState(node: BlockNode, keepsBitmaps: boolean): Promise<void> {
  try {
    if (keepsBitmaps && !node.readOnly) await storeBitmaps(node);
  } finally {
    await node.state.close?.();
  }
}

function frozenError(edge: BlockChild): BlockError {
  return new BlockError(
    "EBUSY",
    `The link from ${edge.parent.description} to node '${edge.node.name}' is frozen by a job`,
  );
}

/** A node and all below it. */
function subtree(node: BlockNode): ReadonlySet<BlockNode> {
  const found = new Set<BlockNode>();
  const visit = (below: BlockNode): void => {
    if (found.has(below)) return;
    found.add(below);
    for (const edge of below.children.values()) visit(edge.node);
  };
  visit(node);
  return found;
}

/** The edges as the graph has them at any moment: a driver keeps this, and jobs change backings. */
function liveChildren(node: BlockNode): Children {
  const roles: readonly ChildRole[] = ["file", "data-file", "backing", "target", "log"];
  const live = {};
  for (const role of roles)
    Object.defineProperty(live, role, { get: () => node.children.get(role) });
  return live;
}
