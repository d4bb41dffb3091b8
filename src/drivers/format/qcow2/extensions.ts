/**
 * Header extensions, which lie between the header and the backing file's name in cluster 0:
 *
 *     type u32 │ length u32 │ length bytes, padded to 8 │ type u32 │ …  │ 0 │ 0 │
 *
 * Those that mean nothing to us are kept as they are. Every length in here was written by somebody
 * else: none is believed before it is known to fit the cluster.
 */

import { alignUp, readU32, readU64, writeU32, writeU64 } from "../../../base/bytes.ts";
import { BlockError } from "../../../base/errors.ts";
import { Autoclear, type Header, Incompatible, invalid } from "./header.ts";

export const ExtensionType = {
  end: 0,
  backingFormat: 0xe2792aca,
  featureNames: 0x6803f857,
  bitmaps: 0x23852875,
  dataFile: 0x44415441,
  encryption: 0x0537be77,
} as const;

export interface Extension {
  readonly type: number;
  readonly data: Uint8Array;
}

export interface EncryptionPlace {
  readonly offset: number;
  readonly bytes: number;
}

export interface Extensions {
  /** All but the end mark, in the image's order. */
  readonly list: readonly Extension[];
  readonly backingName: string | null;
  readonly backingFormat: string | null;
  readonly dataFileName: string | null;
  /** Where the header of LUKS lies in the file, with its keys. */
  readonly encryption: EncryptionPlace | null;
  /** What the image calls a feature. @param kind 0 incompatible, 1 compatible, 2 autoclear */
  featureName(kind: number, bit: number): string | undefined;
}

const FEATURE_RECORD_BYTES = 48;
const FORMAT_BYTES_MAX = 15;
const decoder = new TextDecoder();

/**
 * @param cluster the file's first cluster, or what there is of it
 * @throws BlockError EINVAL that names what does not fit
 */
export function parseExtensions(cluster: Uint8Array, header: Header): Extensions {
  const nameOffset = header.backingNameOffset;
  const end = nameOffset || header.layout.clusterBytes;
  const list = [...walk(cluster, header.headerBytes, end)];
  const one = (type: number, name: string): Uint8Array | null => {
    const found = list.filter((extension) => extension.type === type);
    if (found.length > 1) throw invalid(`there are ${found.length} ${name} extensions`);
    return found[0]?.data ?? null;
  };
  if (nameOffset + header.backingNameBytes > cluster.length && nameOffset > 0) {
    throw invalid("the file ends within the backing file's name");
  }
  const backingFormat = one(ExtensionType.backingFormat, "backing format");
  const dataFile = one(ExtensionType.dataFile, "data file name");
  const features = one(ExtensionType.featureNames, "feature name");
  const encryption = one(ExtensionType.encryption, "encryption header");
  one(ExtensionType.bitmaps, "bitmaps");
  if (dataFile && !(header.incompatible.lo & Incompatible.externalData)) {
    throw invalid("there is a data file name, but the incompatible bit of data files is 0");
  }
  const { autoclear, incompatible } = header;
  if (autoclear.lo & Autoclear.rawExternalData && !(incompatible.lo & Incompatible.externalData)) {
    throw invalid("the bit of raw data files is set, but the incompatible bit of data files is 0");
  }
  return {
    list,
    backingName:
      nameOffset > 0 && header.backingNameBytes > 0
        ? text(cluster.subarray(nameOffset, nameOffset + header.backingNameBytes))
        : null,
    backingFormat: backingFormat && text(backingFormat),
    dataFileName: dataFile && text(dataFile),
    encryption: parseEncryption(encryption, header),
    featureName: (kind, bit) => (features ? findFeature(features, kind, bit) : undefined),
  };
}

function parseEncryption(data: Uint8Array | null, header: Header): EncryptionPlace | null {
  if (header.crypt === "none") {
    if (data) throw invalid("there is an encryption header, but crypt_method is 0");
    return null;
  }
  if (data?.length !== 16) {
    throw invalid(
      `crypt_method says LUKS, but its extension has ${data?.length ?? "no"} bytes, not 16`,
    );
  }
  const offset = readU64(data, 0, "the encryption header's offset");
  const bytes = readU64(data, 8, "the encryption header's length");
  if (offset === 0 || offset % header.layout.clusterBytes !== 0) {
    throw invalid(`the encryption header is at ${offset}, which is no cluster for it`);
  }
  return { offset, bytes };
}

