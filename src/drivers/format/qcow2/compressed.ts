/**
 * Packed clusters: reading them, writing them, and counting the host clusters they touch.
 *
 *     host clusters   │············│············│
 *     packed data       ├─ a ─┤├── b ───┤├ c ┤        several share a host cluster, and one may
 *     refcounts            2            2             lie across two: each touched one counts it
 */

import { alignDown } from "../../../base/bytes.ts";
import { assert, BlockError } from "../../../base/errors.ts";
import { allocateLocked, unreference } from "./allocate.ts";
import type { Image } from "./image.ts";
import { entryAt, packedPlaceAt, withL2 } from "./l2.ts";
import { ensureL2 } from "./l2-table.ts";
import { type PackedPlace, packedOffsetEnd, SECTOR_BYTES, writePackedPlace } from "./layout.ts";
import { loadPacker } from "./pack.ts";

/**
 * Reads from one compressed cluster.
 *
 * @param offset guest offset; the buffer does not reach over the cluster's end
 * @throws BlockError EIO if the data is not there or does not unpack to a whole cluster
 */
export async function readEncoded(image: Image, buf: Uint8Array, offset: number): Promise<void> {
  const { clusterBytes } = image.layout;
  const inCluster = offset % clusterBytes;
  assert(inCluster + buf.length <= clusterBytes, "a packed run is within one cluster");
  const place = await withL2(image, offset, (spot) => {
    if (!spot || !entryAt(image, spot, 0, offset).compressed) throw unpackError(image, offset);
    return packedPlaceAt(image, spot, 0);
  });
  if (buf.length === clusterBytes) {
    const known = await image.unpacked.find(place);
    if (known) buf.set(known);
    else await unpack(image, place, buf, offset);
    return;
  }
  const cluster = await image.unpacked.get(place, async () => {
    const whole = new Uint8Array(clusterBytes);
    await unpack(image, place, whole, offset);
    return whole;
  });
  buf.set(cluster.subarray(inCluster, inCluster + buf.length));
}

async function unpack(
  image: Image,
  place: PackedPlace,
  cluster: Uint8Array,
  offset: number,
): Promise<void> {
  const there = Math.min(place.bytes, image.file.length - place.offset);
  if (there <= 0) throw unpackError(image, offset);
  const packed = new Uint8Array(there);
  await image.file.read(packed, place.offset);
  if (!image.inflate(packed, cluster)) throw unpackError(image, offset);
}

function unpackError(image: Image, offset: number): BlockError {
  const start = alignDown(offset, image.layout.clusterBytes);
  return new BlockError(
    "EIO",
    `The compressed cluster of node '${image.nodeName}' at guest offset ${start} to ` +
      `${start + image.layout.clusterBytes} cannot be unpacked`,
  );
}

/** Packed data loses one reference: each host cluster that its sectors touch counts it. */
export function freePacked(
  image: Image,
  place: PackedPlace,
  why: "request" | "other" = "other",
): void {
  const { clusterBytes } = image.layout;
  const first = alignDown(place.offset, clusterBytes);
  const last = alignDown(place.offset + place.bytes - 1, clusterBytes);
  for (let at = first; at <= last; at += clusterBytes) image.epoch.free(at, 1, why);
}

/**
 * Writes one cluster packed; as it is, if packing does not make it smaller.
 *
 * @param buf a whole cluster, or up to the disk's end
 * @param offset guest offset, a cluster's first byte
 * @throws BlockError ENOTSUP with an external data file, in an encrypted image, or if the packer
 *   does not run here; EINVAL for anything but one whole cluster
 */
