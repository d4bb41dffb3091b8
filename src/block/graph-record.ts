/**
 * A node as a record, and from the record as a node again: blockdev-add's options, complete, with its
 * children by name, and what options cannot say.
 *
 *   { options: { driver, node-name, read-only, …, file: "f", backing: "base" },
 *     monitorOwned, followsParent, ownChildren: ["f"] }
 *
 * Options nest when a user gives them; here each node stands alone, because links change while nodes are
 * in use. So nodes come back one by one, the lower ones first, and each as it was when it was described,
 * whatever it was opened with. Names that were made up come back as well: others refer to them.
 */

import * as v from "valibot";
import type { BlockDriver, ChildRole } from "./driver.ts";
import type { BlockNode } from "./node.ts";
import type { Opener } from "./opener.ts";
import { type BlockdevOptions, roleMember } from "./options.ts";

export const nodeRecord = v.strictObject({
  options: v.looseObject({ driver: v.string(), "node-name": v.string() }),
  monitorOwned: v.boolean(),
  followsParent: v.boolean(),
  /** Those of its children that were nested in its options. */
  ownChildren: v.array(v.string()),
});
export type NodeRecord = v.InferOutput<typeof nodeRecord>;

/**
 * @param childOf where a link leads
 * @param isReadOnly whether a node is: what is under way does not count for either
 */
export function describeNode(
  node: BlockNode,
  childOf: (node: BlockNode, role: ChildRole) => BlockNode | null,
  isReadOnly: (node: BlockNode) => boolean,
): NodeRecord {
  const { driver, settings } = node;
  const links = Object.keys(driver.roles).flatMap((role): [string, string | null][] => {
    const child = childOf(node, role as ChildRole);
    // Said where it may be nothing: the header's name is not followed.
    if (!child && role !== "backing") return [];
    return [[roleMember(driver, role as ChildRole), child?.name ?? null]];
  });
  return {
    options: {
      driver: driver.name,
      "node-name": node.name,
      "read-only": isReadOnly(node) || isLent(node),
      "auto-read-only": settings.autoReadOnly,
      "force-share": settings.forceShare,
      "detect-zeroes": settings.detectZeroes,
      discard: settings.discard,
      cache: { direct: settings.direct, "no-flush": settings.noFlush },
      ...(node.options as object),
      ...Object.fromEntries(links),
    },
    monitorOwned: node.monitorOwned,
    followsParent: node.followsParent,
    ownChildren: [...node.children.values()].flatMap(({ node: child }) =>
      child.openedWith === node ? [child.name] : [],
    ),
  };
}

/** A job has made it writable, itself or with its parent: the job does so again when it comes back. */
function isLent({ isLentForWriting, followsParent, openedWith }: BlockNode): boolean {
  return isLentForWriting || (followsParent && openedWith !== null && isLent(openedWith));
}

/** The names of the nodes that it stands on. */
export function childNames({ options }: NodeRecord, driver: BlockDriver): string[] {
  return Object.keys(driver.roles).flatMap((role) => {
    const child = options[roleMember(driver, role as ChildRole)];
    return typeof child === "string" ? [child] : [];
  });
}

/** @throws BlockError as Graph.add() */
export async function reopenRecorded(
  { options, monitorOwned, followsParent, ownChildren }: NodeRecord,
  opener: Opener,
  signal?: AbortSignal,
): Promise<BlockNode> {
  const { "node-name": name, ...others } = options;
  const again = { name, followsParent };
  const inherited = { readOnly: false, monitorOwned, again };
  const node = await opener.open(others as BlockdevOptions, inherited, signal);
  for (const { node: child } of node.children.values()) {
    if (ownChildren.includes(child.name)) child.openedWith = node;
  }
  return node;
}
