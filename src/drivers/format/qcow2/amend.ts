/**
 * An image's own properties, changed in place: what `qemu-img amend -o` changes. QEMU's
 * x-blockdev-amend changes encryption only (amend-keys.ts); of the others it has the version and whether
 * others may keep refcounts lazily.
 *
 * Each property is changed by one write that a crash leaves done or not done. Of several the order is
 * QEMU's: up to version 3 first, down to version 2 last, so that what is between may depend on it.
 *
 * The version decides how the first sector is read, so that sector is written in one piece, and what it
 * points to is in the file before: no crash leaves a header that is half of each.
 */

import * as v from "valibot";
import { alignUp, writeU32, writeU64 } from "../../../base/bytes.ts";
import { BlockError } from "../../../base/errors.ts";
import { type AmendContext, amendKeys } from "./amend-keys.ts";
import { amendEncrypt } from "./encryption.ts";
import {
  type Extension,
  ExtensionType,
  featureNamesExtension,
  parseExtensions,
  serializeTail,
} from "./extensions.ts";
import {
  AT,
  Autoclear,
  Compatible,
  Incompatible,
  parseHeader,
  V2_HEADER_BYTES,
  V3_HEADER_BYTES,
} from "./header.ts";
import type { Image } from "./image.ts";
import { decodeEntry } from "./l2.ts";
import { eachL2 } from "./l2-walk.ts";
import { SECTOR_BYTES } from "./layout.ts";
import { decisive } from "./refcount-grow.ts";
import { changeRefcountWidth } from "./refcount-width.ts";
import { changeDataFileName, checkDataFileName, endOfNames } from "./rewrite.ts";
import { isPossibleL1, tableBytesOf, withV3Extra } from "./snapshot-table.ts";

/** x-blockdev-amend's members for qcow2. */
export const amendOptions = {
  version: v.optional(v.picklist(["v2", "v3"])),
  "lazy-refcounts": v.optional(v.boolean()),
  encrypt: v.optional(amendEncrypt),
};

export type AmendOptions = v.InferOutput<v.StrictObjectSchema<typeof amendOptions, undefined>>;

/** What images have besides, for tools that change them as a whole (ImageAmend). */
export interface ImageAmend extends AmendOptions {
  readonly "refcount-bits"?: number;
  /** Of the disk. */
  readonly size?: number;
  /** A label in the header; "" for none. Nothing is moved. */
  readonly "data-file"?: string;
  readonly "data-file-raw"?: boolean;
  /** Only as they are: rebase changes them. */
  readonly "backing-file"?: string;
  readonly "backing-fmt"?: string;
}

/** Makes the disk longer or shorter: what truncate() of the state does, for who holds the mutex. */
type Resize = (length: number) => Promise<void>;

/** The smallest cluster that feature names are written into, as when an image is made. */
const FEATURE_NAMES_CLUSTER_MIN = 4096;

/**
 * Caller holds the mutex; no request is in flight.
 *
 * @throws BlockError ENOTSUP that names what the wanted version cannot hold, EINVAL; nothing has
 *   changed then
 */
export async function amend(
  image: Image,
  options: ImageAmend,
  resize: Resize,
  request: AmendContext,
): Promise<void> {
  const { version } = image.header;
  if (options.encrypt) {
    if (Object.keys(options).length > 1) {
      throw new BlockError("EINVAL", "'encrypt' is amended alone: its steps are final one by one");
    }
    return amendKeys(image, options.encrypt, request);
  }
  const wanted = options.version === undefined ? version : options.version === "v3" ? 3 : 2;
  const lazy = options["lazy-refcounts"];
  if (lazy && wanted === 2) {
    throw new BlockError("EINVAL", "Parameter 'lazy-refcounts' needs version 'v3'");
  }
  const order = wantedOrder(image, options, wanted);
  checkNames(image, options);
  await image.beginChange();
  await image.epoch.finish();
  if (wanted < version) await checkDowngrade(image, options, order);
  if (wanted > version) {
    await completeSnapshots(image);
    await switchVersion(image, wanted);
  }
  await changeRefcountWidth(image, order, request.signal);
  if (options["data-file-raw"] === false && image.isRawExternal) {
    const { hi, lo } = image.header.autoclear;
    await image.writeAutoclear({ hi, lo: (lo & ~Autoclear.rawExternalData) >>> 0 });
  }
  const dataFile = options["data-file"];
  if (dataFile !== undefined) await changeDataFileName(image, dataFile);
  if (lazy !== undefined && image.header.version === 3) await setLazy(image, lazy);
  if (options.size !== undefined) await resize(options.size);
  if (wanted < version) {
    await image.epoch.finish();
    await switchVersion(image, wanted);
  }
}

