/** Dirty bitmaps of nodes (QEMU: qapi/block-core.json; what they do: src/block/bitmap-changes.ts). */

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import * as v from "valibot";
import { GiB, MiB } from "../../base/bytes.ts";
import { size } from "../../base/check.ts";
import type { Clock } from "../../base/clock.ts";
import { BlockError, throwIfAborted } from "../../base/errors.ts";
import {
  addBitmap,
  type BitmapChange,
  type BitmapName,
  beforeChange,
  clearBitmap,
  disableBitmap,
  enableBitmap,
  findBitmap,
  mergeBitmaps,
  removeBitmap,
} from "../../block/bitmap-changes.ts";
import type { DirtyBitmap } from "../../block/dirty-bitmap.ts";
import type { Graph } from "../../block/graph.ts";
import { command, nothing } from "../schema.ts";

/** QEMU's BlockDirtyBitmap: `node` names a device or a node. */
export const bitmapName = { node: v.string(), name: v.string() };

/** QEMU's BlockDirtyBitmapAdd. */
export const bitmapAddArgs = {
  ...bitmapName,
  /** Bytes, a power of two from 512 on; without it the node's cluster size, 4 .. 64 KiB. */
  granularity: v.optional(size),
  /** Keep it in the image. */
  persistent: v.optional(v.boolean()),
  /** Do not record writes until block-dirty-bitmap-enable. */
  disabled: v.optional(v.boolean()),
};

/** QEMU's BlockDirtyBitmapMerge. */
export const bitmapMergeArgs = {
  node: v.string(),
  target: v.string(),
  /** A name alone is that of a bitmap of the same node. */
  bitmaps: v.array(v.union([v.string(), v.strictObject(bitmapName)])),
};

export const blockDirtyBitmapAdd = command({
  name: "block-dirty-bitmap-add",
  doc: "Makes a bitmap that records which parts of a node are written.",
  args: bitmapAddArgs,
  returns: nothing,
  alone: true,
  run({ graph }, args) {
    addBitmap(graph, args).commit();
    return {};
  },
});

/**
 * A command that is one change of one bitmap.
 *
 * @param use see beforeChange(); without it nothing is to be done before
 */
function change<const Name extends string>(
  name: Name,
  doc: string,
  apply: (graph: Graph, bitmap: BitmapName) => BitmapChange,
  use?: "enable" | "remove",
) {
  return command({
    name,
    doc,
    args: bitmapName,
    returns: nothing,
    alone: true,
    async run({ graph }, args) {
      if (use) await beforeChange(graph, args, use);
      apply(graph, args).commit();
      return {};
    },
  });
}

export const blockDirtyBitmapRemove = change(
  "block-dirty-bitmap-remove",
  "Forgets a bitmap; one that is persistent leaves the image when that is closed.",
  removeBitmap,
  "remove",
);
export const blockDirtyBitmapClear = change(
  "block-dirty-bitmap-clear",
  "Takes all of a node for clean.",
  clearBitmap,
);
export const blockDirtyBitmapEnable = change(
  "block-dirty-bitmap-enable",
  "Lets a bitmap record writes.",
  enableBitmap,
  "enable",
);
export const blockDirtyBitmapDisable = change(
  "block-dirty-bitmap-disable",
  "Lets a bitmap stay as it is.",
  disableBitmap,
);

export const blockDirtyBitmapMerge = command({
  name: "block-dirty-bitmap-merge",
  doc: "Adds what is dirty in some bitmaps to another: of all of them, or of none.",
  args: bitmapMergeArgs,
  returns: nothing,
  alone: true,
  async run({ graph }, args) {
    await beforeChange(graph, { node: args.node, name: args.target }, "merge-target");
    mergeBitmaps(graph, args).commit();
    return {};
  },
});

export const xDebugBlockDirtyBitmapSha256 = command({
  name: "x-debug-block-dirty-bitmap-sha256",
  doc: "Hashes the bits of a bitmap, for tests.",
  args: bitmapName,
  returns: v.strictObject({ sha256: v.string() }),
  run: async ({ graph, clock, signal }, args) => ({
    sha256: await hashOf(findBitmap(graph, args).bitmap, clock, signal),
  }),
});

const HASH_BYTES_MAX = 1 * GiB;
const PIECE_BYTES = 1 * MiB;

/**
 * SHA-256, in hex, of the bits as little-endian u64 words, at least one of them: QEMU hashes the
 * lowest level of its tree (util/hbitmap.c, hbitmap_sha256).
 */
async function hashOf(bitmap: DirtyBitmap, clock: Clock, signal: AbortSignal): Promise<string> {
  // Guests write in the meantime.
  const bits = bitmap.snapshot();
  const bytes = Math.max(1, Math.ceil(bits.size / 64)) * 8;
  if (bytes > HASH_BYTES_MAX) {
    throw new BlockError("EFBIG", `${bitmap.description} is ${bytes} bytes, too many to hash`);
  }
  const hash = sha256.create();
  for (let at = 0; at < bytes; at += PIECE_BYTES) {
    const piece = new Uint8Array(Math.min(PIECE_BYTES, bytes - at));
    bits.serialize(at * 8, piece);
    hash.update(piece);
    await clock.yield();
    throwIfAborted(signal);
  }
  return bytesToHex(hash.digest());
}
