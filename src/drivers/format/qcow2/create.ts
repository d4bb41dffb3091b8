/**
 * New, empty images, laid out as qemu-img's:
 *
 *     │ header │ refcount table │ refcount blocks │ L1 table │ keys, if it is encrypted │
 *
 * The header is written last, after a flush: a file that has one is a whole image.
 */

import * as v from "valibot";
import { alignUp, writeU32, writeU64 } from "../../../base/bytes.ts";
import { size as sizeSchema } from "../../../base/check.ts";
import { assert, BlockError } from "../../../base/errors.ts";
import type { BlockChild } from "../../../block/child.ts";
import type { CreateContext } from "../../../block/driver.ts";
import type { Kernel } from "../../../kernel/kernel.ts";
import { areaBytes, makeLuks } from "../luks/create.ts";
import { serializeLuks } from "../luks/header.ts";
import { createEncrypt, newLuksOf } from "./encryption.ts";
import {
  backingFormatExtension,
  type EncryptionPlace,
  type Extension,
  ExtensionType,
  encryptionExtension,
  featureNamesExtension,
  serializeTail,
  textExtension,
} from "./extensions.ts";
import {
  Autoclear,
  Compatible,
  CRYPT_LUKS,
  Incompatible,
  MAGIC,
  V2_HEADER_BYTES,
  V3_HEADER_BYTES,
} from "./header.ts";
import {
  EXTENDED_CLUSTER_BITS_MIN,
  L1_BYTES_MAX,
  type Layout,
  l1EntriesFor,
  layoutOf,
  REFCOUNT_TABLE_BYTES_MAX,
  SECTOR_BYTES,
} from "./layout.ts";
import { preallocate } from "./preallocate.ts";

const CLUSTER_SIZES = [9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21].map((bits) => 2 ** bits);
const REFCOUNT_WIDTHS = [1, 2, 4, 8, 16, 32, 64];
const BACKING_NAME_BYTES_MAX = 1023;

/** blockdev-create's members for qcow2 (QEMU: BlockdevCreateOptionsQcow2), data-file as a name. */
export const createOptions = {
  size: sizeSchema,
  version: v.optional(v.picklist(["v2", "v3"])),
  "cluster-size": v.optional(sizeSchema),
  "refcount-bits": v.optional(v.pipe(v.number(), v.safeInteger())),
  "extended-l2": v.optional(v.boolean()),
  "compression-type": v.optional(v.picklist(["zlib", "zstd"])),
  "backing-file": v.optional(v.string()),
  "backing-fmt": v.optional(v.string()),
  "lazy-refcounts": v.optional(v.boolean()),
  "data-file": v.optional(v.string()),
  "data-file-raw": v.optional(v.boolean()),
  encrypt: v.optional(createEncrypt),
  preallocation: v.optional(v.picklist(["off", "metadata", "falloc", "full"])),
};

export type CreateOptions = v.InferOutput<v.StrictObjectSchema<typeof createOptions, undefined>>;

/** Where the parts of a new image are, in clusters from the start; 1 cluster of header. */
interface Plan {
  /** Of the encryption header, which comes last. */
  readonly keyClusters: number;
  readonly tableClusters: number;
  readonly blocks: number;
  readonly l1Entries: number;
  readonly l1Clusters: number;
}

/**
 * @throws BlockError EINVAL that names the option, EFBIG if the disk is too large for its clusters,
 *   and what the file throws
 */
export async function create(context: CreateContext<CreateOptions>): Promise<void> {
  const { file, dataFile, options, world, secrets, signal } = context;
  assert(file, "a qcow2 image is made in a file");
  checkOptions(options);
  const extendedL2 = options["extended-l2"] ?? false;
  const clusterBytes = options["cluster-size"] ?? 65536;
  const refcountOrder = Math.log2(options["refcount-bits"] ?? 16);
  const layout = layoutOf(Math.log2(clusterBytes), refcountOrder, extendedL2);
  const { size } = options;
  const wanted = options.encrypt && newLuksOf(options.encrypt, secrets);
  const plan = planImage(layout, size, wanted ? areaBytes(wanted.keyBytes) : 0);
  const keys = wanted && { bytes: areaBytes(wanted.keyBytes), offset: keysOffset(layout, plan) };
  const header = serializeHeader(options, layout, size, plan, keys);
  // Takes its time, and may be called off: nothing is written before.
  const luks = wanted && (await makeLuks({ ...world, ...(signal && { signal }) }, wanted));

  const { clusterBytes: cluster } = layout;
  const l1Offset = (1 + plan.tableClusters + plan.blocks) * cluster;
  await file.truncate(0);
  await file.truncate(
    keys ? alignUp(keys.offset + keys.bytes, cluster) : l1Offset + plan.l1Entries * 8,
  );
  if (keys && luks) {
    await file.write(serializeLuks(luks.header), keys.offset);
    const [first] = luks.header.slots;
    await file.write(luks.material, keys.offset + first!.place * SECTOR_BYTES);
  }
  await writeRefcounts(file, world.kernel, layout, plan);
  await file.flush();
  await file.write(header, 0);
  await file.flush();
  // A raw data file is the disk: every cluster of it is in use, as with QEMU.
  const { preallocation = "off" } = options;
  const isRaw = options["data-file-raw"] === true;
  await preallocate(context, file, isRaw && preallocation === "off" ? "metadata" : preallocation);
  if (dataFile) await dataFile.truncate(0);
  const ofData = preallocation === "metadata" ? "off" : preallocation;
  if (dataFile) await dataFile.truncate(size, { preallocation: ofData, ...(signal && { signal }) });
}