function wantedOrder(image: Image, options: ImageAmend, version: 2 | 3): number {
  const bits = options["refcount-bits"];
  if (bits === undefined) return image.layout.refcountOrder;
  const order = Math.log2(bits);
  if (!Number.isInteger(order) || order < 0 || order > 6) {
    throw new BlockError(
      "EINVAL",
      `Parameter 'refcount-bits' takes a power of two from 1 to 64, not ${bits}`,
    );
  }
  if (version === 2 && bits !== 16) {
    throw new BlockError(
      "EINVAL",
      `Parameter 'refcount-bits' needs version 'v3' for ${bits}; version 2 has 16`,
    );
  }
  return order;
}

/** Names of other files: what may change at all. */
function checkNames(image: Image, options: ImageAmend): void {
  const { externalData, isRawExternal, extensions } = image;
  const { "backing-file": backing, "backing-fmt": format } = options;
  const isOther = (given: string | undefined, there: string | null) =>
    given !== undefined && given !== (there ?? "");
  if (isOther(backing, extensions.backingName) || isOther(format, extensions.backingFormat)) {
    throw new BlockError(
      "ENOTSUP",
      "Amending does not change the backing file; use 'rebase' for that",
    );
  }
  if (options["data-file"] !== undefined && !externalData) {
    throw new BlockError(
      "EINVAL",
      "Parameter 'data-file' is for images that have an external data file already",
    );
  }
  if (options["data-file"] !== undefined) checkDataFileName(image, options["data-file"]);
  if (options["data-file-raw"] && !isRawExternal) {
    throw new BlockError("EINVAL", "Parameter 'data-file-raw' can be switched off, but not on");
  }
}

async function setLazy(image: Image, lazy: boolean): Promise<void> {
  const { hi, lo } = image.header.compatible;
  const word = {
    hi,
    lo: (lazy ? lo | Compatible.lazyRefcounts : lo & ~Compatible.lazyRefcounts) >>> 0,
  };
  if (word.lo === lo) return;
  const bytes = new Uint8Array(8);
  writeU32(bytes, 0, word.hi);
  writeU32(bytes, 4, word.lo);
  await decisive(image, bytes, AT.compatible);
  image.header = { ...image.header, compatible: word };
}

/** @param order of the refcounts that it will have then */
async function checkDowngrade(image: Image, options: ImageAmend, order: number): Promise<void> {
  const { header, layout, extensions, snapshots } = image;
  const { size = header.size, "lazy-refcounts": lazy } = options;
  const { incompatible, compatible } = header;
  const lazyIsOn = (compatible.lo & Compatible.lazyRefcounts) !== 0 && lazy !== false;
  const otherCompatible = (compatible.lo & ~Compatible.lazyRefcounts) !== 0 || compatible.hi !== 0;
  const inUse: [string, boolean][] = [
    ["an external data file", (incompatible.lo & Incompatible.externalData) !== 0],
    ["zstd compression", (incompatible.lo & Incompatible.compressionType) !== 0],
    ["extended L2 entries", layout.extendedL2],
    [`refcounts of ${2 ** order} bits`, order !== 4],
    ["lazy refcounts", lazyIsOn],
    ["compatible features that are not known", otherCompatible],
    ["a larger disk that hides the rest of its backing file", showsBacking(image, size)],
    ["dirty bitmaps", extensions.list.some(({ type }) => type === ExtensionType.bitmaps)],
    ["header fields that are not known", header.headerBytes > V3_HEADER_BYTES],
    [
      "snapshots with a machine's state, or of a disk of another size",
      snapshots.some(({ info }) => info.vmStateBytes > 0 || info.diskBytes !== size),
    ],
  ];
  const names = inUse.filter(([, used]) => used).map(([name]) => name);
  if (names.length > 0) throw downgradeError(names.join(", "));
  await checkNoZeroes(image, { offset: image.l1.offset, entries: image.l1.bytes / 8 });
  for (const entry of snapshots)
    if (isPossibleL1(entry, header)) await checkNoZeroes(image, entry.l1);
}

/** Whether zero clusters are what would hide the backing file in a disk as long as that. */
function showsBacking({ header, backing, mayHaveBacking }: Image, size: number): boolean {
  return size > header.size && mayHaveBacking && (!backing || backing.length > header.size);
}

async function checkNoZeroes(
  image: Image,
  l1: { readonly offset: number; readonly entries: number },
): Promise<void> {
  const { l2Entries, l2CoverBytes, clusterBytes } = image.layout;
  await eachL2(image, l1, async ({ bytes, index }) => {
    for (let entry = 0; entry < l2Entries; entry++) {
      const place = index * l2CoverBytes + entry * clusterBytes;
      if (decodeEntry(image, bytes, entry, place).zero !== 0) {
        throw downgradeError(`zero clusters, at guest offset ${place} for one`);
      }
    }
  });
}

