/** Chains of images: finding one by its name, and what is between two. */

import { DomainError } from "./errors.ts";
import type { Operation } from "./operation.ts";
import { type DiskRecord, formatNode, type Layer } from "./record.ts";
import { describeSource, pathOf, type Source } from "./source.ts";

/**
 * An image of a disk's chain, by path, or by its place: "vda[1]" is the one below the top.
 *
 * @throws DomainError INVALID_ARG
 */
export function findLayer(disk: DiskRecord, name: string): number {
  const [, target, digits] = /^(\w+)\[(\d+)\]$/.exec(name) ?? [];
  const at =
    target === disk.target
      ? Number(digits)
      : disk.layers.findIndex(({ source }) => describeSource(source) === name);
  if (at >= 0 && at < disk.layers.length) return at;
  throw new DomainError(
    "INVALID_ARG",
    `There is no image '${name}' in the chain of '${disk.target}'`,
  );
}

/** What is written anew must be none of a disk's own. @throws DomainError INVALID_ARG */
export function checkNoLayer(disk: DiskRecord, image: Source): void {
  const path = pathOf(image);
  if (path !== null && disk.layers.some(({ source }) => pathOf(source) === path)) {
    throw new DomainError("INVALID_ARG", `'${path}' is an image of '${disk.target}' itself`);
  }
}

/** Where the image of a number is. -1: it is not there any more. */
export function indexOfLayer(
  disk: Pick<DiskRecord, "layers"> | undefined,
  n: number | null | undefined,
): number {
  return disk?.layers.findIndex((layer) => layer.n === n) ?? -1;
}

/** Their nodes, in the order in which they can be closed. */
export function nodesOf(layers: readonly Layer[]): string[] {
  return layers.flatMap((layer) => [formatNode(layer), `libvirt-${layer.n}-storage`]);
}

/**
 * What to write into the header of `layers[from]` so that it names `layers[to]` by as relative a name as
 * those that are there: a/b.qcow2 over ../c.qcow2 makes a/../c.qcow2.
 *
 * @throws DomainError OPERATION_INVALID if one of them is not relative
 */
export async function relativeName(
  op: Operation,
  layers: readonly Layer[],
  from: number,
  to: number,
): Promise<string> {
  const nodes = await op.execute("query-named-block-nodes", { flat: true });
  let folder = "";
  for (let at = from; ; at++) {
    const node = formatNode(layers[at]!);
    const label = nodes.find((one) => one["node-name"] === node)?.image["backing-filename"];
    if (label === undefined || /^\/|^[a-z][a-z0-9+.-]*:/i.test(label)) {
      const image = describeSource(layers[at]!.source);
      const text = `'${image}' does not name its backing file by a relative name`;
      throw new DomainError("OPERATION_INVALID", text);
    }
    if (at + 1 === to) return folder + label;
    folder += label.slice(0, label.lastIndexOf("/") + 1);
  }
}
