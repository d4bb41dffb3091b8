/**
 * A place for every cluster of a disk, or of a part of one, before anything is written there.
 *
 *     mode       entries                       the file
 *     off        stay                          stays
 *     metadata   lead to clusters of zeroes    is as long as the clusters need; a hole where it can be
 *     falloc     the same                      zeroes are written out: no store has another way to set
 *     full       the same                      room aside
 *
 * With extended L2 entries clusters are set aside only: no subcluster counts as data, so that what a
 * backing file has there shows through. In an external data file the places are given; only entries
 * change here.
 */

import { MiB } from "../../../base/bytes.ts";
import { assert, BlockError, throwIfAborted } from "../../../base/errors.ts";
import type { BlockChild } from "../../../block/child.ts";
import type { CreateContext, Preallocation } from "../../../block/driver.ts";
import type { Image } from "./image.ts";
import { entryAt, type L2Spot, withL2 } from "./l2.ts";
import { ensureL2 } from "./l2-table.ts";
import { writeL2Entry } from "./layout.ts";
import { readImage } from "./open.ts";
import type { HostRun } from "./refcount.ts";

const ZEROES = new Uint8Array(1 * MiB);

/**
 * Maps the whole of a new disk.
 *
 * @throws BlockError what the file throws; the image is a whole one then, with less preallocated
 */
export async function preallocate(
  { world, signal }: CreateContext<unknown>,
  file: BlockChild,
  mode: Preallocation,
): Promise<void> {
  const image = await readImage({
    world,
    nodeName: "new image",
    readOnly: false,
    children: { file },
    options: {},
    // Nothing is encrypted here.
    noIo: true,
    ...(signal && { signal }),
  });
  try {
    await image.mutex.run(async () => {
      await preallocateRange(image, 0, image.header.size, mode, signal);
      await image.epoch.finish();
    });
  } finally {
    image.pages.close();
  }
}

/**
 * Maps what is not mapped from `start` on, a cluster's first byte, up to `end`. Caller holds the mutex; no
 * request is in flight.
 *
 * @throws BlockError what reading and writing throw, ECANCELED; what was mapped until then stays mapped
 */
export async function preallocateRange(
  image: Image,
  start: number,
  end: number,
  mode: Preallocation,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { clusterBytes } = image.layout;
  const fills = mode === "falloc" || mode === "full";
  if (mode === "off") return;
  if (image.encryption && image.header.version === 2) {
    throw new BlockError(
      "ENOTSUP",
      "Version 2 images have no zero clusters, so encrypted ones cannot be preallocated",
    );
  }
  for (let at = start; at < end; ) {
    throwIfAborted(signal);
    await image.beginChange();
    await image.epoch.makeRoom();
    await ensureL2(image, at);
    const wanted = Math.ceil((end - at) / clusterBytes);
    const { mapped, empty } = await withL2(image, at, (spot) => survey(image, spot, at, wanted));
    if (empty > 0) at += clusterBytes * (await mapRun(image, at, empty, fills, signal));
    else at += clusterBytes * mapped;
  }
}

/** How many entries from the spot on have something, and if none, how many have nothing. */
function survey(
  image: Image,
  spot: L2Spot | null,
  offset: number,
  wanted: number,
): { mapped: number; empty: number } {
  assert(spot, "ensureL2() has made a table");
  const count = Math.min(spot.left, wanted);
  const isEmpty = (i: number) => {
    const { host, compressed, zero } = entryAt(image, spot, i, offset);
    return host < 0 && !compressed && zero === 0;
  };
  let n = 1;
  while (n < count && isEmpty(n) === isEmpty(0)) n++;
  return isEmpty(0) ? { mapped: 0, empty: n } : { mapped: n, empty: 0 };
}

/** @returns how many clusters got a place, of the `count` empty entries at a guest offset */
async function mapRun(
  image: Image,
  offset: number,
  count: number,
  fills: boolean,
  signal: AbortSignal | undefined,
): Promise<number> {
  if (image.externalData) {
    await link(image, offset, offset, count);
    return count;
  }
  const run = await image.refcounts.allocate(count);
  try {
    await makeZero(image, run, fills, signal);
    await link(image, offset, run.offset, run.count);
  } catch (error) {
    if (!image.isCorrupt) await image.refcounts.release(run);
    throw error;
  }
  return run.count;
}

/** Whatever lay in these clusters before. */
async function makeZero(
  image: Image,
  run: HostRun,
  fills: boolean,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { file, layout } = image;
  const end = run.offset + run.count * layout.clusterBytes;
  const fresh = Math.max(run.offset, Math.min(end, file.length));
  if (fresh > run.offset && !fills) await file.writeZeroes(run.offset, fresh - run.offset);
  if (file.length < end) await file.truncate(end);
  if (!fills) return;
  for (let at = run.offset; at < end; at += ZEROES.length) {
    throwIfAborted(signal);
    await file.write(ZEROES.subarray(0, Math.min(ZEROES.length, end - at)), at);
  }
}

function link(image: Image, offset: number, host: number, count: number): Promise<void> {
  const { layout, pages } = image;
  // What was never encrypted does not decrypt to zeroes: the clusters have to say so.
  const says = image.encryption ? { allocated: 0, zero: 1 } : { allocated: 1, zero: 0 };
  return withL2(image, offset, (spot) => {
    assert(spot && spot.left >= count, "a table stays while it is filled");
    for (let i = 0; i < count; i++) {
      writeL2Entry(spot.page.bytes, (spot.index + i) * layout.l2EntryBytes, layout, {
        host: host + i * layout.clusterBytes,
        copied: true,
        compressed: false,
        ...(layout.extendedL2 ? { allocated: 0, zero: 0 } : says),
      });
    }
    pages.markDirty(spot.page);
  });
}
