/**
 * Room for writes: in place where the cluster is this disk's alone, else in new clusters, as many
 * side by side as one page of L2 entries and one free run allow.
 *
 *     entry                              what a write does
 *     normal or zero, COPIED             the same clusters
 *     normal or zero, not COPIED         new clusters; the old ones lose a reference (snapshots)
 *     compressed                         new clusters; the packed data loses its references
 *     unallocated, zero without cluster  new clusters
 *
 * What of a new cluster, or of a subcluster that had no data, the guest does not write is taken over
 * from what the disk reads as: the allocation's head and tail. Everything that may fail is done in
 * allocate(), so that commit() only has to change entries that are there.
 */

import { alignDown, alignUp } from "../../../base/bytes.ts";
import { assert, BlockError } from "../../../base/errors.ts";
import type { Allocation, RequestOptions } from "../../../block/driver.ts";
import { freePacked } from "./compressed.ts";
import { overlapError } from "./guard.ts";
import type { Image } from "./image.ts";
import { entryAt, hostOf, type L2Spot, packedPlaceAt, withL2 } from "./l2.ts";
import { ensureL2 } from "./l2-table.ts";
import { type L2Entry, type Layout, writeL2Entry } from "./layout.ts";
import type { HostRun } from "./refcount.ts";

/** A stretch of like entries from the asked offset on, before there is room for it. */
interface Stretch {
  /** Clusters that are there already stay: their offset; -1 if new ones are needed. */
  readonly host: number;
  readonly entries: readonly L2Entry[];
  /** True if every byte has its place and no entry has to change. */
  readonly settled: boolean;
}

/**
 * @param offset guest offset
 * @param bytes > 0, within the disk; the allocation may serve fewer
 * @throws BlockError EIO (image corrupt), ENOSPC and what the file throws; nothing has changed then
 */
export async function allocate(
  image: Image,
  offset: number,
  bytes: number,
  options: RequestOptions,
): Promise<Allocation> {
  if (image.hasBegunChanging && !image.isCorrupt) {
    const stretch = await withL2(image, offset, (spot) => spot && scan(image, spot, offset, bytes));
    if (stretch?.settled && !findOverlap(image, stretch))
      return inPlace(image, stretch, offset, bytes);
  }
  return image.mutex.run(() => allocateLocked(image, offset, bytes), options.signal);
}

/** Room, with endings for those who hold the mutex as well. */
export interface Room extends Allocation {
  commitLocked(): Promise<void>;
  abortLocked(): Promise<void>;
}

/** allocate() for those who hold the mutex. */
export async function allocateLocked(image: Image, offset: number, bytes: number): Promise<Room> {
  await image.beginChange();
  await image.epoch.makeRoom(true);
  await ensureL2(image, offset);
  const stretch = await withL2(image, offset, (spot) => {
    assert(spot, "ensureL2() has made a table");
    return scan(image, spot, offset, bytes);
  });
  const overlap = findOverlap(image, stretch);
  if (overlap) throw await image.markCorrupt(overlap);
  if (stretch.host >= 0) {
    if (stretch.settled) return inPlace(image, stretch, offset, bytes);
    if (!image.externalData) image.refcounts.noteRoom(stretch.host, stretch.entries.length);
    return room(image, stretch.entries, offset, bytes, stretch.host, null);
  }
  const stop = image.file.debugEvent("cluster_alloc");
  if (stop) await stop;
  const run = await image.refcounts.allocate(stretch.entries.length);
  const entries = stretch.entries.slice(0, run.count);
  return room(image, entries, offset, bytes, run.offset, run);
}

/** The entries from the spot on that one allocation can serve. */
function scan(image: Image, spot: L2Spot, offset: number, bytes: number): Stretch {
  const { layout, externalData } = image;
  const { clusterBytes } = layout;
  const start = alignDown(offset, clusterBytes);
  const count = Math.min(spot.left, Math.ceil((offset + bytes - start) / clusterBytes));
  const entries: L2Entry[] = [];
  let base = -1;
  let settled = true;
  for (let i = 0; i < count; i++) {
    const entry = entryAt(image, spot, i, offset);
    const host = externalData ? start + i * clusterBytes : entry.copied ? entry.host : -1;
    if (i === 0) base = host;
    else if (base < 0 ? host >= 0 : host !== base + i * clusterBytes) break;
    entries.push(entry);
    if (base < 0) continue;
    if (!externalData) checkCutOff(image, entry, start + i * clusterBytes);
    const touched = touchedMask(layout, start + i * clusterBytes, offset, offset + bytes);
    const mine = entry.host >= 0 && entry.copied;
    if (!mine || (touched & ~entry.allocated) !== 0) settled = false;
  }
  return { host: base, entries, settled: settled && base >= 0 };
}

/** The subclusters of the cluster at guest offset `cluster` that have bytes in start .. end-1. */
function touchedMask(layout: Layout, cluster: number, start: number, end: number): number {
  const { subclusterBytes, subclusters } = layout;
  const first = Math.max(0, Math.floor((start - cluster) / subclusterBytes));
  const last = Math.min(subclusters, Math.ceil((end - cluster) / subclusterBytes));
  return maskOf(first, last);
}

/** Bits first .. last-1. */
function maskOf(first: number, last: number): number {
  const count = last - first;
  if (count <= 0) return 0;
  return count === 32 ? 0xffffffff : (((1 << count) - 1) << first) >>> 0;
}

