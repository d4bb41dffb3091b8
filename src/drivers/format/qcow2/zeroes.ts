/**
 * Zero writes and discards: only entries change, no data is written.
 *
 *     entry now                    zero write               may unmap, or discard
 *     unallocated, no backing      zero                     zero; a discard lets it be
 *     unallocated                  zero                     zero
 *     normal, zero with cluster    zero, keeps the cluster  zero, the cluster is freed, unless
 *                                                           'discard-no-unref' keeps it
 *     compressed                   zero, data freed         zero, data freed
 *
 * A zero entry hides the backing file, an unallocated one does not. What was written hides it, also where
 * there is none yet: a mirror of the top layer, or rebase -u, may give the image one afterwards. Version 2
 * has no zero entries: there clusters become unallocated, which reads as zeroes only where no backing file
 * can be.
 */

import { assert, BlockError, throwIfAborted } from "../../../base/errors.ts";
import type { RequestOptions } from "../../../block/driver.ts";
import { unreference } from "./allocate.ts";
import type { Image } from "./image.ts";
import { entryAt, holeBytes, hostOf, type L2Spot, withL2 } from "./l2.ts";
import { ensureL2 } from "./l2-table.ts";
import { type L2Entry, writeL2Entry } from "./layout.ts";

/**
 * @param offset guest offset, a cluster's first byte
 * @param bytes whole clusters, or up to the disk's end
 * @throws BlockError ENOTSUP in version 2 over a backing file
 */
export async function writeZeroes(
  image: Image,
  offset: number,
  bytes: number,
  options: RequestOptions,
): Promise<void> {
  if (image.header.version === 2 && image.mayHaveBacking) {
    throw new BlockError(
      "ENOTSUP",
      "Version 2 images have no zero clusters to hide a backing file",
    );
  }
  if (image.isRawExternal) {
    // Whoever reads the data file alone must see the zeroes as well.
    await image.mutex.run(() => image.beginChange(), options.signal);
    assert(image.dataFile, "an image with external data has a data file");
    await image.dataFile.writeZeroes(offset, bytes, options);
  }
  await eachPage(image, offset, bytes, options, options.mayUnmap ? "unmap" : "write");
}

/** Ignored where it could not be done without letting the backing file show through. */
export async function discard(
  image: Image,
  offset: number,
  bytes: number,
  options: RequestOptions,
): Promise<void> {
  if (image.header.version === 2 && image.mayHaveBacking) return;
  // The data file alone would go on reading as before.
  if (image.isRawExternal) return;
  await eachPage(image, offset, bytes, options, "discard");
}

type Manner = "write" | "unmap" | "discard";

/** Works through a range, one page of L2 entries, or one hole, at a time. */
async function eachPage(
  image: Image,
  offset: number,
  bytes: number,
  options: RequestOptions,
  manner: Manner,
): Promise<void> {
  const end = offset + bytes;
  for (let at = offset; at < end; ) {
    throwIfAborted(options.signal);
    const from = at;
    at += await image.mutex.run(() => zeroPage(image, from, end - from, manner), options.signal);
  }
}

/** Zero writes for those who hold the mutex; the same alignment. */
export async function writeZeroesLocked(
  image: Image,
  offset: number,
  bytes: number,
): Promise<void> {
  for (let done = 0; done < bytes; ) {
    done += await zeroPage(image, offset + done, bytes - done, "write");
  }
}

/** @returns guest bytes done, whole clusters unless the disk ends */
async function zeroPage(
  image: Image,
  offset: number,
  bytes: number,
  manner: Manner,
): Promise<number> {
  await image.beginChange();
  if (leavesHoles(image, manner)) {
    const hole = await withL2(image, offset, (spot, l1) =>
      spot ? 0 : holeBytes(image, l1, offset),
    );
    if (hole > 0) return Math.min(hole, bytes);
  }
  await image.epoch.makeRoom();
  await ensureL2(image, offset);
  return withL2(image, offset, (spot) => {
    assert(spot, "ensureL2() has made a table");
    const { clusterBytes } = image.layout;
    const count = Math.min(spot.left, Math.ceil(bytes / clusterBytes));
    const entries: L2Entry[] = [];
    for (let i = 0; i < count; i++) entries.push(entryAt(image, spot, i, offset));
    for (const [i, entry] of entries.entries()) zeroEntry(image, spot, i, entry, manner);
    return Math.min(bytes, count * clusterBytes);
  });
}

/** Whether what is unallocated is as good as zero entries. */
function leavesHoles(image: Image, manner: Manner): boolean {
  if (image.mayHaveBacking) return false;
  return manner === "discard" || image.header.version === 2;
}

function zeroEntry(image: Image, spot: L2Spot, i: number, entry: L2Entry, manner: Manner): void {
  const { layout } = image;
  const empty = entry.host < 0 && !entry.compressed;
  if (empty && entry.zero === 0 && leavesHoles(image, manner)) return;
  const zero = image.header.version === 2 ? 0 : layout.allSubclusters;
  const keeps =
    (manner === "write" || image.keepsDiscarded) && zero !== 0 && hostOf(image, entry) >= 0;
  if (entry.zero === zero && (empty || (keeps && entry.allocated === 0))) return;

  if (!keeps) unreference(image, spot, i, entry, "request");
  writeL2Entry(spot.page.bytes, (spot.index + i) * layout.l2EntryBytes, layout, {
    host: keeps ? entry.host : -1,
    copied: keeps && entry.copied,
    compressed: false,
    allocated: 0,
    zero,
  });
  image.pages.markDirty(spot.page);
}
