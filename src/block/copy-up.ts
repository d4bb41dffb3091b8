/**
 * Copy-on-read: what shows through from below, written into the layer itself.
 *
 *   [overlay]   ##..####..##      # decided here   . shows through
 *                 ▲▲    ▲▲        whole clusters of the overlay, zeroes as zero clusters
 *   [backing]   ############
 */

import { alignDown, alignUp } from "../base/bytes.ts";
import type { BlockChild } from "./child.ts";
import type { RequestOptions } from "./driver.ts";
import { readLocked, writeLocked } from "./locked.ts";
import { writeZeroesLocked } from "./locked-zeroes.ts";
import type { BlockNode } from "./node.ts";
import { COPY_BYTES, childOf, getLength, mapOf, passDown, placed, withBuffer } from "./request.ts";
import { chainStatus } from "./status.ts";

/**
 * @param into where the caller wants to have what was read at `offset`, if it does
 *
 * The caller holds the clusters of the range alone, so no write of a guest can come between the
 * read from below and the write: it would be lost.
 */
export async function copyUpLocked(
  node: BlockNode,
  offset: number,
  bytes: number,
  options: RequestOptions,
  into: Uint8Array | null,
): Promise<void> {
  const granule = Math.max(1, node.state.limits.clusterSize);
  const end = Math.min(alignUp(offset + bytes, granule), getLength(node));
  const down = passDown(options);
  for (let at = alignDown(offset, granule); at < end; ) {
    const mapping = await mapOf(node, at, end - at, options);
    let bytesDone = mapping.bytes;
    if (mapping.kind === "unallocated" && node.children.has("backing")) {
      bytesDone = await copyRun(node, at, mapping.bytes, { ...down, unchanged: true });
    }
    at += bytesDone;
  }
  // Read back rather than cut out of the pieces: only guests come this way, with small requests.
  if (into) await readLocked(node, into, offset, down);
}

/** Copies the beginning of a run that shows through from below. @returns how much of it, > 0 */
async function copyRun(
  node: BlockNode,
  offset: number,
  bytes: number,
  options: RequestOptions,
): Promise<number> {
  const granule = Math.max(1, node.state.limits.clusterSize);
  const backing = childOf(node, "backing");
  const below = await chainStatus(backing.node, null, offset, bytes);
  if (below.zero) {
    // Whole clusters of this layer only: the run below may end within one.
    const zeroes = below.bytes === bytes ? bytes : alignDown(below.bytes, granule);
    if (zeroes > 0) await writeZeroesLocked(node, offset, zeroes, options);
    if (zeroes > 0) return zeroes;
  }
  const most = Math.max(COPY_BYTES, granule);
  const piece = Math.min(bytes, most, alignUp(below.bytes, granule));
  await copyPiece(node, backing, offset, piece, options);
  return piece;
}

async function copyPiece(
  node: BlockNode,
  backing: BlockChild,
  offset: number,
  bytes: number,
  options: RequestOptions,
): Promise<void> {
  await withBuffer(node, bytes, async (buf) => {
    await placed({ node: backing.node.name, op: "read", offset, bytes }, () =>
      backing.read(buf, offset, passDown(options)),
    );
    await node.children.get("file")?.debugEvent("cor_write", options);
    await placed({ node: node.name, op: "write", offset, bytes }, () =>
      writeSplit(node, buf, offset, options),
    );
  });
}

/** Writes a buffer so that clusters of zeroes take no room. */
async function writeSplit(
  node: BlockNode,
  buf: Uint8Array,
  offset: number,
  options: RequestOptions,
): Promise<void> {
  const granule = Math.max(512, node.state.limits.clusterSize);
  for (let done = 0; done < buf.length; ) {
    const { bytes, zero } = node.world.kernel.zeroRun(buf.subarray(done), granule);
    if (zero) await writeZeroesLocked(node, offset + done, bytes, options);
    else await writeLocked(node, buf.subarray(done, done + bytes), offset + done, options);
    done += bytes;
  }
}
