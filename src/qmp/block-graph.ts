/** The graph as it is, for those who debug it (QEMU: block.c, bdrv_get_xdbg_block_graph()). */

import * as v from "valibot";
import type { BlockChild } from "../block/child.ts";
import type { Graph } from "../block/graph.ts";
import { BlockNode } from "../block/node.ts";
import { roleMember } from "../block/options.ts";
import { Perm } from "../block/permissions.ts";
import { int } from "./schema.ts";

const permission = v.picklist(["consistent-read", "write", "write-unchanged", "resize"]);
type Permission = v.InferOutput<typeof permission>;

/** XDbgBlockGraph. */
export const blockGraph = v.strictObject({
  nodes: v.array(
    v.strictObject({
      id: int,
      type: v.picklist(["block-backend", "block-job", "block-driver"]),
      name: v.string(),
    }),
  ),
  edges: v.array(
    v.strictObject({
      parent: int,
      child: int,
      name: v.string(),
      perm: v.array(permission),
      "shared-perm": v.array(permission),
    }),
  ),
});

const PERMISSIONS: readonly (readonly [number, Permission])[] = [
  [Perm.consistentRead, "consistent-read"],
  [Perm.write, "write"],
  [Perm.writeUnchanged, "write-unchanged"],
  [Perm.resize, "resize"],
];

/** Jobs hold their nodes by backends without a name, and are shown as these. */
export function graphOf({ backends, nodes }: Graph): v.InferOutput<typeof blockGraph> {
  const ids = new Map<object, number>([...backends, ...nodes].map((it, i) => [it, i + 1]));
  const edges = [
    ...backends.map(({ edge }) => edge),
    ...nodes.flatMap((node) => [...node.children.values()]),
  ];
  return {
    nodes: [
      ...backends.map((it) => ({
        id: ids.get(it)!,
        type: "block-backend" as const,
        name: it.name,
      })),
      ...nodes.map((it) => ({ id: ids.get(it)!, type: "block-driver" as const, name: it.name })),
    ],
    // Nodes on their way in or out are not in the list.
    edges: edges
      .filter((edge) => ids.has(edge.node))
      .map((edge) => ({
        parent: ids.get(edge.parent)!,
        child: ids.get(edge.node)!,
        name: nameOf(edge),
        perm: names(edge.permissions.take),
        "shared-perm": names(edge.permissions.share),
      })),
  };
}

function nameOf({ parent, role }: BlockChild): string {
  if (role === "root" || !(parent instanceof BlockNode)) return "root";
  return roleMember(parent.driver, role);
}

function names(mask: number): Permission[] {
  return PERMISSIONS.filter(([bit]) => mask & bit).map(([, name]) => name);
}