/** A cluster that the file has lost must not come back as holes around a guest's write. */
function checkCutOff(image: Image, entry: L2Entry, cluster: number): void {
  if (entry.allocated === 0) return;
  const { subclusterBytes } = image.layout;
  const used = (32 - Math.clz32(entry.allocated)) * subclusterBytes;
  const end = entry.host + Math.min(used, image.header.size - cluster);
  if (end <= image.file.length) return;
  throw new BlockError(
    "EIO",
    `The file of node '${image.nodeName}' is cut off: guest offset ${cluster} is at ${entry.host}, ` +
      `but it ends at ${image.file.length}`,
  );
}

function findOverlap(image: Image, { host, entries }: Stretch): BlockError | null {
  if (host < 0 || image.externalData) return null;
  const area = image.guard.find(host, entries.length * image.layout.clusterBytes);
  return area === null ? null : overlapError("a data cluster", host, area);
}

function inPlace(image: Image, stretch: Stretch, offset: number, bytes: number): Room {
  const { clusterBytes } = image.layout;
  const inCluster = offset % clusterBytes;
  return {
    bytes: Math.min(bytes, stretch.entries.length * clusterBytes - inCluster),
    role: image.externalData ? "data-file" : "file",
    offset: stretch.host + inCluster,
    headBytes: 0,
    tailBytes: 0,
    // Nothing is reachable now that was not before.
    commit: async () => {},
    commitLocked: async () => {},
    abort: async () => {},
    abortLocked: async () => {},
  };
}

/**
 * @param host where the stretch's first cluster will be
 * @param fresh the same, if those clusters were handed out for it
 */
function room(
  image: Image,
  entries: readonly L2Entry[],
  offset: number,
  bytes: number,
  host: number,
  fresh: HostRun | null,
): Room {
  const { clusterBytes, subclusterBytes } = image.layout;
  const first = alignDown(offset, clusterBytes);
  const end = Math.min(offset + bytes, first + entries.length * clusterBytes);
  const last = first + (entries.length - 1) * clusterBytes;
  const takeover = (entry: L2Entry | undefined) =>
    fresh && entry ? keptRange(entry, image.layout) : [32, 0];

  // The head: up from the subcluster's start, or from the first one that must move along.
  const [keepFrom = 32] = takeover(entries[0]);
  const headSub = Math.floor((offset - first) / subclusterBytes);
  const holdsHead = !fresh && hasData(entries[0], headSub);
  const ownStart = holdsHead ? offset : alignDown(offset, subclusterBytes);
  const start = Math.min(ownStart, first + keepFrom * subclusterBytes);
  // The tail likewise; past the disk's end there is nothing to take over.
  const [, keepTo = 0] = takeover(entries.at(-1));
  const tailSub = Math.floor((end - 1 - last) / subclusterBytes);
  const holdsTail = !fresh && hasData(entries.at(-1), tailSub);
  const ownEnd = holdsTail ? end : alignUp(end, subclusterBytes);
  const stop = Math.max(
    end,
    Math.min(image.header.size, Math.max(ownEnd, last + keepTo * subclusterBytes)),
  );

  const abortLocked = async () => {
    if (fresh && !image.isCorrupt) await image.refcounts.release(fresh);
  };
  const commitLocked = async () => {
    try {
      image.checkUsable();
      await link(image, entries.length, first, start, stop, host, fresh !== null);
    } catch (error) {
      await abortLocked();
      throw error;
    }
  };
  return {
    bytes: end - offset,
    role: image.externalData ? "data-file" : "file",
    offset: host + (offset - first),
    headBytes: offset - start,
    tailBytes: stop - end,
    commitLocked,
    abortLocked,
    commit: () => image.mutex.run(commitLocked),
    abort: () => image.mutex.run(abortLocked),
  };
}

function hasData(entry: L2Entry | undefined, subcluster: number): boolean {
  return entry?.copied === true && ((entry.allocated >>> subcluster) & 1) === 1;
}

/** The subclusters, first and end, that a new cluster must have because the old one has them. */
function keptRange(entry: L2Entry, layout: Layout): readonly [number, number] {
  const held = entry.compressed ? layout.allSubclusters : entry.allocated;
  return held === 0 ? [32, 0] : [31 - Math.clz32(held & -held), 32 - Math.clz32(held)];
}

/** Makes the clusters from guest offset `first` on reachable at `host`. All or nothing. */
function link(
  image: Image,
  count: number,
  first: number,
  start: number,
  end: number,
  host: number,
  fresh: boolean,
): Promise<void> {
  const { layout } = image;
  return withL2(image, first, (spot) => {
    assert(spot && spot.left >= count, "an L2 table stays while room in it is being filled");
    const old: L2Entry[] = [];
    for (let i = 0; i < count; i++) old.push(entryAt(image, spot, i, first));
    for (const [i, entry] of old.entries()) {
      const touched = touchedMask(layout, first + i * layout.clusterBytes, start, end);
      const here = host + i * layout.clusterBytes;
      if (fresh) unreference(image, spot, i, entry);
      // A new cluster has only what was just written: all that must be kept was taken over.
      const before = fresh ? 0 : entry.allocated;
      writeL2Entry(spot.page.bytes, (spot.index + i) * layout.l2EntryBytes, layout, {
        host: here,
        copied: true,
        compressed: false,
        allocated: (before | touched) >>> 0,
        zero: (entry.zero & ~touched) >>> 0,
      });
    }
    image.pages.markDirty(spot.page);
  });
}

/** What an entry refers to loses that reference, at the time that epoch.ts says. */
export function unreference(
  image: Image,
  spot: L2Spot,
  i: number,
  entry: L2Entry,
  why: "request" | "other" = "other",
): void {
  if (entry.compressed) freePacked(image, packedPlaceAt(image, spot, i), why);
  else if (hostOf(image, entry) >= 0) image.epoch.free(entry.host, 1, why);
}