export async function writeCompressed(
  image: Image,
  buf: Uint8Array,
  offset: number,
): Promise<void> {
  const { layout, header } = image;
  if (image.externalData) {
    throw new BlockError("ENOTSUP", "An external data file cannot hold compressed clusters");
  }
  if (image.encryption) {
    throw new BlockError("ENOTSUP", "An encrypted image cannot hold compressed clusters");
  }
  const whole = Math.min(layout.clusterBytes, header.size - offset);
  if (offset % layout.clusterBytes !== 0 || buf.length !== whole) {
    throw new BlockError(
      "EINVAL",
      `Compressed writes are of whole clusters: ${layout.clusterBytes} bytes, not ${buf.length} ` +
        `at ${offset}`,
    );
  }
  const pack = await loadPacker(header.compression, image.zlib);
  const cluster = new Uint8Array(layout.clusterBytes);
  cluster.set(buf);
  // Several are packed at once, but lie in the file in the order in which they came.
  const packed = await image.packing.next(pack(cluster));
  if (packed === null) return writePlain(image, buf, offset);

  const place = await image.mutex.run(async () => {
    await image.beginChange();
    await image.epoch.makeRoom(true);
    await ensureL2(image, offset);
    return packedRoom(image, packed.length);
  });
  try {
    await image.file.debugEvent("write_compressed");
    await image.file.write(packed, place.offset);
  } catch (error) {
    await image.mutex.run(async () => freePacked(image, place));
    throw error;
  }
  await image.mutex.run(() => linkPacked(image, offset, place, packed.length));
}

/** A new cluster, not packed: with or without, the old one's room is given back. */
async function writePlain(image: Image, buf: Uint8Array, offset: number): Promise<void> {
  const room = await image.mutex.run(() => allocateLocked(image, offset, buf.length));
  assert(room.bytes === buf.length, "one cluster gets its room in one piece");
  assert(room.headBytes + room.tailBytes === 0, "a whole cluster takes nothing over");
  try {
    await image.file.write(buf, room.offset);
  } catch (error) {
    await room.abort();
    throw error;
  }
  await room.commit();
}

/**
 * Room for packed data: behind the last one if it fits there, else in a new cluster; across both if
 * they are side by side. The refcounts are up when it returns.
 */
async function packedRoom(image: Image, bytes: number): Promise<PackedPlace> {
  const { clusterBytes, clusterBits } = image.layout;
  const tail = image.packedTail;
  const left = tail ? tail.end - tail.offset : 0;
  if (tail && bytes <= left && (await raiseTail(image, tail.end))) {
    image.packedTail = { offset: tail.offset + bytes, end: tail.end };
    return freshPlace(image, tail.offset, bytes);
  }
  const run = await image.refcounts.allocate(1);
  const joins = tail !== null && left > 0 && run.offset === tail.end && bytes > left;
  const offset = joins && (await raiseTail(image, tail.end)) ? tail.offset : run.offset;
  if (offset + bytes > packedOffsetEnd(clusterBits)) {
    if (offset !== run.offset) image.epoch.free(tail!.end - clusterBytes, 1);
    await image.refcounts.release(run);
    throw new BlockError("EFBIG", "The image is too large for more compressed clusters");
  }
  image.packedTail = { offset: offset + bytes, end: run.offset + clusterBytes };
  return freshPlace(image, offset, bytes);
}

/** @returns false if the tail's cluster has as many references as its refcount can tell */
function raiseTail(image: Image, end: number): Promise<boolean> {
  const { clusterBytes } = image.layout;
  return image.refcounts.raise(end / clusterBytes - 1);
}

/** The entry tells the length in sectors, so what is counted reaches to the end of the last one. */
function freshPlace(image: Image, offset: number, bytes: number): PackedPlace {
  const last = alignDown(offset + bytes - 1, SECTOR_BYTES);
  const place = { offset, bytes: last + SECTOR_BYTES - offset };
  image.unpacked.forget(place);
  return place;
}

async function linkPacked(
  image: Image,
  offset: number,
  place: PackedPlace,
  bytes: number,
): Promise<void> {
  const { layout } = image;
  try {
    image.checkUsable();
    await withL2(image, offset, (spot) => {
      if (!spot) throw unpackError(image, offset);
      unreference(image, spot, 0, entryAt(image, spot, 0, offset));
      const at = spot.index * layout.l2EntryBytes;
      writePackedPlace(spot.page.bytes, at, layout, place.offset, bytes);
      image.pages.markDirty(spot.page);
    });
  } catch (error) {
    freePacked(image, place);
    throw error;
  }
}
