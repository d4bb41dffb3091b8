/**
 * From a guest offset to its L2 entry, and to the answer for the run that begins there.
 */

import { readU32 } from "../../../base/bytes.ts";
import { assert, BlockError } from "../../../base/errors.ts";
import type { Mapping } from "../../../block/driver.ts";
import type { ClusterRun } from "../../../kernel/kernel.ts";
import { CorruptEntry } from "./corrupt-entry.ts";
import type { Image } from "./image.ts";
import {
  COPIED_HI,
  hostOffsetOf,
  L1_RESERVED,
  type L2Entry,
  type PackedPlace,
  readL2Entry,
  readPackedPlace,
  tableOffsetOf,
} from "./layout.ts";
import type { Page } from "./pages.ts";

/** Where an L1 entry is: good until the next await. */
export interface L1Spot {
  readonly page: Page;
  /** Of the entry, in the page. */
  readonly at: number;
  /** In the whole table. */
  readonly index: number;
}

/** Where an L2 entry is: good until the next await. */
export interface L2Spot {
  readonly l1: L1Spot;
  readonly page: Page;
  /** Index of the entry in the page, not in the table. */
  readonly index: number;
  /** Entries from there to the page's end. */
  readonly left: number;
}

/**
 * Looks at the L2 entry of a guest offset, with both tables in memory.
 *
 * @param look called once, in the turn in which the pages are there; the first argument is null if
 *   there is no L2 table
 * @throws BlockError EIO if the tables cannot be read or make no sense
 */
export async function withL2<T>(
  image: Image,
  offset: number,
  look: (spot: L2Spot | null, l1: L1Spot) => T,
): Promise<T> {
  const { layout, pages } = image;
  for (;;) {
    const { l1: table } = image;
    const l1Index = Math.floor(offset / layout.l2CoverBytes);
    assert(l1Index * 8 < table.bytes, "a guest offset lies within the L1 table's reach");
    const l1PageOffset = pages.pageOffset(table, l1Index * 8);
    const l1Page = pages.peek(l1PageOffset);
    if (!l1Page) {
      await pages.load(table, l1PageOffset);
      continue;
    }
    const l1: L1Spot = {
      page: l1Page,
      at: table.offset + l1Index * 8 - l1PageOffset,
      index: l1Index,
    };
    const l2Offset = l2OffsetOf(image, l1);
    if (l2Offset === 0) return look(null, l1);

    const l2 = image.l2Table(l2Offset);
    const index = Math.floor(offset / layout.clusterBytes) % layout.l2Entries;
    const pageOffset = pages.pageOffset(l2, index * layout.l2EntryBytes);
    const page = pages.peek(pageOffset);
    if (!page) {
      await pages.load(l2, pageOffset);
      continue;
    }
    const inPage = index - (pageOffset - l2Offset) / layout.l2EntryBytes;
    const left = pages.pageBytes / layout.l2EntryBytes - inPage;
    return look({ l1, page, index: inPage, left }, l1);
  }
}

export function l2OffsetOf(image: Image, { page, at, index }: L1Spot): number {
  return tableOffsetOf(page.bytes, at, image.layout, L1_RESERVED, `L1 entry ${index}`);
}

export function isL2Copied({ page, at }: L1Spot): boolean {
  return (readU32(page.bytes, at) & COPIED_HI) !== 0;
}

/** The run of like clusters, or subclusters with extended L2 entries, at a guest offset. */
export function runAt(image: Image, spot: L2Spot, offset: number, bytes: number): ClusterRun {
  const { layout, kernel } = image;
  const { clusterBits, clusterBytes, subclusterBytes, subclusters } = layout;
  const inCluster = offset % clusterBytes;
  if (!layout.extendedL2) {
    const limit = Math.min(spot.left, Math.ceil((inCluster + bytes) / clusterBytes));
    return kernel.l2Run(spot.page.bytes, spot.index, limit, clusterBits, image.externalData);
  }
  const first = Math.floor(inCluster / subclusterBytes);
  const wanted = Math.ceil((inCluster + bytes) / subclusterBytes) - first;
  const limit = Math.min(spot.left * subclusters - first, wanted);
  const { page, index } = spot;
  const external = image.externalData;
  return kernel.l2RunExtended(page.bytes, index, first, limit, clusterBits, external);
}

/** Host offset of the cluster that a spot's entry has. */
export function hostOffsetAt(image: Image, spot: L2Spot): number {
  const at = spot.index * image.layout.l2EntryBytes;
  const { bytes } = spot.page;
  return hostOffsetOf(readU32(bytes, at), readU32(bytes, at + 4));
}

/**
 * Where the run at a guest offset is. Cost: at most two pages read.
 *
 * Data that should lie past the end of its file is an error, not zeroes: a file that was cut off
 * must not read as a disk full of them.
 *
 * @param bytes > 0, offset + bytes within the disk
 * @throws BlockError EIO
 */