function checkOptions(options: CreateOptions): void {
  const bad = (problem: string) => new BlockError("EINVAL", problem);
  const clusterBytes = options["cluster-size"] ?? 65536;
  if (!CLUSTER_SIZES.includes(clusterBytes)) {
    throw bad(
      `Parameter 'cluster-size' takes a power of two from 512 to 2 MiB, not ${clusterBytes}`,
    );
  }
  const refcountBits = options["refcount-bits"] ?? 16;
  if (!REFCOUNT_WIDTHS.includes(refcountBits)) {
    throw bad(`Parameter 'refcount-bits' takes a power of two from 1 to 64, not ${refcountBits}`);
  }
  if (options.size % SECTOR_BYTES !== 0) {
    throw bad(`Parameter 'size' takes a multiple of ${SECTOR_BYTES}, not ${options.size}`);
  }
  if (options.version === "v2") {
    const v3Only: [string, boolean][] = [
      ["refcount-bits", refcountBits !== 16],
      ["extended-l2", options["extended-l2"] === true],
      ["compression-type", options["compression-type"] === "zstd"],
      ["lazy-refcounts", options["lazy-refcounts"] === true],
      ["data-file", options["data-file"] !== undefined],
    ];
    for (const [name, used] of v3Only) {
      if (used) throw bad(`Parameter '${name}' needs version 'v3'; version is 'v2'`);
    }
  }
  if (options["extended-l2"] && clusterBytes < 2 ** EXTENDED_CLUSTER_BITS_MIN) {
    throw bad(
      `Parameter 'extended-l2' needs a cluster-size of at least ${2 ** EXTENDED_CLUSTER_BITS_MIN}; ` +
        `it is ${clusterBytes}`,
    );
  }
  const raw = options["data-file-raw"] === true;
  const backing = options["backing-file"];
  if (raw && options["data-file"] === undefined) {
    throw bad("Parameter 'data-file-raw' needs 'data-file'");
  }
  if (raw && backing !== undefined) {
    throw bad("Parameter 'backing-file' cannot be used with 'data-file-raw'");
  }
  if (options["backing-fmt"] !== undefined && backing === undefined) {
    throw bad("Parameter 'backing-fmt' needs 'backing-file'");
  }
  if (backing !== undefined && new TextEncoder().encode(backing).length > BACKING_NAME_BYTES_MAX) {
    throw bad(`Parameter 'backing-file' has at most ${BACKING_NAME_BYTES_MAX} bytes`);
  }
  const isPreallocated = (options.preallocation ?? "off") !== "off";
  if (isPreallocated && options.encrypt && options.version === "v2") {
    throw bad("Parameter 'preallocation' with 'encrypt' needs version 'v3'; version is 'v2'");
  }
  if (isPreallocated && backing !== undefined && !options["extended-l2"]) {
    throw bad("Parameter 'preallocation' cannot be used with 'backing-file' without 'extended-l2'");
  }
}

/** Where the keys of an encrypted image are. */
function keysOffset({ clusterBytes }: Layout, plan: Plan): number {
  return (1 + plan.tableClusters + plan.blocks + plan.l1Clusters) * clusterBytes;
}

