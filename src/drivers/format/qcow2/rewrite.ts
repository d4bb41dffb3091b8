/**
 * Other names in the header, with everything in the first cluster that we do not know kept as it is.
 *
 *     │ sector 0                           │ sector 1, 2, …                        │
 *     │ header │ extensions │ 0 │ 0 │                    │ old name │ new name     │
 *          └── name's offset and length ─────────────────────┴──▶ ────┘
 *
 * A crash may tear a write between sectors, and an overlay with half a name has lost its disk. So a
 * new name goes where nothing is, is flushed, and then one sector switches to it; what of the name
 * lies in that sector goes with it. Where there is no such place the old name is moved first, in the same
 * way. Where that does not make room either nothing is written.
 */

import { alignUp, writeU32, writeU64 } from "../../../base/bytes.ts";
import { BlockError } from "../../../base/errors.ts";
import {
  backingFormatExtension,
  type Extension,
  ExtensionType,
  parseExtensions,
  serializeTail,
  textExtension,
} from "./extensions.ts";
import { parseHeader } from "./header.ts";
import type { Image } from "./image.ts";
import { SECTOR_BYTES } from "./layout.ts";
import { decisive } from "./refcount-grow.ts";

const NAME_BYTES_MAX = 1023;

/**
 * Records another backing file, or none. Caller holds the mutex; no request is in flight.
 *
 * @param format recorded if not null
 * @throws BlockError EINVAL for a name that does not fit, ENOSPC where a crash could leave neither the
 *   old name nor the new one; nothing is written then
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
  const list = withBackingFormat(image.extensions.list, name === null ? null : format);
  await rename(image, list, new TextEncoder().encode(name ?? ""));
}

/** In its old place, so that what stands behind it stays where it is. */
function withBackingFormat(list: readonly Extension[], format: string | null): Extension[] {
  const isFormat = ({ type }: Extension) => type === ExtensionType.backingFormat;
  const others = list.filter((extension) => !isFormat(extension));
  if (format === null) return others;
  const at = Math.max(0, list.findIndex(isFormat));
  return others.toSpliced(at, 0, backingFormatExtension(format));
}

/**
 * Records another name of the external data file, or none. A label: the data stays where it is. Caller
 * holds the mutex; no request is in flight.
 *
 * @param name "" for none
 * @throws BlockError as checkDataFileName(); nothing is written then
 */
export async function changeDataFileName(image: Image, name: string): Promise<void> {
  if (name === (image.extensions.dataFileName ?? "")) return;
  await rename(image, withDataFileName(image, name), "kept");
}

/** @throws BlockError EINVAL, ENOSPC if changeDataFileName() would refuse it */
export function checkDataFileName(image: Image, name: string): void {
  if (name === (image.extensions.dataFileName ?? "")) return;
  switchesTo(image, withDataFileName(image, name), "kept");
}

function withDataFileName({ extensions }: Image, name: string): Extension[] {
  const others = extensions.list.filter(({ type }) => type !== ExtensionType.dataFile);
  return name === "" ? others : [textExtension(ExtensionType.dataFile, name), ...others];
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
  const way = switchOf(headOf(image), list, name);
  if (way === null) return false;
  await switchNames(image, way, name);
  return true;
}

/** Whether switchHead() would. */
export function canSwitchHead(image: Image, list: readonly Extension[]): boolean {
  return switchOf(headOf(image), list, "kept") !== null;
}

interface Switch {
  readonly list: readonly Extension[];
  readonly nameAt: number;
}

/** What the first cluster holds, or would. */
interface Head {
  readonly headerBytes: number;
  readonly clusterBytes: number;
  readonly list: readonly Extension[];
  readonly nameAt: number;
  readonly nameBytes: number;
}

function headOf({ header, layout, extensions }: Image): Head {
  return {
    headerBytes: header.headerBytes,
    clusterBytes: layout.clusterBytes,
    list: extensions.list,
    nameAt: header.backingNameOffset,
    nameBytes: header.backingNameBytes,
  };
}

function switchOf(
  head: Head,
  list: readonly Extension[],
  name: Uint8Array | "kept",
): Switch | null {
  for (const fitting of [list, withoutCourtesy(list)]) {
    if (!isSwitchedInOne(head, fitting)) continue;
    if (name === "kept" && head.nameAt >= endOf(head, fitting)) {
      return { list: fitting, nameAt: head.nameAt };
    }
    const nameAt = placeFor(head, fitting, name === "kept" ? head.nameBytes : name.length);
    if (nameAt !== undefined) return { list: fitting, nameAt };
  }
  return null;
}

/** The names of features are left out where they would be in the way. */
function withoutCourtesy(list: readonly Extension[]): readonly Extension[] {
  return list.filter(({ type }) => type !== ExtensionType.featureNames);
}

