/**
 * Opens nodes with all that is nested in their options, and closes them with all that was theirs.
 * Opening is all or nothing; what cannot be closed well is gone all the same.
 */

import type { Bell } from "../base/bell.ts";
import { assert, BlockError, type Errno } from "../base/errors.ts";
import { settleAll } from "../base/settle.ts";
import { leaveBitmapIntent } from "./bitmap-intent.ts";
import type { BlockChild } from "./child.ts";
import type { BlockDriver, BlockState, ChildRole, Children, World } from "./driver.ts";
import type { Links } from "./links.ts";
import { BlockNode } from "./node.ts";
import type { NodeTable } from "./node-table.ts";
import {
  type BlockdevOptions,
  type BlockdevRef,
  checkOptions,
  type InheritedSettings,
  roleMember,
} from "./options.ts";
import { loadBitmaps, storeBitmaps } from "./persistent-bitmaps.ts";
import type { Secrets } from "./secrets.ts";
import type { ThrottleGroups } from "./throttle-group.ts";

/** Deeper nesting of nodes than this is taken for a mistake, or an attack on the stack. */
const CHAIN_NODES_MAX = 200;

/** What a node has from whoever opens it. */
export interface Inherited {
  readonly readOnly: boolean;
  readonly monitorOwned: boolean;
  readonly implicit?: boolean;
  readonly isJobFilter?: boolean;
  /** Nodes above it in the same options. */
  readonly depth?: number;
  /** The one right above it in the same options. */
  readonly parent?: BlockNode;
  readonly settings?: Partial<InheritedSettings>;
  /** See OpenContext; of the node itself, not of those nested in its options. */
  readonly forCheck?: boolean;
  /** It has been there before, under this name, which may be one that was made up. */
  readonly again?: { readonly name: string; readonly followsParent: boolean };
}

/** What the graph has for it. */
export interface OpenerInit {
  readonly world: World;
  readonly throttleGroups: ThrottleGroups;
  readonly secrets: Secrets;
  readonly quietBell: Bell;
  readonly table: NodeTable;
  readonly links: Links;
  /** @throws BlockError EINVAL */
  driver(name: string): BlockDriver;
  /** @throws BlockError EEXIST if something else than a node has the name */
  checkName(name: string): void;
}

export class Opener {
  readonly #init: OpenerInit;

  constructor(init: OpenerInit) {
    this.#init = init;
  }

  /** @throws BlockError as Graph.add(); nothing is left open then */
  async open(
    options: BlockdevOptions,
    inherited: Inherited,
    signal?: AbortSignal,
    driver = this.#init.driver(options.driver),
  ): Promise<BlockNode> {
    const { table, world, throttleGroups, secrets } = this.#init;
    const { forCheck = false, again } = inherited;
    const { own, roles, readOnly, ...checked } = check(driver, options, inherited);
    const isReadOnly = readOnly ?? inherited.readOnly;
    checkForceShare(checked.settings.forceShare, isReadOnly);
    const node = new BlockNode({
      ...checked,
      name: this.#freeName(again?.name ?? checked.nodeName),
      driver,
      world,
      readOnly: isReadOnly,
      openedWith: inherited.parent ?? null,
      quietBell: this.#init.quietBell,
      implicit: inherited.implicit ?? false,
      isJobFilter: inherited.isJobFilter ?? false,
      monitorOwned: inherited.monitorOwned,
      followsParent: again?.followsParent ?? (!inherited.monitorOwned && readOnly === undefined),
      options: own,
    });
    table.beginOpening(node);
    try {
      const isFile = ([role]: readonly [ChildRole, unknown]) => roleMember(driver, role) === "file";
      const openAll = async (some: readonly [ChildRole, BlockdevRef | null][]) => {
        for (const [role, reference] of some) {
          if (reference !== null) await this.#openChild(node, role, reference, inherited, signal);
        }
      };
      // The order in which QEMU's nodes come to be is the order in which it lists them.
      await openAll([...roles].filter(isFile));
      table.enlist(node);
      await openAll([...roles].filter((role) => !isFile(role)));
      const open = () =>
        driver.open({
          world,
          options: own as never,
          throttleGroups,
          secrets,
          nodeName: node.name,
          readOnly: node.readOnly,
          children: liveChildren(node),
          ...(forCheck && { forCheck }),
          ...(signal && { signal }),
        });
      node.setState(await openAsFarAsAllowed(node, open));
      world.intents?.opened(node);
      if (!forCheck) {
        checkBackingIsDecided(node, roles);
        await loadBitmaps(node);
      }
      world.trace.bdrv_open_common?.(node.name, driver.name, node.readOnly);
      return node;
    } catch (error) {
      await this.#giveUp(node);
      throw error;
    } finally {
      table.endOpening(node);
    }
  }