function* walk(cluster: Uint8Array, start: number, end: number): Generator<Extension> {
  // An image without extensions may end right after its header.
  for (let at = start; at + 8 <= Math.min(end, cluster.length); ) {
    const type = readU32(cluster, at);
    const bytes = readU32(cluster, at + 4);
    const shown = `header extension 0x${type.toString(16)}`;
    if (bytes > end - at - 8) throw invalid(`${shown} has ${bytes} bytes; ${end - at - 8} are`);
    // Its length means nothing, but QEMU opens no image in which it is too large.
    if (type === ExtensionType.end) return;
    if (at + 8 + bytes > cluster.length) throw invalid(`the file ends within ${shown}`);
    yield { type, data: cluster.slice(at + 8, at + 8 + bytes) };
    at += 8 + alignUp(bytes, 8);
  }
}

function findFeature(table: Uint8Array, kind: number, bit: number): string | undefined {
  for (let at = 0; at + FEATURE_RECORD_BYTES <= table.length; at += FEATURE_RECORD_BYTES) {
    if (table[at] !== kind || table[at + 1] !== bit) continue;
    const name = table.subarray(at + 2, at + FEATURE_RECORD_BYTES);
    const length = name.indexOf(0);
    return text(length < 0 ? name : name.subarray(0, length));
  }
  return undefined;
}

function text(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

/**
 * The bytes from the end of the header on: extensions, the end mark, the backing file's name.
 *
 * @param headerBytes where they will be put
 * @returns `nameOffset` 0 if there is no name
 * @throws BlockError EINVAL if it does not fit the first cluster
 */
export function serializeTail(
  extensions: readonly Extension[],
  backingName: string | null,
  headerBytes: number,
  clusterBytes: number,
): { bytes: Uint8Array; nameOffset: number; nameBytes: number } {
  const name = backingName === null ? new Uint8Array(0) : new TextEncoder().encode(backingName);
  let length = 8;
  for (const { data } of extensions) length += 8 + alignUp(data.length, 8);
  const nameOffset = headerBytes + length;
  if (nameOffset + name.length > clusterBytes) {
    throw new BlockError(
      "EINVAL",
      `The header with its names has ${nameOffset + name.length} bytes; a cluster of this image ` +
        `has ${clusterBytes}. Give a shorter backing file name or larger clusters`,
    );
  }
  const bytes = new Uint8Array(length + name.length);
  let at = 0;
  for (const { type, data } of extensions) {
    writeU32(bytes, at, type);
    writeU32(bytes, at + 4, data.length);
    bytes.set(data, at + 8);
    at += 8 + alignUp(data.length, 8);
  }
  bytes.set(name, length);
  return { bytes, nameOffset: backingName === null ? 0 : nameOffset, nameBytes: name.length };
}

/** A string as an extension, without an end mark. */
export function textExtension(type: number, value: string): Extension {
  return { type, data: new TextEncoder().encode(value) };
}

/** @throws BlockError EINVAL for a name that no driver has; QEMU would not open the image */
export function backingFormatExtension(format: string): Extension {
  const extension = textExtension(ExtensionType.backingFormat, format);
  if (extension.data.length <= FORMAT_BYTES_MAX) return extension;
  throw new BlockError(
    "EINVAL",
    `A backing file's format has at most ${FORMAT_BYTES_MAX} bytes, not ${extension.data.length}`,
  );
}

export function encryptionExtension({ offset, bytes }: EncryptionPlace): Extension {
  const data = new Uint8Array(16);
  writeU64(data, 0, offset);
  writeU64(data, 8, bytes);
  return { type: ExtensionType.encryption, data };
}

const FEATURE_NAMES: readonly (readonly [number, number, string])[] = [
  [0, 0, "dirty bit"],
  [0, 1, "corrupt bit"],
  [0, 2, "external data file"],
  [0, 3, "compression type"],
  [0, 4, "extended L2 entries"],
  [1, 0, "lazy refcounts"],
  [2, 0, "bitmaps"],
  [2, 1, "raw external data"],
];

/** The table of feature names that QEMU writes into images. */
export function featureNamesExtension(): Extension {
  const data = new Uint8Array(FEATURE_NAMES.length * FEATURE_RECORD_BYTES);
  for (const [i, [kind, bit, name]] of FEATURE_NAMES.entries()) {
    const record = data.subarray(i * FEATURE_RECORD_BYTES, (i + 1) * FEATURE_RECORD_BYTES);
    record.set([kind, bit]);
    new TextEncoder().encodeInto(name, record.subarray(2));
  }
  return { type: ExtensionType.featureNames, data };
}
