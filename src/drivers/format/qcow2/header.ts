/**
 * The header of version 2 and 3: read with every rule that QEMU's opener applies, so that whatever
 * comes later may trust its numbers; nothing is allocated in proportion to what it claims.
 *
 *       0 magic        4 version        8 backing_file_offset      16 backing_file_size
 *      20 cluster_bits 24 size         32 crypt_method             36 l1_size
 *      40 l1_table_offset              48 refcount_table_offset    56 refcount_table_clusters
 *      60 nb_snapshots                 64 snapshots_offset
 *      72 incompatible_features        80 compatible_features      88 autoclear_features
 *      96 refcount_order              100 header_length           104 compression_type
 *
 * Fields from 72 on are there in version 3 only. Source: QEMU docs/interop/qcow2.txt.
 */

import { readU32, readU64 } from "../../../base/bytes.ts";
import { BlockError } from "../../../base/errors.ts";
import {
  CLUSTER_BITS_MAX,
  CLUSTER_BITS_MIN,
  EXTENDED_CLUSTER_BITS_MIN,
  L1_BYTES_MAX,
  type Layout,
  l1EntriesFor,
  layoutOf,
  REFCOUNT_TABLE_BYTES_MAX,
} from "./layout.ts";

export const MAGIC = 0x514649fb;
export const V2_HEADER_BYTES = 72;
/** Up to and without compression_type. */
export const V3_HEADER_BYTES_MIN = 104;
/** What QEMU since 5.1, and we, write. */
export const V3_HEADER_BYTES = 112;

/** Field offsets that are written on their own. */
export const AT = {
  backingName: 8,
  size: 24,
  cryptMethod: 32,
  l1Size: 36,
  refcountTable: 48,
  snapshots: 60,
  incompatible: 72,
  compatible: 80,
  autoclear: 88,
  refcountOrder: 96,
  headerLength: 100,
} as const;

/** incompatible_features, low word. */
export const Incompatible = {
  dirty: 1,
  corrupt: 2,
  externalData: 4,
  compressionType: 8,
  extendedL2: 16,
} as const;
const INCOMPATIBLE_KNOWN = 31;

/** compatible_features, low word. */
export const Compatible = { lazyRefcounts: 1 } as const;

/** autoclear_features, low word. */
export const Autoclear = { bitmaps: 1, rawExternalData: 2 } as const;

/** crypt_method of LUKS. */
export const CRYPT_LUKS = 2;

const BACKING_NAME_BYTES_MAX = 1023;
const SNAPSHOTS_MAX = 65536;

/** A 64-bit feature word. */
export interface FeatureWord {
  readonly hi: number;
  readonly lo: number;
}

export interface Header {
  readonly version: 2 | 3;
  readonly layout: Layout;
  /** 0 if there is no backing file name. */
  readonly backingNameOffset: number;
  readonly backingNameBytes: number;
  /** Guest size in bytes as the field says; see state.ts for those that are no whole sectors. */
  readonly size: number;
  /** How data is encrypted; the key is where an extension says. */
  readonly crypt: "none" | "luks";
  readonly l1Entries: number;
  readonly l1Offset: number;
  readonly refcountTableOffset: number;
  readonly refcountTableClusters: number;
  readonly snapshotCount: number;
  readonly snapshotsOffset: number;
  readonly incompatible: FeatureWord;
  readonly compatible: FeatureWord;
  readonly autoclear: FeatureWord;
  /** Where the extensions begin. */
  readonly headerBytes: number;
  readonly compression: "zlib" | "zstd";
}

/** How much of a file parseHeader() needs, if there is so much. */
export const HEAD_BYTES = V3_HEADER_BYTES;

/** True if these bytes begin like a qcow2 image of a version we know. */
export function looksLikeQcow2(head: Uint8Array): boolean {
  return head.length >= 8 && readU32(head, 0) === MAGIC && [2, 3].includes(readU32(head, 4));
}

/**
 * @param head the file's first bytes, HEAD_BYTES or the whole file if that is shorter
 * @throws BlockError EINVAL that names the field; ENOTSUP for versions and encryption; EFBIG for
 *   numbers from 2^53 on. Unknown features are for checkFeatures().
 */
