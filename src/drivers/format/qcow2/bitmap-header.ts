/**
 * The header's way to the bitmaps: an extension with the directory's place, and an autoclear bit
 * without which nobody looks at it. Changed so that a crash tears nothing else:
 *
 *     extension there    its 24 bytes are written anew: in one sector as they are, else with the
 *                        bit off meanwhile
 *     none yet           it goes where the end mark was, which is written last of it; a backing
 *                        file's name that is in the way moves first
 *     none any more      the bit goes off, an end mark takes the extension's place
 *
 * Where that is not possible the whole first cluster is written in one piece.
 */

import { alignUp, writeU32, writeU64 } from "../../../base/bytes.ts";
import { type Directory, EXTENSION_BYTES } from "./bitmap-directory.ts";
import { type Extension, ExtensionType, parseExtensions } from "./extensions.ts";
import { AT, Autoclear, parseHeader } from "./header.ts";
import type { Image } from "./image.ts";
import { SECTOR_BYTES } from "./layout.ts";
import { decisive } from "./refcount-grow.ts";
import { rewriteNames } from "./rewrite.ts";

/** Type and length before an extension's data; also the end mark. */
const MARK_BYTES = 8;

/**
 * Leads to another directory, or to none. What it leads to is on disk. Caller holds the mutex.
 *
 * @throws BlockError EINVAL if there is no room; what the file throws, and then nothing more is
 *   written to the image
 */
export async function switchDirectory(image: Image, directory: Directory | null): Promise<void> {
  const place = placeOf(image);
  if (directory === null) await remove(image, place);
  else if (place.extension?.data.length === EXTENSION_BYTES) {
    await replace(image, place.at + MARK_BYTES, payloadOf(directory));
  } else await add(image, place.at, directory);
  await readAgain(image);
  const { guard } = image;
  guard.setArea("bitmap directory", directory?.offset ?? 0, directory?.bytes ?? 0);
}

/** Whether the extension is there, or would fit. */
export function hasRoomForBitmaps(image: Image): boolean {
  const { header, layout } = image;
  const place = placeOf(image);
  if (place.extension) return true;
  const end = place.at + MARK_BYTES + EXTENSION_BYTES + MARK_BYTES;
  return end + (header.backingNameOffset > 0 ? header.backingNameBytes : 0) <= layout.clusterBytes;
}

interface Place {
  /** Of the bitmaps extension; of the end mark if there is none. */
  readonly at: number;
  readonly extension: Extension | null;
  readonly isLast: boolean;
}

function placeOf({ header, extensions }: Image): Place {
  const { list } = extensions;
  let at = header.headerBytes;
  for (const [i, extension] of list.entries()) {
    if (extension.type === ExtensionType.bitmaps) {
      return { at, extension, isLast: i === list.length - 1 };
    }
    at += MARK_BYTES + alignUp(extension.data.length, 8);
  }
  return { at, extension: null, isLast: true };
}

function payloadOf({ count, bytes, offset }: Directory): Uint8Array {
  const data = new Uint8Array(EXTENSION_BYTES);
  writeU32(data, 0, count);
  writeU64(data, 8, bytes);
  writeU64(data, 16, offset);
  return data;
}

async function replace(image: Image, at: number, payload: Uint8Array): Promise<void> {
  const inOneSector = at % SECTOR_BYTES <= SECTOR_BYTES - payload.length;
  if (!inOneSector) await setBit(image, false);
  await decisive(image, () => image.file.write(payload, at));
  await setBit(image, true);
}

async function remove(image: Image, { at, extension, isLast }: Place): Promise<void> {
  await setBit(image, false);
  if (extension === null) return;
  if (isLast) await decisive(image, () => image.file.write(new Uint8Array(MARK_BYTES), at));
  else await rewriteNames(image, others(image), image.extensions.backingName);
}

async function add(image: Image, at: number, directory: Directory): Promise<void> {
  const { header, layout, file } = image;
  await setBit(image, false);
  const end = at + MARK_BYTES + EXTENSION_BYTES + MARK_BYTES;
  const { backingNameOffset: nameAt, backingNameBytes: nameBytes } = header;
  const isInTheWay = nameAt > 0 && nameAt < end;
  const newNameAt = alignUp(Math.max(end, nameAt + nameBytes), 8);
  const fits = (isInTheWay ? newNameAt + nameBytes : end) <= layout.clusterBytes;
  if (!fits || placeOf(image).extension !== null) {
    const extension = { type: ExtensionType.bitmaps, data: payloadOf(directory) };
    await rewriteNames(image, [...others(image), extension], image.extensions.backingName);
  } else {
    if (isInTheWay) await moveName(image, newNameAt);
    const rest = new Uint8Array(EXTENSION_BYTES + MARK_BYTES);
    rest.set(payloadOf(directory));
    await decisive(image, () => file.write(rest, at + MARK_BYTES));
    const mark = new Uint8Array(MARK_BYTES);
    writeU32(mark, 0, ExtensionType.bitmaps);
    writeU32(mark, 4, EXTENSION_BYTES);
    await decisive(image, () => file.write(mark, at));
  }
  await setBit(image, true);
}

/** A copy of the name in its new place first, then the one field that leads to it. */
async function moveName(image: Image, to: number): Promise<void> {
  const { file, header } = image;
  const name = new Uint8Array(header.backingNameBytes);
  await file.read(name, header.backingNameOffset);
  await file.write(name, to);
  await file.flush();
  const field = new Uint8Array(8);
  writeU64(field, 0, to);
  await decisive(image, () => file.write(field, AT.backingName));
  image.header = { ...header, backingNameOffset: to };
}

function others({ extensions }: Image): Extension[] {
  return extensions.list.filter(({ type }) => type !== ExtensionType.bitmaps);
}

async function setBit(image: Image, on: boolean): Promise<void> {
  const { autoclear } = image.header;
  const lo = (on ? autoclear.lo | Autoclear.bitmaps : autoclear.lo & ~Autoclear.bitmaps) >>> 0;
  if (lo !== autoclear.lo) await image.writeAutoclear({ hi: autoclear.hi, lo });
}

async function readAgain(image: Image): Promise<void> {
  const { file, layout } = image;
  const head = new Uint8Array(Math.min(layout.clusterBytes, file.length));
  await file.read(head, 0);
  image.header = parseHeader(head);
  image.extensions = parseExtensions(head, image.header);
}
