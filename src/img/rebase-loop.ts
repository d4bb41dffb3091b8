/**
 * What an image shows of its old backing file goes into the image itself, where the new one has
 * something else (QEMU: img_rebase() in qemu-img.c):
 *
 *     old backing   aaaabbbb····cccc
 *     new backing   aaaaxxxx····         shorter: reads as zeroes
 *     image         ──────DD────────     D decided already
 *     afterwards    ────bbDD────cccc     and nothing it reads as has changed
 *
 * Clusters are compared and copied whole.
 */

import { alignDown, alignUp, MiB, SECTOR_BYTES } from "../base/bytes.ts";
import { throwIfAborted } from "../base/errors.ts";
import { TimeSlice } from "../base/time-slice.ts";
import type { BlockBackend } from "../block/backend.ts";
import type { BlockNode } from "../block/node.ts";
import { withBuffer } from "../block/request.ts";
import { backingOf, chainStatus, skipFilters } from "../block/status.ts";

const BUFFER_BYTES = 2 * MiB;

export interface Rebase {
  readonly image: BlockBackend;
  /** null: none, and what is not copied reads as zeroes. */
  readonly backing: BlockBackend | null;
  /** The new backing file, if it is in the image's chain: what lies below need not be compared. */
  readonly inChain: BlockNode | null;
  readonly compress: boolean;
  readonly progress: (done: number, total: number) => Promise<void>;
  readonly signal?: AbortSignal;
}

/** @throws BlockError what reading and writing throws; ECANCELED. What was copied stays, and does no harm */
export async function takeOverDifferences(rebase: Rebase): Promise<void> {
  const { image, signal, progress } = rebase;
  const cluster = Math.max(SECTOR_BYTES, skipFilters(image.node).state.limits.clusterSize);
  const { length } = image;
  const slice = new TimeSlice(image.node.world.clock, signal);
  for (let at = 0; at < length; ) {
    throwIfAborted(signal);
    if (slice.isOver) await slice.rest();
    const run = await inheritedRun(rebase, at, length - at);
    let { bytes } = run;
    if (run.isInherited) {
      // Parts of a cluster that are decided here read as they do, and are written as that.
      const from = alignDown(at, cluster);
      const most = Math.max(cluster, alignDown(BUFFER_BYTES, cluster));
      const end = Math.min(alignUp(at + bytes, cluster), from + most, length);
      await takeOver(rebase, from, end - from, cluster);
      bytes = end - at;
    }
    at += bytes;
    await progress(at, length);
  }
}

/** Whether the run at `offset` comes from below, from where it may be another one afterwards. */
async function inheritedRun(
  { image, inChain }: Rebase,
  offset: number,
  bytes: number,
): Promise<{ bytes: number; isInherited: boolean }> {
  const own = await chainStatus(image.node, backingOf(image.node), offset, bytes);
  const isOwn = own.node !== null;
  if (isOwn || !inChain) return { bytes: own.bytes, isInherited: !isOwn };
  const above = await chainStatus(image.node, inChain, offset, own.bytes);
  return { bytes: above.bytes, isInherited: above.node !== null };
}

async function takeOver(
  { image, backing, compress, signal }: Rebase,
  offset: number,
  bytes: number,
  cluster: number,
): Promise<void> {
  const { kernel } = image.node.world;
  const options = signal ? { signal } : {};
  await withBuffer(image.node, bytes, (old) =>
    withBuffer(image.node, bytes, async (next) => {
      await image.read(old, offset, options);
      const there = backing ? Math.max(0, Math.min(bytes, backing.length - offset)) : 0;
      next.fill(0, there);
      if (backing && there > 0) await backing.read(next.subarray(0, there), offset, options);
      for (let done = 0; done < bytes; done += cluster) {
        const part = old.subarray(done, done + cluster);
        if (kernel.firstDifference(part, next.subarray(done, done + cluster)) < 0) continue;
        throwIfAborted(signal);
        const at = offset + done;
        if (kernel.isZero(part)) await image.writeZeroes(at, part.length, options);
        else if (compress) await image.writeCompressed(part, at);
        else await image.write(part, at, options);
      }
    }),
  );
}
