/**
 * The driver's own members of blockdev-add, and what becomes of them here
 * (QEMU: BlockdevOptionsQcow2, qcow2_update_options_prepare()).
 *
 *     cache-size, or l2-cache-size + refcount-cache-size    the one cache that there is
 *     discard-no-unref                                      discards keep their clusters
 *     pass-discard-request, pass-discard-other              whether freed clusters are discarded below
 *     all others                                            checked; they change nothing that shows
 */

import * as v from "valibot";
import { size } from "../../../base/check.ts";
import { BlockError } from "../../../base/errors.ts";
import { openEncrypt } from "./encryption.ts";
import type { Layout } from "./layout.ts";
import { CACHE_BYTES } from "./pages.ts";

const overlapTemplate = v.picklist(["none", "constant", "cached", "all"]);

export const openOptions = {
  /** Of an encrypted image: the secret that unlocks it. */
  encrypt: v.optional(openEncrypt),
  /** Most bytes of tables in memory; 32 MiB if not given, as QEMU's L2 cache has. */
  "cache-size": v.optional(size),
  "l2-cache-size": v.optional(size),
  "refcount-cache-size": v.optional(size),
  /** Tables are read in pieces of the cache's own size. */
  "l2-cache-entry-size": v.optional(size),
  /** In seconds. Nothing leaves the cache but to make room. */
  "cache-clean-interval": v.optional(v.pipe(size, v.maxValue(2 ** 32 - 1))),
  /** Refcounts are written late anyway, in an order that needs no repair. */
  "lazy-refcounts": v.optional(v.boolean()),
  /** Clusters that a guest's discard has freed are discarded in the file; unless false. */
  "pass-discard-request": v.optional(v.boolean()),
  /** No effect: what a snapshot alone had is used again, and the end of the file cut off. */
  "pass-discard-snapshot": v.optional(v.boolean()),
  /** Clusters that were freed for other reasons, such as a copy that replaces them; if true. */
  "pass-discard-other": v.optional(v.boolean()),
  /** Clusters that are discarded keep their place in the file, and read as zeroes. */
  "discard-no-unref": v.optional(v.boolean()),
  /** All of it is always checked. */
  "overlap-check": v.optional(
    v.union([
      overlapTemplate,
      v.strictObject({
        template: v.optional(overlapTemplate),
        "main-header": v.optional(v.boolean()),
        "active-l1": v.optional(v.boolean()),
        "active-l2": v.optional(v.boolean()),
        "refcount-table": v.optional(v.boolean()),
        "refcount-block": v.optional(v.boolean()),
        "snapshot-table": v.optional(v.boolean()),
        "inactive-l1": v.optional(v.boolean()),
        "inactive-l2": v.optional(v.boolean()),
        "bitmap-directory": v.optional(v.boolean()),
      }),
    ]),
  ),
};

export type OpenOptions = v.InferOutput<v.StrictObjectSchema<typeof openOptions, undefined>>;

/** @throws BlockError EINVAL for what the image's version or its clusters do not allow */
export function checkOpenOptions(options: OpenOptions, version: 2 | 3, layout: Layout): void {
  for (const member of ["lazy-refcounts", "discard-no-unref"] as const) {
    if (version === 3 || !options[member]) continue;
    throw new BlockError("EINVAL", `'${member}' needs an image of version 3`);
  }
  const piece = options["l2-cache-entry-size"];
  const isPiece = (bytes: number) =>
    Number.isInteger(Math.log2(bytes)) && bytes >= 512 && bytes <= layout.clusterBytes;
  if (piece !== undefined && !isPiece(piece)) {
    throw new BlockError(
      "EINVAL",
      `'l2-cache-entry-size' is a power of two from 512 to the ${layout.clusterBytes} bytes of a cluster`,
    );
  }
}

/** @throws BlockError EINVAL for sizes that contradict each other */
export function cacheBytesOf(options: OpenOptions): number {
  const { "cache-size": all, "l2-cache-size": l2, "refcount-cache-size": refcounts } = options;
  if (all === undefined) {
    return l2 === undefined && refcounts === undefined ? CACHE_BYTES : (l2 ?? 0) + (refcounts ?? 0);
  }
  if (l2 !== undefined && refcounts !== undefined) {
    throw new BlockError(
      "EINVAL",
      "'cache-size', 'l2-cache-size' and 'refcount-cache-size' cannot be given together",
    );
  }
  for (const [member, part] of Object.entries({
    "l2-cache-size": l2,
    "refcount-cache-size": refcounts,
  })) {
    if (part === undefined || part <= all) continue;
    throw new BlockError("EINVAL", `'${member}' cannot be larger than 'cache-size'`);
  }
  return all;
}

export interface PassesDiscard {
  readonly request: boolean;
  readonly other: boolean;
}

/** A request's is passed on as a node's 'discard' is: unless it was said not to. */
export function passesDiscardOf(options: OpenOptions): PassesDiscard {
  return {
    request: options["pass-discard-request"] ?? true,
    other: options["pass-discard-other"] ?? false,
  };
}
