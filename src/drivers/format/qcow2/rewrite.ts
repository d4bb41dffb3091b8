/**
 * Other names in the header: the first cluster is written anew, with everything in it that we do
 * not know kept as it is.
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
  await rewriteNames(image, list, name);
}

/**
 * Writes the first cluster with these extensions and this backing file's name. Caller holds the
 * mutex; no request is in flight.
 *
 * @throws BlockError EINVAL if they do not fit; nothing is written then
 */
export async function rewriteNames(
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
  await decisive(image, () => file.write(bytes, 0));
  image.header = header;
  image.extensions = extensions;
}

/** Where the extensions and the backing file's name end, as they are in the file now. */
export function endOfNames({ header, extensions }: Image): number {
  let end = header.headerBytes + 8;
  for (const { data } of extensions.list) end += 8 + alignUp(data.length, 8);
  return Math.max(end, header.backingNameOffset + header.backingNameBytes);
}