export function parseHeader(head: Uint8Array): Header {
  if (head.length < 8 || readU32(head, 0) !== MAGIC) {
    throw new BlockError(
      "EINVAL",
      "The file is not a qcow2 image: it does not begin with 'QFI\\xfb'",
    );
  }
  const version = readU32(head, 4);
  if (version !== 2 && version !== 3) {
    throw new BlockError("ENOTSUP", `qcow2 version ${version} is not supported; 2 and 3 are`);
  }
  const needed = version === 2 ? V2_HEADER_BYTES : V3_HEADER_BYTES_MIN;
  if (head.length < needed) {
    throw invalid(`the file ends after ${head.length} bytes, within the header`);
  }
  const clusterBits = readU32(head, 20);
  if (clusterBits < CLUSTER_BITS_MIN || clusterBits > CLUSTER_BITS_MAX) {
    throw invalid(`cluster_bits is ${clusterBits}; ${CLUSTER_BITS_MIN} to ${CLUSTER_BITS_MAX} are`);
  }
  const more = version === 2 ? V2_FIELDS : parseV3Fields(head, 2 ** clusterBits);
  const extendedL2 = (more.incompatible.lo & Incompatible.extendedL2) !== 0;
  if (extendedL2 && clusterBits < EXTENDED_CLUSTER_BITS_MIN) {
    throw invalid(
      `cluster_bits is ${clusterBits}; extended L2 entries need ${EXTENDED_CLUSTER_BITS_MIN} or more`,
    );
  }
  const layout = layoutOf(clusterBits, more.refcountOrder, extendedL2);
  const header: Header = {
    version,
    layout,
    backingNameOffset: readU64(head, 8, "backing_file_offset"),
    backingNameBytes: readU32(head, 16),
    size: readU64(head, 24, "size"),
    crypt: parseCryptMethod(readU32(head, AT.cryptMethod)),
    l1Entries: readU32(head, 36),
    l1Offset: readU64(head, 40, "l1_table_offset"),
    refcountTableOffset: readU64(head, 48, "refcount_table_offset"),
    refcountTableClusters: readU32(head, 56),
    snapshotCount: readU32(head, 60),
    snapshotsOffset: readU64(head, 64, "snapshots_offset"),
    ...more,
  };
  checkBackingName(header);
  checkTables(header);
  return header;
}

/** @throws BlockError ENOTSUP that names the method */
function parseCryptMethod(method: number): "none" | "luks" {
  if (method === 0) return "none";
  if (method === CRYPT_LUKS) return "luks";
  const name = method === 1 ? "AES-CBC, which protects nothing" : `method ${method}`;
  throw new BlockError(
    "ENOTSUP",
    `The image is encrypted with ${name}, and that is not supported; LUKS is. 'qemu-img convert' can ` +
      "make another image of it",
  );
}

type V3Fields = Pick<
  Header,
  "incompatible" | "compatible" | "autoclear" | "headerBytes" | "compression"
> & { readonly refcountOrder: number };

const NONE: FeatureWord = { hi: 0, lo: 0 };
const V2_FIELDS: V3Fields = {
  incompatible: NONE,
  compatible: NONE,
  autoclear: NONE,
  refcountOrder: 4,
  headerBytes: V2_HEADER_BYTES,
  compression: "zlib",
};

