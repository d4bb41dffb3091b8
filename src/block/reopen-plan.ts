/**
 * What blockdev-reopen asks for, node by node: its options against what there is now. All that was
 * not given goes back to its default; what cannot change is refused by name
 * (QEMU: block.c, bdrv_reopen_queue_child() and bdrv_reopen_prepare()).
 *
 *     [{ driver, node-name, file: … }, …]          nested options are those of a child that was
 *        └── NodeChange   └── NodeChange           opened with its parent
 */

import { BlockError } from "../base/errors.ts";
import type { BlockDriver, ChildRole } from "./driver.ts";
import { BlockNode } from "./node.ts";
import { checkForceShare, inheritance } from "./opener.ts";
import {
  type BlockdevOptions,
  type BlockdevRef,
  type CheckedOptions,
  checkOptions,
  type InheritedSettings,
  type NodeSettings,
  roleMember,
} from "./options.ts";
import { skipFilters } from "./status.ts";

/** What a node is to be. */
export interface NodeChange {
  readonly node: BlockNode;
  readonly readOnly: boolean;
  readonly followsParent: boolean;
  readonly settings: NodeSettings;
  /** The driver's own options; the node's, if they are the same. */
  readonly options: unknown;
  /** Children that become others. */
  readonly links: ReadonlyMap<ChildRole, BlockNode | null>;
  /** It is made of other bytes of its file. */
  readonly movesWindow: boolean;
}

/** Where names are looked up. */
export interface PlanHost {
  /** @throws BlockError EINVAL */
  driver(name: string): BlockDriver;
  /** @throws BlockError ENOENT */
  get(name: string): BlockNode;
}

/** Links that may change; others belong to what the driver has in memory. */
const LINKS: ReadonlySet<string> = new Set(["file", "backing"]);

/**
 * One change per node; of two for the same node the later one counts.
 *
 * @throws BlockError EINVAL (options), ENOENT (nodes), ENOTSUP (a driver that does not reopen)
 */
export function planReopen(host: PlanHost, list: readonly BlockdevOptions[]): NodeChange[] {
  const checked = list.map((options, i) =>
    checkOptions(host.driver(options.driver), options, {}, `options[${i}]`),
  );
  const changes = new Map<BlockNode, NodeChange>();
  for (const [i, options] of checked.entries()) {
    if (options.nodeName === undefined) {
      throw new BlockError("EINVAL", `Parameter 'options[${i}].node-name' is missing`);
    }
    const node = host.get(options.nodeName);
    const readOnly = options.readOnly ?? false;
    checkDriver(node, list[i]!.driver);
    planNode(host, changes, node, options, { readOnly, followsParent: false });
  }
  return [...changes.values()];
}

function planNode(
  host: PlanHost,
  changes: Map<BlockNode, NodeChange>,
  node: BlockNode,
  { settings, roles, own }: CheckedOptions,
  { readOnly, followsParent }: Pick<NodeChange, "readOnly" | "followsParent">,
): void {
  const { driver } = node;
  if (!driver.reopenOptions) {
    throw new BlockError(
      "ENOTSUP",
      `Driver '${driver.name}' of node '${node.name}' does not support reopening`,
    );
  }
  checkForceShare(settings.forceShare, readOnly);
  if (settings.forceShare !== node.settings.forceShare) throw unchangeable(node, "force-share");
  checkOwn(node, own);
  const movesWindow = (driver.windowOptions ?? []).some((member) => !isSame(node, own, member));
  if (movesWindow) checkNoJob(node);
  const links = new Map<ChildRole, BlockNode | null>();
  for (const role of Object.keys(driver.roles) as ChildRole[]) {
    const given = roles.get(role);
    if (given === undefined) checkLeftOut(node, role);
    else if (typeof given === "object" && given !== null) {
      const child = ownChild(node, role);
      checkDriver(child, given.driver, `${role}.driver`);
      planChild(host, changes, child, given, inheritance(node, role, readOnly, settings));
    } else {
      const other = given === null ? null : host.get(given);
      if (!isOther(node, role, other)) continue;
      if (other && role === "file" && !isSameContent(node, other)) checkNoJob(node);
      links.set(role, other);
    }
  }
  changes.set(node, {
    node,
    readOnly,
    followsParent,
    settings,
    options: own,
    links,
    movesWindow,
  });
}

