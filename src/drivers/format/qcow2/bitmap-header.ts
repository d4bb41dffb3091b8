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
 * Where that is not possible the first sector is written anew in one piece, with all extensions.
 */

import { alignUp, writeU32, writeU64 } from "../../../base/bytes.ts";
import { BlockError } from "../../../base/errors.ts";
import { type Directory, EXTENSION_BYTES } from "./bitmap-directory.ts";
import { type Extension, ExtensionType, parseExtensions } from "./extensions.ts";
import { AT, Autoclear, type Header, parseHeader } from "./header.ts";
import type { Image } from "./image.ts";
import { SECTOR_BYTES } from "./layout.ts";
import { decisive } from "./refcount-grow.ts";
import { canSwitchHead, switchHead } from "./rewrite.ts";

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
  } else await add(image, place, directory);
  await readAgain(image);
  if (directory) await setBit(image, true);
  const { guard } = image;
  guard.setArea("bitmap directory", directory?.offset ?? 0, directory?.bytes ?? 0);
}

/** Whether the extension is there, or would fit. */
export function hasRoomForBitmaps(image: Image): boolean {
  const { at, extension } = placeOf(image);
  if (extension?.data.length === EXTENSION_BYTES) return true;
  if (extension === null && canAppend(image, at)) return true;
  return canSwitchHead(image, withBitmaps(image, new Uint8Array(EXTENSION_BYTES)));
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
  await decisive(image, payload, at);
}

async function remove(image: Image, { at, extension, isLast }: Place): Promise<void> {
  await setBit(image, false);
  if (extension === null) return;
  if (isLast) await decisive(image, new Uint8Array(MARK_BYTES), at);
  // Where what follows cannot be moved it stays: without the bit it means nothing.
  else await switchHead(image, others(image), "kept");
}

async function add(image: Image, { at, extension }: Place, directory: Directory): Promise<void> {
  await setBit(image, false);
  const payload = payloadOf(directory);
  if (extension === null && canAppend(image, at)) await append(image, at, payload);
  else if (!(await switchHead(image, withBitmaps(image, payload), "kept"))) {
    throw new BlockError("ENOSPC", "The image's first cluster has no room for bitmaps");
  }
}

/** Where the end mark is now, with the old one there until the new one counts. */
async function append(image: Image, at: number, payload: Uint8Array): Promise<void> {
  const { header, file } = image;
  if (isNameInTheWay(header, at)) await moveName(image, newNameAt(header, at));
  const rest = new Uint8Array(EXTENSION_BYTES + MARK_BYTES);
  rest.set(payload);
  await file.write(rest, at + MARK_BYTES);
  await file.flush();
  const mark = new Uint8Array(MARK_BYTES);
  writeU32(mark, 0, ExtensionType.bitmaps);
  writeU32(mark, 4, EXTENSION_BYTES);
  await decisive(image, mark, at);
}

/** Whether there is room behind the last extension, or behind a name that is in the way there. */
function canAppend({ header, layout }: Image, at: number): boolean {
  const { backingNameOffset: nameAt, backingNameBytes } = header;
  if (!isNameInTheWay(header, at)) return endOfAppended(at) <= layout.clusterBytes;
  // A name may stand where the end mark would be: moved away, it would be taken for extensions.
  const hasEndMark = nameAt >= at + MARK_BYTES;
  return hasEndMark && newNameAt(header, at) + backingNameBytes <= layout.clusterBytes;
}

function isNameInTheWay({ backingNameOffset }: Header, at: number): boolean {
  return backingNameOffset > 0 && backingNameOffset < endOfAppended(at);
}

function newNameAt({ backingNameOffset, backingNameBytes }: Header, at: number): number {
  return alignUp(Math.max(endOfAppended(at), backingNameOffset + backingNameBytes), 8);
}

/** With an end mark. */
function endOfAppended(at: number): number {
  return at + MARK_BYTES + EXTENSION_BYTES + MARK_BYTES;
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
  await decisive(image, field, AT.backingName);
  image.header = { ...header, backingNameOffset: to };
}

function others({ extensions }: Image): Extension[] {
  return extensions.list.filter(({ type }) => type !== ExtensionType.bitmaps);
}

function withBitmaps(image: Image, data: Uint8Array): Extension[] {
  return [...others(image), { type: ExtensionType.bitmaps, data }];
}

async function setBit(image: Image, on: boolean): Promise<void> {
  const { autoclear } = image.header;
  const lo = (on ? autoclear.lo | Autoclear.bitmaps : autoclear.lo & ~Autoclear.bitmaps) >>> 0;
  if (lo === autoclear.lo) return;
  const word = new Uint8Array(8);
  writeU32(word, 0, autoclear.hi);
  writeU32(word, 4, lo);
  await decisive(image, word, AT.autoclear);
  image.header = { ...image.header, autoclear: { hi: autoclear.hi, lo } };
}

async function readAgain(image: Image): Promise<void> {
  const { file, layout } = image;
  const head = new Uint8Array(Math.min(layout.clusterBytes, file.length));
  try {
    await file.read(head, 0);
  } catch (error) {
    // What the file now has is not what is known of it.
    image.isCorrupt = true;
    throw error;
  }
  image.header = parseHeader(head);
  image.extensions = parseExtensions(head, image.header);
}
