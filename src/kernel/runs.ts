/**
 * What an L2 scan answers: a run of clusters, or of subclusters, of one kind.
 */

import { assert } from "../base/errors.ts";

/** What stands behind a cluster or subcluster; see assembly/l2.ts. In the order of its numbers. */
const CLUSTER_KINDS = [
  "unallocated",
  "zero-plain",
  "zero-alloc",
  "normal",
  "compressed",
  "unallocated-alloc",
  "invalid",
] as const;

export type ClusterKind = (typeof CLUSTER_KINDS)[number];

/** Clusters, or subclusters, that one request can serve together. */
export interface ClusterRun {
  readonly kind: ClusterKind;
  /** How many, >= 1. */
  readonly count: number;
  /** All of them have a host cluster with COPIED set: it may be overwritten in place. */
  readonly copied: boolean;
}

/** @param packed count << 4 | copied << 3 | kind, as assembly/l2.ts has it */
export function unpackRun(packed: number): ClusterRun {
  const kind = CLUSTER_KINDS[packed & 7];
  assert(kind !== undefined, "the kernel answers with one of seven kinds");
  return { kind, count: packed >>> 4, copied: (packed & 8) !== 0 };
}