  #freeName(wanted: string | undefined): string {
    const name = this.#init.table.freeName(wanted);
    if (wanted !== undefined) this.#init.checkName(wanted);
    return name;
  }

  async #openChild(
    parent: BlockNode,
    role: ChildRole,
    reference: BlockdevRef,
    { depth = 0 }: Inherited,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { links } = this.#init;
    if (typeof reference === "string") {
      links.add(parent, role, this.#find(reference));
      return;
    }
    const inherited = { ...inheritance(parent, role), monitorOwned: false, depth: depth + 1 };
    const child = await this.open(reference, inherited, signal);
    try {
      links.add(parent, role, child);
    } catch (error) {
      await this.#giveUp(child);
      throw error;
    }
  }

  /** The first failure is the one to tell; nothing has been written that a close could lose. */
  async #giveUp(node: BlockNode): Promise<void> {
    try {
      await this.close(node, false);
    } catch (later) {
      if (!(later instanceof BlockError)) throw later;
    }
  }

  #find(name: string): BlockNode {
    const node = this.#init.table.find(name);
    if (node) return node;
    throw new BlockError("ENOENT", `Cannot find node '${name}'`);
  }

  /**
   * Takes a node that nobody uses out of the graph, at once, and closes it; then its children, if they
   * were its own.
   *
   * @throws BlockError what closing them throws; they are gone all the same
   */
  async close(node: BlockNode, keepsBitmaps = true): Promise<void> {
    this.#init.world.trace.bdrv_close?.(node.name, node.driver.name);
    const { table } = this.#init;
    assert(node.parents.size === 0, "only unused nodes are closed");
    table.beginClosing(node);
    try {
      if (node.isOpen) await closeState(node, keepsBitmaps);
    } finally {
      table.endClosing(node);
      const edges = [...node.children.values()];
      node.children.clear();
      // All of them, whatever becomes of one: an edge that stays would hold its node for ever.
      await settleAll(edges.map((edge) => this.detach(edge)));
    }
  }

  /**
   * Closes the images and stores of all nodes, whoever uses them: see Graph.abandon(). Bitmaps that somebody works
   * on cannot be put back into their image; on record they stay.
   *
   * @param nodes each before those it stands on
   * @throws BlockError the first failure; the others are closed all the same
   */
  async closeStates(nodes: readonly BlockNode[]): Promise<void> {
    const failures: BlockError[] = [];
    for (const node of nodes) {
      try {
        const { intent } = node.bitmaps;
        const isLeft = intent !== null && node.bitmaps.all().some(({ busy }) => busy);
        await closeState(node, !isLeft);
      } catch (error) {
        if (!(error instanceof BlockError)) throw error;
        failures.push(error);
      }
    }
    if (failures[0]) throw failures[0];
  }

  /** Closes a node that nobody uses, unless it is the monitor's, or on its way out already. */
  async closeUnused(node: BlockNode): Promise<void> {
    const isUnused = node.parents.size === 0 && !node.monitorOwned;
    if (isUnused && !this.#init.table.isGone(node)) await this.close(node);
  }

  /** Takes away an edge whose user is gone, and closes what was only there for it. */
  async detach(edge: BlockChild): Promise<void> {
    const { node } = edge;
    node.parents.delete(edge);
    if (node.parents.size === 0 && !node.monitorOwned) await this.close(node);
    else this.#init.links.refreshPermissions([node]);
  }
}

/** What a node has from the one in whose options it is nested, unless its own say otherwise. */
export function inheritance(
  parent: BlockNode,
  role: ChildRole,
  isParentReadOnly = parent.readOnly,
  { direct, noFlush, autoReadOnly } = parent.settings,
): { parent: BlockNode; readOnly: boolean; settings: InheritedSettings } {
  const isBacking = role === "backing";
  return {
    parent,
    readOnly: isBacking || isParentReadOnly,
    settings: { direct, noFlush, autoReadOnly: autoReadOnly && !isBacking },
  };
}

/** Only what nobody writes to can be read as one disk while others do as they like. */
export function checkForceShare(forceShare: boolean, readOnly: boolean): void {
  if (!forceShare || readOnly) return;
  throw new BlockError("EINVAL", "'force-share' needs 'read-only': true");
}

const MAY_ONLY_READ: readonly Errno[] = ["EACCES", "EPERM", "EROFS"];

/** 'auto-read-only': a store that cannot be written is opened all the same. */
async function openAsFarAsAllowed(
  node: BlockNode,
  open: () => Promise<BlockState>,
): Promise<BlockState> {
  try {
    return await open();
  } catch (error) {
    if (!(error instanceof BlockError) || !MAY_ONLY_READ.includes(error.errno)) throw error;
    const { driver, settings, readOnly } = node;
    if (readOnly || driver.kind !== "protocol" || !settings.autoReadOnly) throw error;
  }
  node.readOnly = true;
  node.writesBelow = false;
  return open();
}

/** @throws BlockError EINVAL */
function check(driver: BlockDriver, options: BlockdevOptions, inherited: Inherited) {
  const { depth = 0, monitorOwned, implicit = false, settings, again } = inherited;
  if (depth > CHAIN_NODES_MAX) {
    throw new BlockError("EINVAL", `Options nest deeper than ${CHAIN_NODES_MAX} nodes`);
  }
  const checked = checkOptions(driver, options, settings);
  if (checked.nodeName !== undefined || !monitorOwned || implicit || again) return checked;
  throw new BlockError("EINVAL", "Parameter 'node-name' is missing: it must be given for a root");
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
    leaveBitmapIntent(node);
    await node.state.close?.();
  }
}

/** The edges as the graph has them at any moment: a driver keeps this, and jobs change backings. */
function liveChildren(node: BlockNode): Children {
  const roles: readonly ChildRole[] = ["file", "data-file", "backing", "target", "log"];
  const live = {};
  for (const role of roles)
    Object.defineProperty(live, role, { get: () => node.children.get(role) });
  return live;
}
