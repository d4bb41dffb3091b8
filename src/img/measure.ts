/**
 * How large a qcow2 file gets, from its options and the disk's size alone: what must be in it besides
 * the data (QEMU: qcow2_calc_prealloc_size()).
 *
 *     │ header │ L1 table │ L2 tables │ refcount table │ refcount blocks │ data … │
 *
 * Every table is there in full, so this is an upper bound for whatever gets written.
 */

import { alignUp } from "../base/bytes.ts";
import { BlockError } from "../base/errors.ts";
import type { DirtyBitmap } from "../block/dirty-bitmap.ts";
import { areaBytes } from "../drivers/format/luks/create.ts";
import { L1_BYTES_MAX } from "../drivers/format/qcow2/layout.ts";
import type { OptionValues } from "./create-options.ts";
import { versionOf } from "./members.ts";

/** Of a bitmap's entry in the directory, without its name. */
const BITMAP_ENTRY_BYTES = 24;
/** The smallest clusters whose entries may be extended. */
const EXTENDED_CLUSTER_BYTES = 16384;

export interface Geometry {
  readonly version: 2 | 3;
  readonly clusterBytes: number;
  readonly refcountBits: number;
  readonly l2EntryBytes: 8 | 16;
  /** Of the disk, in whole clusters. */
  readonly diskBytes: number;
  readonly preallocation: string;
  /** The header and the key slots of an encrypted image. */
  readonly luksBytes: number;
}

/** @throws BlockError EINVAL that names an option; EFBIG for a disk that the clusters are too small for */
export function geometryOf(values: OptionValues, bytes: number): Geometry {
  const clusterBytes = powerOfTwo(
    "cluster_size",
    values.get("cluster_size") ?? "65536",
    512,
    2 ** 21,
  );
  const refcountBits = powerOfTwo("refcount_bits", values.get("refcount_bits") ?? "16", 1, 64);
  const version = versionOf(values) === "v2" ? 2 : 3;
  const extended = values.get("extended_l2") === "on";
  if (version === 2 && refcountBits !== 16) {
    throw new BlockError("EINVAL", "Parameter 'refcount_bits' other than 16 needs compat v3");
  }
  if (extended && version === 2) {
    throw new BlockError("EINVAL", "Parameter 'extended_l2' needs compat v3");
  }
  if (extended && clusterBytes < EXTENDED_CLUSTER_BYTES) {
    throw new BlockError(
      "EINVAL",
      `Parameter 'extended_l2' needs a 'cluster_size' of ${EXTENDED_CLUSTER_BYTES} at least`,
    );
  }
  const preallocation = values.get("preallocation") ?? "off";
  if (!["off", "metadata", "falloc", "full"].includes(preallocation)) {
    throw new BlockError("EINVAL", `Parameter 'preallocation' does not take '${preallocation}'`);
  }
  const l2EntryBytes = extended ? 16 : 8;
  const diskBytes = alignUp(bytes, clusterBytes);
  const tables = Math.ceil(diskBytes / clusterBytes / (clusterBytes / l2EntryBytes));
  if (tables * 8 > L1_BYTES_MAX) {
    throw new BlockError("EFBIG", "The disk is too large for clusters this small");
  }
  const luksBytes = alignUp(luksBytesOf(values), clusterBytes);
  return {
    version,
    clusterBytes,
    refcountBits,
    l2EntryBytes,
    diskBytes,
    preallocation,
    luksBytes,
  };
}

/** @throws BlockError EINVAL, as making such an image would */
function luksBytesOf(values: OptionValues): number {
  const format = values.get("encrypt.format");
  if (format === undefined) return 0;
  if (format !== "luks") {
    throw new BlockError("EINVAL", `Parameter 'encrypt.format' takes 'luks', not '${format}'`);
  }
  if (!values.has("encrypt.key-secret")) {
    throw new BlockError("EINVAL", "Parameter 'encrypt.key-secret' is missing");
  }
  const cipher = values.get("encrypt.cipher-alg") ?? "aes-256";
  const [, bits] = /^aes-(128|192|256)$/.exec(cipher) ?? [];
  if (bits === undefined) {
    throw new BlockError("EINVAL", `Parameter 'encrypt.cipher-alg' does not take '${cipher}'`);
  }
  // XTS has two keys.
  return areaBytes((2 * Number(bits)) / 8);
}

function powerOfTwo(name: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (value >= least && value <= most && Number.isInteger(Math.log2(value))) return value;
  throw new BlockError(
    "EINVAL",
    `Parameter '${name}' takes a power of two from ${least} to ${most}, not ${text}`,
  );
}

/** Of the file when all of the disk is allocated. */
export function fullBytes(geometry: Geometry): number {
  const { clusterBytes, l2EntryBytes, diskBytes } = geometry;
  const l2Entries = alignUp(diskBytes / clusterBytes, clusterBytes / l2EntryBytes);
  const l2Bytes = l2Entries * l2EntryBytes;
  const l1Bytes = alignUp(l2Bytes / clusterBytes, clusterBytes / 8) * 8;
  const counted = clusterBytes + l2Bytes + l1Bytes + diskBytes;
  return geometry.luksBytes + counted + refcountBytes(counted / clusterBytes, geometry);
}

/** Refcount blocks count themselves and their table, too. */
function refcountBytes(clusters: number, { clusterBytes, refcountBits }: Geometry): number {
  const countsOfBlock = (clusterBytes * 8) / refcountBits;
  const blocksOfTable = clusterBytes / 8;
  let blocks = 0;
  let tables = 0;
  for (let before = -1; before !== blocks + tables; ) {
    before = blocks + tables;
    blocks = Math.ceil((clusters + tables + blocks) / countsOfBlock);
    tables = Math.ceil(blocks / blocksOfTable);
  }
  return (blocks + tables) * clusterBytes;
}

/** What the bitmaps of an image come to in another, with every bit of them written out. */
export function bitmapsBytes(bitmaps: readonly DirtyBitmap[], clusterBytes: number): number {
  let bytes = 0;
  let directory = 0;
  for (const { name, persistent, inconsistent, granularity, size } of bitmaps) {
    if (!persistent || inconsistent || name === null) continue;
    const clusters = Math.ceil(Math.ceil(Math.ceil(size / granularity) / 8) / clusterBytes);
    bytes += clusters * clusterBytes + alignUp(clusters * 8, clusterBytes);
    directory += alignUp(BITMAP_ENTRY_BYTES + new TextEncoder().encode(name).length, 8);
  }
  return bytes + alignUp(directory, clusterBytes);
}
