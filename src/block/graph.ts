/**
 * The graph of nodes: who is there, who uses what, and what may change while requests are under way.
 *
 *   opener.ts    opens and closes nodes     links.ts    the edges, and what they permit
 *   filters.ts   put in and taken out       reopener.ts   other options, other rights to write
 *   drain.ts     times of quiet
 *
 * Changes that requests could notice happen inside drained().
 */

import { Bell } from "../base/bell.ts";
import { assert, BlockError } from "../base/errors.ts";
import { type BackendInit, BlockBackend } from "./backend.ts";
import { type DrainedSection, Drains, letThrough } from "./drain.ts";
import type { BlockDriver, ChildRole, World } from "./driver.ts";
import { Filters } from "./filters.ts";
import { describeNode, type NodeRecord, reopenRecorded } from "./graph-record.ts";
import * as io from "./io.ts";
import type { LinkWatcher } from "./link-changes.ts";
import { Links } from "./links.ts";
import type { BlockNode } from "./node.ts";
import { NodeTable } from "./node-table.ts";
import { Opener } from "./opener.ts";
import type { BlockdevOptions } from "./options.ts";
import { storeBitmaps } from "./persistent-bitmaps.ts";
import { Reopener } from "./reopener.ts";
import { Secrets } from "./secrets.ts";
import { ThrottleGroups } from "./throttle-group.ts";

export class Graph {
  readonly world: World;
  readonly drivers: ReadonlyMap<string, BlockDriver>;
  /** For throttle nodes; made by object-add. */
  readonly throttleGroups: ThrottleGroups;
  /** For encrypted images; made by object-add. */
  readonly secrets = new Secrets();
  readonly #table = new NodeTable();
  readonly #backends = new Set<BlockBackend>();
  readonly #quietBell = new Bell();
  readonly #drains = new Drains(this.#quietBell);
  readonly #links = new Links(this.#drains, this.#table);
  readonly #opener: Opener;
  readonly #filters: Filters;
  readonly #reopener: Reopener;
  /** Stores are closed once. */
  #lettingGo: Promise<void> | null = null;

