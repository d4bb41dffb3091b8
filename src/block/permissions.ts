/**
 * Who may do what to a node, checked when the graph changes and never during I/O.
 *
 * Every edge takes some permissions of its child and shares some with the other users of that
 * child. An edge may only take what every other edge on the same node shares. What a node takes of
 * its children follows from what its own users take of it (QEMU: block.c, bdrv_default_perms()).
 */

import type { ChildRole } from "./driver.ts";

export const Perm = {
  /** Reads see one consistent disk, not one that is being rewritten. */
  consistentRead: 1,
  write: 2,
  /** Writes that do not change what is read: copies from the backing file. */
  writeUnchanged: 4,
  resize: 8,
  none: 0,
  all: 15,
} as const;

/** A set of Perm bits that an edge takes, and one that it lets others have. */
export interface ChildPermissions {
  readonly take: number;
  readonly share: number;
}

const NAMES: readonly (readonly [number, string])[] = [
  [Perm.consistentRead, "consistent read"],
  [Perm.write, "write"],
  [Perm.writeUnchanged, "write unchanged"],
  [Perm.resize, "resize"],
];

/** "write, resize": for error texts. */
export function permissionNames(mask: number): string {
  return NAMES.filter(([bit]) => mask & bit)
    .map(([, name]) => name)
    .join(", ");
}

/**
 * What a node takes and shares on a child unless its driver says otherwise.
 *
 * @param above what all users of the node take together, and what all of them share
 */
export function defaultChildPermissions(
  kind: "protocol" | "format" | "filter",
  role: ChildRole,
  above: ChildPermissions,
  readOnly: boolean,
): ChildPermissions {
  if (kind === "filter") return above;
  if (role === "backing") {
    // Only ever read. Whoever can live with a disk that changes can live with such a backing file.
    const share = above.share & Perm.write ? Perm.write | Perm.resize : Perm.none;
    return {
      take: above.take & Perm.consistentRead,
      share: share | Perm.consistentRead | Perm.writeUnchanged,
    };
  }
  // The metadata must stay ours alone; a writable image also grows.
  return {
    take: Perm.consistentRead | (readOnly ? Perm.none : Perm.write | Perm.resize),
    share: Perm.consistentRead | (readOnly ? Perm.writeUnchanged : Perm.none),
  };
}