function downgradeError(what: string): BlockError {
  return new BlockError("ENOTSUP", `Version 2 cannot hold what the image has: ${what}`);
}

/** Version 3 wants more of each snapshot: a table with that, in another place. */
async function completeSnapshots(image: Image): Promise<void> {
  const { snapshots, layout, file, refcounts, header, guard } = image;
  const complete = snapshots.map(withV3Extra);
  if (complete.every((entry, i) => entry === snapshots[i])) return;
  const bytes = tableBytesOf(complete);
  const count = Math.ceil(bytes / layout.clusterBytes);
  const table = new Uint8Array(count * layout.clusterBytes);
  let at = 0;
  for (const { raw } of complete) {
    table.set(raw, at);
    at += raw.length;
  }
  const offset = await refcounts.allocateRegion(count);
  try {
    image.pages.drop(offset, table.length);
    await file.write(table, offset);
    // Writes the refcounts, and flushes the table.
    await image.epoch.run();
  } catch (error) {
    await refcounts.release({ offset, count });
    throw error;
  }
  const field = new Uint8Array(12);
  writeU32(field, 0, complete.length);
  writeU64(field, 4, offset);
  await decisive(image, field, AT.snapshots);
  image.header = { ...header, snapshotsOffset: offset };
  image.snapshots = complete;
  guard.setArea("snapshot table", offset, bytes);
  const old = Math.ceil(tableBytesOf(snapshots) / layout.clusterBytes);
  image.epoch.free(header.snapshotsOffset, old);
  await image.epoch.finish();
}

async function switchVersion(image: Image, version: 2 | 3): Promise<void> {
  const { file, layout } = image;
  const old = new Uint8Array(Math.min(layout.clusterBytes, file.length));
  await file.read(old, 0);
  const { sector, name, nameOffset } = composeHead(image, old, version);
  const whole = new Uint8Array(Math.max(old.length, nameOffset + name.length));
  whole.set(old);
  whole.set(name, nameOffset);
  whole.set(sector);
  // What will be read of it, before it is there to be read.
  const header = parseHeader(whole);
  const extensions = parseExtensions(whole, header);
  if (nameOffset >= SECTOR_BYTES) {
    await file.write(name, nameOffset);
    await file.flush();
  }
  await decisive(image, sector, 0);
  image.header = header;
  image.extensions = extensions;
}

/** The first sector as the other version has it, and the backing file's name if that lies behind. */
function composeHead(
  image: Image,
  old: Uint8Array,
  version: 2 | 3,
): { sector: Uint8Array; name: Uint8Array; nameOffset: number } {
  const { layout, extensions, header } = image;
  const { backingNameOffset, backingNameBytes } = header;
  const name = old.slice(backingNameOffset, backingNameOffset + backingNameBytes);
  const headerBytes = version === 3 ? V3_HEADER_BYTES : V2_HEADER_BYTES;
  const plain = extensions.list.filter(({ type }) => type !== ExtensionType.featureNames);
  const named = [...plain, featureNamesExtension()];
  const fits = (list: readonly Extension[]) =>
    headerBytes + serializeTail(list, null, headerBytes, layout.clusterBytes).bytes.length <=
    SECTOR_BYTES;
  // The names are a courtesy: left out where they would not fit the sector.
  const withNames =
    version === 3 && layout.clusterBytes >= FEATURE_NAMES_CLUSTER_MIN && fits(named);
  const list = withNames ? named : plain;
  if (!fits(list)) {
    throw new BlockError("ENOTSUP", "The image's header extensions are too long to be moved");
  }
  const tail = serializeTail(list, null, headerBytes, layout.clusterBytes).bytes;
  const end = headerBytes + tail.length;
  const joins = end + name.length <= SECTOR_BYTES;
  const nameOffset = joins ? end : alignUp(Math.max(endOfNames(image), SECTOR_BYTES), 8);
  if (nameOffset + name.length > layout.clusterBytes) {
    throw new BlockError("ENOTSUP", "The backing file's name is too long for a longer header");
  }
  const sector = new Uint8Array(SECTOR_BYTES);
  sector.set(old.subarray(0, V2_HEADER_BYTES));
  writeU32(sector, 4, version);
  writeU64(sector, 8, name.length > 0 ? nameOffset : 0);
  writeU32(sector, 16, name.length);
  if (version === 3) {
    writeU32(sector, AT.refcountOrder, layout.refcountOrder);
    writeU32(sector, AT.headerLength, headerBytes);
  }
  sector.set(tail, headerBytes);
  if (joins) sector.set(name, end);
  return { sector, name, nameOffset };
}