function planChild(
  host: PlanHost,
  changes: Map<BlockNode, NodeChange>,
  node: BlockNode,
  given: Exclude<BlockdevRef, string>,
  inherited: { readonly readOnly: boolean; readonly settings: InheritedSettings },
): void {
  const options = checkOptions(node.driver, given, inherited.settings);
  const { nodeName, readOnly } = options;
  if (nodeName !== undefined && nodeName !== node.name) throw unchangeable(node, "node-name");
  planNode(host, changes, node, options, {
    readOnly: readOnly ?? inherited.readOnly,
    followsParent: readOnly === undefined,
  });
}

/** Whose options may be nested in its parent's: they were so when it was opened. */
function ownChild(node: BlockNode, role: ChildRole): BlockNode {
  const child = node.children.get(role)?.node;
  if (child?.openedWith === node) return child;
  throw unchangeable(node, `${roleMember(node.driver, role)}.driver`);
}

function isOther(node: BlockNode, role: ChildRole, other: BlockNode | null): boolean {
  const now = node.children.get(role)?.node ?? null;
  if (now === other) return false;
  const member = roleMember(node.driver, role);
  if (!LINKS.has(member)) throw unchangeable(node, member);
  if (!now?.implicit) return true;
  throw new BlockError(
    "EBUSY",
    `The ${role} of node '${node.name}' is a filter that a job has put there`,
  );
}

/** Filters make no difference. */
function isSameContent(node: BlockNode, file: BlockNode): boolean {
  const now = node.children.get("file")?.node;
  return now !== undefined && skipFilters(now) === skipFilters(file);
}

/** What a job works on stays what it is. @throws BlockError EBUSY */
function checkNoJob(node: BlockNode): void {
  const above = new Set([node]);
  // A set that grows is walked to its end.
  for (const one of above) {
    one.checkOperation("change");
    for (const { parent } of one.parents) if (parent instanceof BlockNode) above.add(parent);
  }
}

function checkLeftOut(node: BlockNode, role: ChildRole): void {
  const label = role === "backing" ? node.state.info?.()["backing-filename"] : undefined;
  if (!node.children.has(role) && label === undefined) return;
  const member = roleMember(node.driver, role);
  throw new BlockError("EINVAL", `Parameter '${member}' is missing for node '${node.name}'`);
}

function checkDriver(node: BlockNode, name: string, member = "driver"): void {
  if (node.driver.name !== name) throw unchangeable(node, member);
}

function checkOwn(node: BlockNode, wanted: Readonly<Record<string, unknown>>): void {
  const now = node.options as Readonly<Record<string, unknown>>;
  for (const member of new Set([...Object.keys(now), ...Object.keys(wanted)])) {
    if (node.driver.reopenOptions?.includes(member) || isSame(node, wanted, member)) continue;
    if (member in wanted) throw unchangeable(node, member);
    throw new BlockError(
      "EINVAL",
      `Option '${member}' of node '${node.name}' cannot go back to its default: give it as it is`,
    );
  }
}

function isSame(
  { options }: BlockNode,
  wanted: Readonly<Record<string, unknown>>,
  member: string,
): boolean {
  const now = options as Readonly<Record<string, unknown>>;
  return JSON.stringify(now[member]) === JSON.stringify(wanted[member]);
}

function unchangeable(node: BlockNode, member: string): BlockError {
  return new BlockError("EINVAL", `Option '${member}' of node '${node.name}' cannot be changed`);
}