function planImage(layout: Layout, size: number, keyBytes: number): Plan {
  const { clusterBytes, refcountBlockEntries } = layout;
  const l1Entries = l1EntriesFor(layout, size);
  if (l1Entries * 8 > L1_BYTES_MAX) {
    throw new BlockError(
      "EFBIG",
      `A disk of ${size} bytes is too large for clusters of ${clusterBytes} bytes; at most ` +
        `${(L1_BYTES_MAX / 8) * layout.l2CoverBytes} bytes are possible`,
    );
  }
  const l1Clusters = Math.ceil((l1Entries * 8) / clusterBytes);
  const keyClusters = Math.ceil(keyBytes / clusterBytes);
  let blocks = 1;
  let tableClusters = 1;
  for (;;) {
    const total = 1 + tableClusters + blocks + l1Clusters + keyClusters;
    const moreBlocks = Math.ceil(total / refcountBlockEntries);
    const moreTable = Math.ceil((moreBlocks * 8) / clusterBytes);
    if (moreBlocks <= blocks && moreTable <= tableClusters) break;
    blocks = Math.max(blocks, moreBlocks);
    tableClusters = Math.max(tableClusters, moreTable);
  }
  assert(
    tableClusters * clusterBytes <= REFCOUNT_TABLE_BYTES_MAX,
    "a new image is counted in full",
  );
  return { tableClusters, blocks, l1Entries, l1Clusters, keyClusters };
}

async function writeRefcounts(
  file: BlockChild,
  kernel: Kernel,
  layout: Layout,
  plan: Plan,
): Promise<void> {
  const { clusterBytes, refcountBlockEntries, refcountOrder } = layout;
  const first = (1 + plan.tableClusters) * clusterBytes;
  const table = new Uint8Array(plan.blocks * 8);
  const total = 1 + plan.tableClusters + plan.blocks + plan.l1Clusters + plan.keyClusters;
  for (let i = 0; i < plan.blocks; i++) {
    const block = new Uint8Array(clusterBytes);
    const used = Math.min(refcountBlockEntries, total - i * refcountBlockEntries);
    kernel.refcountAdd(block, refcountOrder, 0, Math.max(0, used), 1);
    await file.write(block, first + i * clusterBytes);
    writeU64(table, i * 8, first + i * clusterBytes);
  }
  await file.write(table, clusterBytes);
}

/** The first bytes of the file, up to where its zeroes begin. */
function serializeHeader(
  options: CreateOptions,
  layout: Layout,
  size: number,
  plan: Plan,
  keys: EncryptionPlace | undefined,
): Uint8Array {
  const { clusterBytes, clusterBits } = layout;
  const isV3 = options.version !== "v2";
  const headerBytes = isV3 ? V3_HEADER_BYTES : V2_HEADER_BYTES;
  const backing = options["backing-file"] ?? null;
  const tail = serializeTail(
    extensionsOf(options, isV3, clusterBytes, keys),
    backing,
    headerBytes,
    clusterBytes,
  );
  const bytes = new Uint8Array(headerBytes + tail.bytes.length);
  bytes.set(tail.bytes, headerBytes);
  writeU32(bytes, 0, MAGIC);
  writeU32(bytes, 4, isV3 ? 3 : 2);
  writeU64(bytes, 8, tail.nameOffset);
  writeU32(bytes, 16, tail.nameBytes);
  writeU32(bytes, 20, clusterBits);
  writeU64(bytes, 24, size);
  writeU32(bytes, 32, keys ? CRYPT_LUKS : 0);
  writeU32(bytes, 36, plan.l1Entries);
  writeU64(bytes, 40, (1 + plan.tableClusters + plan.blocks) * clusterBytes);
  writeU64(bytes, 48, clusterBytes);
  writeU32(bytes, 56, plan.tableClusters);
  if (!isV3) return bytes;

  const zstd = options["compression-type"] === "zstd";
  const incompatible =
    (options["data-file"] === undefined ? 0 : Incompatible.externalData) |
    (zstd ? Incompatible.compressionType : 0) |
    (layout.extendedL2 ? Incompatible.extendedL2 : 0);
  writeU32(bytes, 76, incompatible);
  writeU32(bytes, 84, options["lazy-refcounts"] ? Compatible.lazyRefcounts : 0);
  writeU32(bytes, 92, options["data-file-raw"] ? Autoclear.rawExternalData : 0);
  writeU32(bytes, 96, layout.refcountOrder);
  writeU32(bytes, 100, V3_HEADER_BYTES);
  bytes[104] = zstd ? 1 : 0;
  return bytes;
}

function extensionsOf(
  options: CreateOptions,
  isV3: boolean,
  clusterBytes: number,
  keys: EncryptionPlace | undefined,
): Extension[] {
  const list: Extension[] = [];
  const format = options["backing-fmt"];
  const dataFile = options["data-file"];
  if (format !== undefined) list.push(backingFormatExtension(format));
  if (dataFile !== undefined) list.push(textExtension(ExtensionType.dataFile, dataFile));
  if (keys) list.push(encryptionExtension(keys));
  // The names are a courtesy: in a cluster too small for them the image does without, as QEMU's.
  if (!isV3 || clusterBytes < 4096) return list;
  return [...list, featureNamesExtension()];
}