function parseV3Fields(head: Uint8Array, clusterBytes: number): V3Fields {
  const word = (at: number): FeatureWord => ({ hi: readU32(head, at), lo: readU32(head, at + 4) });
  const incompatible = word(72);
  const refcountOrder = readU32(head, 96);
  if (refcountOrder > 6) throw invalid(`refcount_order is ${refcountOrder}; 0 to 6 are`);
  const headerBytes = readU32(head, 100);
  if (headerBytes < V3_HEADER_BYTES_MIN || headerBytes > clusterBytes || headerBytes % 8 !== 0) {
    throw invalid(
      `header_length is ${headerBytes}; multiples of 8 from ${V3_HEADER_BYTES_MIN} to the cluster ` +
        `size of ${clusterBytes} are`,
    );
  }
  const type = headerBytes > V3_HEADER_BYTES_MIN ? (head[104] ?? 0) : 0;
  if (type > 1) throw invalid(`compression_type is ${type}; 0 (zlib) and 1 (zstd) are`);
  const flagged = (incompatible.lo & Incompatible.compressionType) !== 0;
  if (flagged !== (type !== 0)) {
    throw invalid(`compression_type is ${type}, but its incompatible bit is ${flagged ? 1 : 0}`);
  }
  return {
    incompatible,
    compatible: word(80),
    autoclear: word(88),
    refcountOrder,
    headerBytes,
    compression: type === 1 ? "zstd" : "zlib",
  };
}

function checkBackingName(header: Header): void {
  const { backingNameOffset: offset, backingNameBytes: bytes, layout } = header;
  if (offset === 0) return;
  if (offset > layout.clusterBytes || offset < header.headerBytes) {
    throw invalid(
      `backing_file_offset is ${offset}, which is not in the rest of the first cluster`,
    );
  }
  const room = Math.min(BACKING_NAME_BYTES_MAX, layout.clusterBytes - offset);
  if (bytes > room) throw invalid(`backing_file_size is ${bytes}; at most ${room} are`);
}

function checkTables(header: Header): void {
  const { layout } = header;
  const { clusterBytes } = layout;
  if (header.l1Entries * 8 > L1_BYTES_MAX) {
    throw new BlockError(
      "EFBIG",
      `Invalid qcow2 header: l1_size is ${header.l1Entries} entries; at most ${L1_BYTES_MAX / 8} are`,
    );
  }
  const needed = l1EntriesFor(layout, header.size);
  if (header.l1Entries < needed) {
    throw invalid(`l1_size is ${header.l1Entries} entries; a disk this large has ${needed}`);
  }
  const offsets: [string, number, boolean][] = [
    ["l1_table_offset", header.l1Offset, header.l1Entries > 0],
    ["refcount_table_offset", header.refcountTableOffset, true],
    ["snapshots_offset", header.snapshotsOffset, header.snapshotCount > 0],
  ];
  for (const [name, offset, used] of offsets) {
    if (used && offset % clusterBytes !== 0) {
      throw invalid(`${name} is ${offset}, not a multiple of the cluster size of ${clusterBytes}`);
    }
  }
  if (header.l1Entries > 0 && header.l1Offset === 0) throw invalid("l1_table_offset is 0");
  if (header.refcountTableClusters * clusterBytes > REFCOUNT_TABLE_BYTES_MAX) {
    throw invalid(
      `refcount_table_clusters is ${header.refcountTableClusters}; at most ` +
        `${REFCOUNT_TABLE_BYTES_MAX / clusterBytes} are`,
    );
  }
  if (header.snapshotCount > SNAPSHOTS_MAX) {
    throw invalid(`nb_snapshots is ${header.snapshotCount}; at most ${SNAPSHOTS_MAX} are`);
  }
}

/**
 * @param nameOf a feature's name in the image's own table, if it has one there
 * @throws BlockError ENOTSUP that names every incompatible feature we do not know
 */
export function checkFeatures(header: Header, nameOf: (bit: number) => string | undefined): void {
  const names: string[] = [];
  for (let bit = 0; bit < 64; bit++) {
    const word = bit < 32 ? header.incompatible.lo & ~INCOMPATIBLE_KNOWN : header.incompatible.hi;
    if ((word >>> (bit % 32)) & 1) names.push(nameOf(bit) ?? `incompatible bit ${bit}`);
  }
  if (names.length === 0) return;
  throw new BlockError(
    "ENOTSUP",
    `The image uses features that are not supported: ${names.map((name) => `'${name}'`).join(", ")}`,
  );
}

/** @param problem field, value, and the values that are allowed, ending in "are" where it lists */
export function invalid(problem: string): BlockError {
  const text = problem.endsWith(" are") ? `${problem} allowed` : problem;
  return new BlockError("EINVAL", `Invalid qcow2 header: ${text}`);
}