/** Whether these extensions differ from those there are in the first sector only. */
function isSwitchedInOne(head: Head, list: readonly Extension[]): boolean {
  const { headerBytes, nameAt } = head;
  const now = extensionBytes(head, head.list);
  const next = extensionBytes(head, list);
  const within = SECTOR_BYTES - headerBytes;
  if (next.length <= within) return true;
  // The name may stand where the end mark would be.
  if (nameAt > 0 && headerBytes + now.length > nameAt) return false;
  return next.length === now.length && next.every((byte, i) => i < within || byte === now[i]);
}

/** With the end mark. */
function extensionBytes(head: Head, list: readonly Extension[]): Uint8Array {
  return serializeTail(list, null, head.headerBytes, head.clusterBytes).bytes;
}

function endOf(head: Head, list: readonly Extension[]): number {
  return head.headerBytes + extensionBytes(head, list).length;
}

/** Where a name overwrites nothing that still counts; undefined if there is no such place. */
function placeFor(head: Head, list: readonly Extension[], bytes: number): number | undefined {
  if (bytes === 0) return 0;
  const end = endOf(head, list);
  const oldEnd = endOf(head, head.list);
  const behind = Math.max(end, oldEnd);
  const places = [end, behind, Math.max(behind, head.nameAt + head.nameBytes)];
  return places.find((at) => isFree(head, at, bytes));
}

/** Whether nothing counts there now, but in the first sector, which is switched as a whole. */
function isFree(head: Head, at: number, bytes: number): boolean {
  const { clusterBytes, nameAt, nameBytes } = head;
  const counts = [
    { from: SECTOR_BYTES, to: endOf(head, head.list) },
    { from: Math.max(SECTOR_BYTES, nameAt), to: nameAt + nameBytes },
  ];
  const isClear = ({ from, to }: { from: number; to: number }) =>
    from >= to || at + bytes <= from || Math.max(at, SECTOR_BYTES) >= to;
  return at + bytes <= clusterBytes && counts.every(isClear);
}

/** Caller holds the mutex; no request is in flight. @throws as switchesTo() */
async function rename(
  image: Image,
  list: readonly Extension[],
  name: Uint8Array | "kept",
): Promise<void> {
  for (const step of switchesTo(image, list, name)) await switchNames(image, step, step.name);
}

interface Step extends Switch {
  readonly name: Uint8Array | "kept";
}

/**
 * One switch after another: each leaves an image that is as before, the last one what is wanted.
 *
 * @throws BlockError EINVAL if it does not fit the first cluster, ENOSPC if not next to what is there
 */
function switchesTo(
  image: Image,
  list: readonly Extension[],
  name: Uint8Array | "kept",
): readonly Step[] {
  const head = headOf(image);
  const direct = switchOf(head, list, name);
  if (direct) return [{ ...direct, name }];
  const old = withoutCourtesy(head.list);
  const moved = isSwitchedInOne(head, old) ? old : head.list;
  const first = endOf(head, moved);
  for (const nameAt of [first, head.clusterBytes - head.nameBytes]) {
    if (nameAt < first || !isFree(head, nameAt, head.nameBytes)) continue;
    const last = switchOf({ ...head, list: moved, nameAt }, list, name);
    if (last)
      return [
        { list: moved, nameAt, name: "kept" },
        { ...last, name },
      ];
  }
  const text = name === "kept" ? image.extensions.backingName : new TextDecoder().decode(name);
  serializeTail(withoutCourtesy(list), text, head.headerBytes, head.clusterBytes);
  throw new BlockError(
    "ENOSPC",
    `The first cluster of this image has ${head.clusterBytes} bytes, too few for the new name next ` +
      "to what is there; a crash could leave neither. Give a shorter name, or convert the image to " +
      "larger clusters",
  );
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
  const tail = extensionBytes(headOf(image), list);
  bytes.fill(0, headerBytes, SECTOR_BYTES);
  bytes.set(tail, headerBytes);
  bytes.set(text, nameAt);
  writeU64(bytes, 8, nameAt);
  writeU32(bytes, 16, text.length);
  // What will be read of it, before it is there to be read.
  const header = parseHeader(bytes);
  const extensions = parseExtensions(bytes, header);
  const behind = Math.max(nameAt, SECTOR_BYTES);
  const isThere = name === "kept" && nameAt === oldNameAt;
  if (nameAt + text.length > behind && !isThere) {
    await file.write(bytes.subarray(behind, nameAt + text.length), behind);
    await file.flush();
  }
  await decisive(image, bytes.subarray(0, SECTOR_BYTES), 0);
  image.header = header;
  image.extensions = extensions;
}

/** Where the extensions and the backing file's name end, as they are in the file now. */
export function endOfNames({ header, extensions }: Image): number {
  let end = header.headerBytes + 8;
  for (const { data } of extensions.list) end += 8 + alignUp(data.length, 8);
  return Math.max(end, header.backingNameOffset + header.backingNameBytes);
}
