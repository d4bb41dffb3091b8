/**
 * The refcounts that the image keeps: where its blocks are, and what they say.
 */

import { readU32 } from "../../../../base/bytes.ts";
import { hostOffsetOf, REFCOUNT_TABLE_RESERVED } from "../layout.ts";
import { type Checked, hex, readSoFar } from "./context.ts";
import type { Walk } from "./walk.ts";

const PIECE_BYTES = 64 * 1024;
/** A block that cannot be: it is nowhere, or begins within a cluster. */
export const UNREADABLE = -1;

/**
 * Offsets of the blocks, by number; 0: there is none, so its refcounts are 0.
 *
 * Memory: 8 bytes for each entry, which are at most a million.
 */
export async function readBlockTable(
  checked: Checked,
  tell: (block: number, problem: string) => void = () => {},
): Promise<Float64Array> {
  const { header, layout } = checked.image;
  const bytes = header.refcountTableClusters * layout.clusterBytes;
  const offsets = new Float64Array(bytes / 8);
  for (let at = 0; at < bytes; at += PIECE_BYTES) {
    const piece = new Uint8Array(Math.min(PIECE_BYTES, bytes - at));
    await readSoFar(checked, piece, header.refcountTableOffset + at);
    for (let i = 0; i < piece.length; i += 8) {
      const hi = readU32(piece, i);
      const lo = readU32(piece, i + 4);
      if (hi === 0 && lo === 0) continue;
      const block = (at + i) / 8;
      // No file reaches to 2^56; as a number it need not be exact.
      const offset = hi & 0xff000000 ? hi * 2 ** 32 + lo : hostOffsetOf(hi, lo);
      const isCrooked = (lo & (layout.clusterBytes - 1) & ~511) !== 0;
      offsets[block] = isCrooked ? UNREADABLE : offset;
      if (lo & REFCOUNT_TABLE_RESERVED.lo) tell(block, "has reserved bits");
      else if (isCrooked) tell(block, `is ${hex(offset)}, not a cluster's first byte`);
    }
  }
  return offsets;
}

/** References to the blocks, and what is wrong with them: then all refcounts are to be made anew. */
export async function countRefcounts(walk: Walk): Promise<void> {
  const { checked, counts } = walk;
  const { tally, image } = checked;
  const { clusterBytes } = image.layout;
  const wrong = new Set<number>();
  const offsets = await readBlockTable(checked, (block, problem) => {
    wrong.add(block);
    tally.refcountCorruption(`Refcount table entry ${block} ${problem}`);
    tally.needsRebuild = true;
  });
  for (const [block, offset] of offsets.entries()) {
    if (offset === 0 || wrong.has(block)) continue;
    const cluster = offset / clusterBytes;
    if (cluster >= walk.clusters) {
      tally.refcountCorruption(
        `Refcount block ${block} at ${hex(offset)} lies past the file's end`,
      );
      if (checked.fix === "all") tally.needsRebuild = true;
      continue;
    }
    counts.add(cluster, 1);
    if (cluster < counts.start || cluster >= counts.end || counts.get(cluster) === 1) continue;
    const silent = tally.isSilent;
    tally.isSilent = false;
    tally.refcountCorruption(`Refcount block ${block} at ${hex(offset)} is something else as well`);
    tally.isSilent = silent;
    tally.needsRebuild = true;
  }
}

/** A refcount; 2^53 or more is not exact. */
export function readCount(bytes: Uint8Array, order: number, index: number): number {
  switch (order) {
    case 3:
      return bytes[index]!;
    case 4:
      return bytes[index * 2]! * 0x100 + bytes[index * 2 + 1]!;
    case 5:
      return readU32(bytes, index * 4);
    case 6:
      return readU32(bytes, index * 8) * 2 ** 32 + readU32(bytes, index * 8 + 4);
    default: {
      const bit = index * 2 ** order;
      return (bytes[bit >> 3]! >> (bit & 7)) & (2 ** (2 ** order) - 1);
    }
  }
}

/** @param value what a refcount of this width can tell, below 2^53 */
export function writeCount(bytes: Uint8Array, order: number, index: number, value: number): void {
  if (order < 3) {
    const bit = index * 2 ** order;
    const mask = (2 ** (2 ** order) - 1) << (bit & 7);
    bytes[bit >> 3] = (bytes[bit >> 3]! & ~mask) | (value << (bit & 7));
    return;
  }
  const width = 2 ** (order - 3);
  let rest = value;
  for (let i = width - 1; i >= 0; i--) {
    bytes[index * width + i] = rest % 256;
    rest = Math.floor(rest / 256);
  }
}