export function mapRun(image: Image, offset: number, bytes: number): Promise<Mapping> {
  return withL2(image, offset, (spot, l1) => {
    if (!spot) return { kind: "unallocated", bytes: Math.min(bytes, holeBytes(image, l1, offset)) };
    const run = runAt(image, spot, offset, bytes);
    const unit = image.layout.subclusterBytes;
    const reach = Math.min(bytes, run.count * unit - (offset % unit));
    switch (run.kind) {
      case "unallocated":
        return { kind: "unallocated", bytes: reach };
      case "unallocated-alloc": {
        const host = hostOffsetAt(image, spot) + (offset % image.layout.clusterBytes);
        return { kind: "unallocated", bytes: reach, offset: host };
      }
      case "compressed":
        return { kind: "encoded", bytes: reach };
      case "zero-plain":
      case "zero-alloc": {
        checkZeroKind(image, offset);
        if (run.kind === "zero-plain") return { kind: "zero", bytes: reach };
        const host = hostOffsetAt(image, spot) + (offset % image.layout.clusterBytes);
        return { kind: "zero", bytes: reach, offset: host };
      }
      case "normal":
        return dataAt(image, spot, offset, reach);
      case "invalid":
        throw invalidEntry(image, offset);
    }
  });
}

/** Guest bytes from `offset` on that have no L2 table: to where one is, or the L1 page's end. */
export function holeBytes(image: Image, l1: L1Spot, offset: number): number {
  const { l2CoverBytes } = image.layout;
  const { bytes } = l1.page;
  let next = l1.at + 8;
  while (next < bytes.length && readU32(bytes, next) === 0 && readU32(bytes, next + 4) === 0) {
    next += 8;
  }
  return ((next - l1.at) / 8) * l2CoverBytes - (offset % l2CoverBytes);
}

function dataAt(image: Image, spot: L2Spot, offset: number, bytes: number): Mapping {
  const host = hostOffsetAt(image, spot) + (offset % image.layout.clusterBytes);
  if (image.externalData && host !== offset) {
    throw new BlockError(
      "EIO",
      `The image of node '${image.nodeName}' is corrupt: guest offset ${offset} is mapped to ` +
        `${host} of the external data file, where only ${offset} can be`,
    );
  }
  const child = image.externalData ? image.dataFile : image.file;
  assert(child, "an image with external data has a data file");
  const there = Math.min(bytes, child.length - host);
  if (there <= 0) {
    throw new BlockError(
      "EIO",
      `The ${image.externalData ? "data file" : "file"} of node '${image.nodeName}' is cut off: ` +
        `guest offset ${offset} is at ${host}, but it ends at ${child.length}`,
    );
  }
  return {
    kind: "data",
    bytes: there,
    role: image.externalData ? "data-file" : "file",
    offset: host,
  };
}

/** Version 2 has no zero clusters: the bit is reserved there. */
export function checkZeroKind(image: Image, offset: number): void {
  if (image.header.version === 2) throw invalidEntry(image, offset);
}

export function invalidEntry(image: Image, offset: number): BlockError {
  return new CorruptEntry(
    `The image of node '${image.nodeName}' is corrupt: the L2 entry of guest offset ${offset} ` +
      "is not valid",
  );
}

/**
 * The i-th entry from a spot on, decoded.
 *
 * @param offset guest offset of the spot, for the error
 * @throws BlockError EIO if the entry is not valid
 */
export function entryAt(image: Image, spot: L2Spot, i: number, offset: number): L2Entry {
  const place = offset + i * image.layout.clusterBytes;
  return decodeEntry(image, spot.page.bytes, spot.index + i, place);
}

/**
 * Entry number `index` of a table, or of a part of one.
 *
 * @param offset guest offset, for the error
 * @throws BlockError EIO if the entry is not valid
 */
export function decodeEntry(
  image: Image,
  bytes: Uint8Array,
  index: number,
  offset: number,
): L2Entry {
  const { layout, kernel, externalData } = image;
  const { kind } = layout.extendedL2
    ? kernel.l2RunExtended(bytes, index, 0, layout.subclusters, layout.clusterBits, externalData)
    : kernel.l2Run(bytes, index, 1, layout.clusterBits, externalData);
  if (kind === "invalid") throw invalidEntry(image, offset);
  if (kind === "zero-plain" || kind === "zero-alloc") checkZeroKind(image, offset);
  return readL2Entry(bytes, index * layout.l2EntryBytes, layout, externalData);
}

/** The host cluster that is counted for an entry; -1 if there is none in the image's own file. */
export function hostOf(image: Image, entry: L2Entry): number {
  return image.externalData ? -1 : entry.host;
}

/** Where the packed data of the i-th entry from a spot on is; the entry is a compressed one. */
export function packedPlaceAt(image: Image, spot: L2Spot, i: number): PackedPlace {
  const at = (spot.index + i) * image.layout.l2EntryBytes;
  const { bytes } = spot.page;
  return readPackedPlace(readU32(bytes, at), readU32(bytes, at + 4), image.layout.clusterBits);
}