  constructor(world: World, drivers: Iterable<BlockDriver>) {
    this.world = world;
    this.drivers = new Map([...drivers].map((driver) => [driver.name, driver]));
    this.throttleGroups = new ThrottleGroups(world.clock);
    this.#opener = new Opener({
      world,
      throttleGroups: this.throttleGroups,
      secrets: this.secrets,
      quietBell: this.#quietBell,
      table: this.#table,
      links: this.#links,
      driver: (name) => this.driver(name),
      checkName: (name) => this.#checkNoDevice(name, `'${name}' is the name of a device already`),
    });
    this.#filters = new Filters(this.#opener, this.#links, this.#drains);
    this.#reopener = new Reopener({
      links: this.#links,
      driver: (name) => this.driver(name),
      get: (name) => this.get(name),
      openBackend: (node, init) => this.openBackend(node, init),
      closeBackend: (backend) => this.closeBackend(backend),
      closeUnused: (node) => this.closeUnused(node),
      drained: (nodes, change) => this.drained(nodes, change),
    });
  }

  /** Open nodes, oldest first. */
  get nodes(): readonly BlockNode[] {
    return this.#table.open;
  }

  /** Also those that are being opened or closed: their stores are in use. */
  get nodesWithStores(): readonly BlockNode[] {
    return this.#table.all;
  }

  get backends(): readonly BlockBackend[] {
    return [...this.#backends];
  }

  find(name: string): BlockNode | undefined {
    return this.#table.find(name);
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
    return this.#opener.open(options, { readOnly: false, monitorOwned: true }, signal);
  }

  /**
   * The same for a node that is its users': the last of them to go closes it. If none comes:
   * closeUnused().
   */
  addForUsers(options: BlockdevOptions, signal?: AbortSignal): Promise<BlockNode> {
    return this.#opener.open(options, { readOnly: false, monitorOwned: false }, signal);
  }

  /**
   * The same as add() for a node that is only to be checked or repaired (checkNode()): its bitmaps stay
   * in the image, and its backing file need not be decided. Nothing else may be asked of it.
   */
  addForCheck(options: BlockdevOptions, signal?: AbortSignal): Promise<BlockNode> {
    const inherited = { readOnly: false, monitorOwned: true, forCheck: true };
    return this.#opener.open(options, inherited, signal);
  }

  /** Closes a node that nobody uses, unless it is the monitor's, or on its way out already. */
  closeUnused(node: BlockNode): Promise<void> {
    return this.#opener.closeUnused(node);
  }

  /**
   * Flushes everything, then closes the images and stores of all nodes, whoever uses them: for an end that
   * nobody below must notice. The graph stays as it was, and nothing may be asked of it any more.
   *
   * @throws BlockError the first failure; the others are closed all the same
   */
  async abandon(): Promise<void> {
    const nodes = fromTheTop(this.nodes);
    const failures: unknown[] = [];
    for (const node of nodes) {
      if (node.readOnly) continue;
      await io.flush(node).catch((error) => failures.push(error));
    }
    this.#lettingGo ??= this.#opener.closeStates(nodes);
    await this.#lettingGo.catch((error) => failures.push(error));
    if (failures.length > 0) throw failures[0];
  }

  /**
   * Closes the stores of all nodes and writes nothing more to them: for an end after which nobody knows whether
   * what is still in memory is right. What is under way fails. What a store was given before it keeps, also one
   * with a cache (IndexedDB), which is still its only user.
   *
   * @throws BlockError the first failure, or abandon()'s if that has closed them; the others are closed all the same
   */
  letGo(): Promise<void> {
    this.#lettingGo ??= this.#closeStores();
    return this.#lettingGo;
  }

  async #closeStores(): Promise<void> {
    const failures: unknown[] = [];
    for (const { driver, isOpen, state } of this.nodes) {
      if (!isOpen || driver.kind !== "protocol") continue;
      await state.close?.().catch((error) => failures.push(error));
    }
    if (failures.length > 0) throw failures[0];
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
    await this.#opener.close(node);
  }

  #checkRemovable(node: BlockNode): void {
    if (this.#table.isGone(node)) throw new BlockError("ENOENT", `Cannot find node '${node.name}'`);
    if (!node.monitorOwned) {
      const [user] = node.parents;
      const used = user ? `: it is there for ${user.parent.description}` : "";
      throw new BlockError("EPERM", `Node '${node.name}' is not owned by the monitor${used}`);
    }
    // A job first: that its filter uses the node would tell nothing to whoever is refused.
    node.checkOperation("remove");
    const [user] = node.parents;
    if (user) {
      throw new BlockError("EBUSY", `Node '${node.name}' is in use by ${user.parent.description}`);
    }
  }

  /**
   * @throws BlockError EEXIST (name), ENOENT for a node that has been closed, EPERM if what it takes
   *   is not shared, or the other way round
   */
  openBackend(node: BlockNode, init: BackendInit): BlockBackend {
    if (this.#table.isGone(node)) {
      throw new BlockError("ENOENT", `Node '${node.name}' has been closed`);
    }
    if (init.name !== "") {
      this.#checkNoDevice(init.name, `There is a device '${init.name}' already`);
    }
    const backend = new BlockBackend(init, node, this.#quietBell);
    this.#links.addRoot(backend.edge);
    this.#backends.add(backend);
    this.world.trace.blk_root_attach?.(init.description, node.name);
    return backend;
  }

  #checkNoDevice(name: string, problem: string): void {
    if (this.backends.some((backend) => backend.name === name)) {
      throw new BlockError("EEXIST", problem);
    }
  }

  /** Waits for the backend's requests, then takes it away; nodes that only it used are closed. */
  async closeBackend(backend: BlockBackend): Promise<void> {
    backend.markClosed();
    // Not isQuiet(): a job that closes its own backend is at work.
    const passage = letThrough([backend.node]);
    while (!backend.isIdle) await this.#quietBell.rung();
    passage.end();
    if (!this.#backends.delete(backend)) return;
    this.world.trace.blk_root_detach?.(backend.description, backend.node.name);
    await this.#opener.detach(backend.edge);
  }

  /**
   * Opens a filter and puts it between a node and all who use it now.
   *
   *   before   users ──▶ [node]          after   users ──▶ [filter] ──▶ [node]
   *
   * @param options the filter's, without `file`; without a name queries do not show it as a layer
   * @param driver a job's own, which blockdev-add does not know
   * @throws BlockError EBUSY if a link that would move is frozen by a job, or if the node's users
   *   have been given to another one meanwhile
   */
  insertFilter(
    options: BlockdevOptions,
    node: BlockNode,
    driver = this.driver(options.driver),
  ): Promise<BlockNode> {
    return this.#filters.insert(options, node, driver);
  }

  /** Puts a filter's users back onto what is below it and closes it. */
  removeFilter(filter: BlockNode): Promise<void> {
    assert(filter.driver.kind === "filter", "only filters can be taken out");
    return this.#filters.remove(filter);
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
    this.#links.giveUsers(from, to);
    return () => this.closeUnused(from);
  }

  /**
   * Gives `node` another backing node, or none. Call it in drained().
   *
   * @returns as replaceNode(), for the backing node that it had
   * @throws BlockError EBUSY if the link is frozen, EINVAL for a circle, EPERM on a conflict; nothing
   *   has changed then
   */
  setBacking(node: BlockNode, backing: BlockNode | null): () => Promise<void> {
    const old = this.#links.setChild(node, "backing", backing);
    return async () => {
      if (old) await this.closeUnused(old);
    };
  }

  /**
   * Gives a node another right to write, and with it the nodes that it keeps its bytes in, as far
   * as they were opened with it. Drains and flushes. A job calls it when it is not at work: see
   * BlockJob.drain().
   *
   * @throws BlockError EROFS if what is below may only be read; EBUSY if its users have been given to
   *   another node meanwhile; EPERM if somebody writes, or on a
   *   permission conflict; ENOTSUP; what the drivers throw. Everything is as before then
   */
  reopen(node: BlockNode, { readOnly }: { readonly readOnly: boolean }): Promise<void> {
    return this.#reopener.reopen(node, readOnly);
  }

  /**
   * Gives nodes other options (blockdev-reopen), all of them or none: each of the list is complete, as
   * for add(), and what is left out goes back to its default. Drains and flushes.
   *
   * @throws BlockError EINVAL for what cannot be changed, by name; ENOENT; EBUSY for a link that a job
   *   relies on; and as reopen(). Everything is as before then
   */
  reopenAll(list: readonly BlockdevOptions[]): Promise<void> {
    return this.#reopener.reopenAll(list);
  }

  /** Whether reopenAll() may have a node keep its bytes elsewhere, in another one or in another part. @throws BlockError as that */
  movesBytes(list: readonly BlockdevOptions[]): boolean {
    return this.#reopener.movesBytes(list);
  }

  /** Runs `change` while nothing is under way on the nodes nor above them: see drain.ts. */
  drained<T>(
    nodes: readonly BlockNode[],
    change: (section: DrainedSection) => T | Promise<T>,
  ): Promise<T> {
    return this.#drains.run(nodes, change);
  }

  /**
   * The same in two halves, for those who have to keep still across several steps. Whoever begins
   * one ends it, whatever happens in between.
   */
  drain(nodes: readonly BlockNode[]): Promise<DrainedSection> {
    return this.#drains.begin(nodes);
  }

  /** Guests' requests to the nodes wait until end(), of whoever comes, too: see Drains.hold(). */
  hold(nodes: readonly BlockNode[]): { end(): void } {
    return this.#drains.hold(nodes);
  }

  /** Who keeps a record of the graph: see link-changes.ts. */
  watchLinks(watcher: LinkWatcher | null): void {
    this.#drains.watcher = watcher;
  }

  /** All nodes but jobs' filters, in their order; links as far as they count. */
  describe(): NodeRecord[] {
    const link = (node: BlockNode, role: ChildRole) => this.#settledChild(node, role);
    const isReadOnly = (node: BlockNode) => this.#drains.isReadOnly(node);
    const nodes = this.nodes.filter((node) => !node.isJobFilter);
    return nodes.map((node) => describeNode(node, link, isReadOnly));
  }

  #settledChild(node: BlockNode, role: ChildRole): BlockNode | null {
    return this.#drains.settledNode(node, role, node.children.get(role)?.node ?? null);
  }

  /** The node that a backend has, as far as that counts; past filters of jobs. */
  settledNode(backend: BlockBackend): BlockNode {
    return this.#drains.settledNode(backend, "root", backend.node) ?? backend.node;
  }

  /**
   * Opens a node as it was when it was described; those it stands on are there.
   *
   * @throws BlockError as add()
   */
  addAgain(record: NodeRecord, signal?: AbortSignal): Promise<BlockNode> {
    return reopenRecorded(record, this.#opener, signal);
  }

  /** Nodes of these names are listed last, in this order. */
  listInOrder(names: readonly string[]): void {
    for (const name of names) {
      const node = this.find(name);
      if (node) this.#table.enlist(node);
    }
  }

  /** For roots that became quiet in a way only they know of: a job that has parked. */
  ringQuiet(): void {
    this.#quietBell.ring();
  }
}

/** Each node before those that it stands on. */
function fromTheTop(nodes: readonly BlockNode[]): BlockNode[] {
  const ordered = new Set<BlockNode>();
  const visit = (node: BlockNode): void => {
    if (ordered.has(node)) return;
    for (const { node: child } of node.children.values()) visit(child);
    ordered.add(node);
  };
  for (const node of nodes) visit(node);
  return [...ordered].reverse();
}
