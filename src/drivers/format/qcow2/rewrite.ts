/**
 * Other names in the header, with everything in the first cluster that we do not know kept as it is.
 *
 *     │ sector 0                           │ sector 1, 2, …                        │
 *     │ header │ extensions │ 0 │ 0 │                    │ old name │ new name     │
 *          └── name's offset and length ─────────────────────┴──▶ ────┘
 *
 * A crash may tear a write between sectors, and an overlay with half a name has lost its disk. So a
 * new name goes where nothing is, is flushed, and then one sector switches to it.
 */

import { alignUp, writeU32, writeU64 } from "../../../base/bytes.ts";
import { BlockError } from "../../../base/errors.ts";
import {
  type Extension,
  ExtensionType,
  parseExtensions,
  serializeTail,
  textExtension,
} from "./extensions.ts";
import { parseHeader } from "./header.ts";
import type { Image } from "./image.ts";
import { decisive } from "./refcount-grow.ts";

/** A crash while the header is written must not tear what decides where the tables are. */
const SECTOR_BYTES = 512;
const NAME_BYTES_MAX = 1023;

/**
 * Records another backing file, or none. Caller holds the mutex; no request is in flight.
 *
 * @param format recorded if not null
 * @throws BlockError EINVAL if the name does not fit; nothing is written then
 */
export async function changeBackingFile(
  image: Image,
  name: string | null,
  format: string | null,
): Promise<void> {
  if (image.isRawExternal && name !== null) {
    throw new BlockError(
      "EINVAL",
      "An image whose data file is a raw image of its own cannot have a backing file",
    );
  }
  if (name !== null && new TextEncoder().encode(name).length > NAME_BYTES_MAX) {
    throw new BlockError("EINVAL", `A backing file name has at most ${NAME_BYTES_MAX} bytes`);
  }
  const list: Extension[] = image.extensions.list.filter(
    ({ type }) => type !== ExtensionType.backingFormat,
  );
  if (name !== null && format !== null) {
    list.unshift(textExtension(ExtensionType.backingFormat, format));
  }
  if (await switchHead(image, list, new TextEncoder().encode(name ?? ""))) return;
  await rewriteNames(image, list, name);
}

/**
 * Records another name of the external data file, or none. A label: the data stays where it is. Caller
 * holds the mutex; no request is in flight.
 *
 * @param name "" for none
 * @throws BlockError EINVAL if the name does not fit; nothing is written then
 */
export async function changeDataFileName(image: Image, name: string): Promise<void> {
  if (name === (image.extensions.dataFileName ?? "")) return;
  const { list } = image.extensions;
  const others = list.filter(({ type }) => type !== ExtensionType.dataFile);
  const named = name === "" ? others : [textExtension(ExtensionType.dataFile, name), ...others];
  if (await switchHead(image, named, "kept")) return;
  await rewriteNames(image, named, image.extensions.backingName);
}

/**
 * Other extensions, and another name, by one write of the first sector: a crash leaves what was or
 * what is to be. Caller holds the mutex.
 *
 * @param name empty for none; "kept" for the one there is
 * @returns false if there is no room to do it so; nothing is written then
 * @throws BlockError what the file throws
 */
export async function switchHead(
  image: Image,
  list: readonly Extension[],
  name: Uint8Array | "kept",
): Promise<boolean> {
  const way = switchOf(image, list, name);
  if (way === null) return false;
  await switchNames(image, way, name);
  return true;
}

/** Whether switchHead() would. */
export function canSwitchHead(image: Image, list: readonly Extension[]): boolean {
  return switchOf(image, list, "kept") !== null;
}

interface Switch {
  readonly list: readonly Extension[];
  readonly nameAt: number;
}

function switchOf(
  image: Image,
  list: readonly Extension[],
  name: Uint8Array | "kept",
): Switch | null {
  // The names of features are a courtesy: left out where they would not fit the sector.
  const plain = list.filter(({ type }) => type !== ExtensionType.featureNames);
  const fitting = [list, plain].find((one) => isSwitchedInOne(image, one));
  if (!fitting) return null;
  const { headerBytes, backingNameOffset, backingNameBytes } = image.header;
  const end = headerBytes + extensionBytes(image, fitting).length;
  if (name === "kept" && backingNameOffset >= end) {
    return { list: fitting, nameAt: backingNameOffset };
  }
  const nameAt = placeFor(image, fitting, name === "kept" ? backingNameBytes : name.length);
  return nameAt === undefined ? null : { list: fitting, nameAt };
}

/** Whether these extensions differ from those there are in the first sector only. */
function isSwitchedInOne(image: Image, list: readonly Extension[]): boolean {
  const { headerBytes, backingNameOffset } = image.header;
  const now = extensionBytes(image, image.extensions.list);
  const next = extensionBytes(image, list);
  const within = SECTOR_BYTES - headerBytes;
  if (next.length <= within) return true;
  // The name may stand where the end mark would be.
  if (backingNameOffset > 0 && headerBytes + now.length > backingNameOffset) return false;
  return next.length === now.length && next.every((byte, i) => i < within || byte === now[i]);
}

/** With the end mark. */
function extensionBytes({ header, layout }: Image, list: readonly Extension[]): Uint8Array {
  return serializeTail(list, null, header.headerBytes, layout.clusterBytes).bytes;
}

/** Where a name overwrites nothing that still counts; undefined if there is no such place. */
function placeFor(image: Image, list: readonly Extension[], bytes: number): number | undefined {
  if (bytes === 0) return 0;
  const { headerBytes, backingNameOffset, backingNameBytes } = image.header;
  const end = headerBytes + extensionBytes(image, list).length;
  if (end + bytes <= SECTOR_BYTES) return end;
  const oldEnd = headerBytes + extensionBytes(image, image.extensions.list).length;
  const first = alignUp(Math.max(end, oldEnd, SECTOR_BYTES), 8);
  const afterOld = alignUp(Math.max(first, backingNameOffset + backingNameBytes), 8);
  const at = first + bytes <= backingNameOffset ? first : afterOld;
  return at + bytes <= image.layout.clusterBytes ? at : undefined;
}

/** The name first, then the sector that leads to it. Caller holds the mutex. */
async function switchNames(
  image: Image,
  { list, nameAt }: Switch,
  name: Uint8Array | "kept",
): Promise<void> {
  const { layout, file } = image;
  const { headerBytes, backingNameOffset: oldNameAt, backingNameBytes } = image.header;
  await image.beginChange();
  await image.epoch.run();

  const nameBytes = name === "kept" ? backingNameBytes : name.length;
  const end = Math.max(
    SECTOR_BYTES,
    nameAt + nameBytes,
    Math.min(layout.clusterBytes, file.length),
  );
  const bytes = new Uint8Array(end);
  await file.read(bytes, 0);
  // As bytes: a name that is no UTF-8 stays the same too.
  const text = name === "kept" ? bytes.slice(oldNameAt, oldNameAt + nameBytes) : name;
  const tail = extensionBytes(image, list);
  bytes.fill(0, headerBytes, SECTOR_BYTES);
  bytes.set(tail, headerBytes);
  bytes.set(text, nameAt);
  writeU64(bytes, 8, nameAt);
  writeU32(bytes, 16, text.length);
  // What will be read of it, before it is there to be read.
  const header = parseHeader(bytes);
  const extensions = parseExtensions(bytes, header);
  if (nameAt >= SECTOR_BYTES && !(name === "kept" && nameAt === oldNameAt)) {
    await file.write(text, nameAt);
    await file.flush();
  }
  await decisive(image, bytes.subarray(0, SECTOR_BYTES), 0);
  image.header = header;
  image.extensions = extensions;
}

/**
 * Writes the first cluster with these extensions and this backing file's name. Caller holds the
 * mutex; no request is in flight.
 *
 * @throws BlockError EINVAL if they do not fit; nothing is written then
 */
async function rewriteNames(
  image: Image,
  list: readonly Extension[],
  name: string | null,
): Promise<void> {
  const { layout, file } = image;
  const { headerBytes } = image.header;
  const tail = serializeTail(list, name, headerBytes, layout.clusterBytes);
  // What was written so far must not depend on a header that a crash tears.
  await image.beginChange();
  await image.epoch.run();

  const used = Math.min(layout.clusterBytes, file.length);
  const old = new Uint8Array(used);
  await file.read(old, 0);
  const end = Math.max(headerBytes + tail.bytes.length, endOfNames(image));
  const bytes = new Uint8Array(Math.min(layout.clusterBytes, alignUp(end, SECTOR_BYTES)));
  bytes.set(old.subarray(0, headerBytes));
  writeU64(bytes, 8, tail.nameOffset);
  writeU32(bytes, 16, tail.nameBytes);
  bytes.set(tail.bytes, headerBytes);
  const header = parseHeader(bytes);
  const extensions = parseExtensions(bytes, header);
  await decisive(image, bytes, 0);
  image.header = header;
  image.extensions = extensions;
}

/** Where the extensions and the backing file's name end, as they are in the file now. */
export function endOfNames({ header, extensions }: Image): number {
  let end = header.headerBytes + 8;
  for (const { data } of extensions.list) end += 8 + alignUp(data.length, 8);
  return Math.max(end, header.backingNameOffset + header.backingNameBytes);
}
