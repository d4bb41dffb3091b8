/**
 * Bitmaps, as far as they must be known to leave them there: before the first write each is marked
 * in use in the directory, as QEMU does while it has an image open, so that nobody relies on one
 * that lacks our writes, and its clusters stay counted.
 *
 *     0 table offset  8 table size  12 flags  16 type  17 granularity  18 name length  20 extra length
 */

import { alignUp, readU16, readU32, readU64, writeU32 } from "../../../base/bytes.ts";
import { ExtensionType } from "./extensions.ts";
import type { Image } from "./image.ts";

const FIXED_BYTES = 24;
const FLAGS_AT = 12;
const IN_USE = 1;
const BITMAPS_MAX = 65535;
/** QEMU takes up to 64 MiB; names and extra data of real ones are short. */
const DIRECTORY_BYTES_MAX = 4 * 1024 * 1024;

/** @returns false if the directory makes no sense: then nothing has been written */
export async function markBitmapsInUse(image: Image): Promise<boolean> {
  const { extensions, file, guard, layout } = image;
  const data = extensions.list.find(({ type }) => type === ExtensionType.bitmaps)?.data;
  if (!data || data.length < 24) return false;
  const count = readU32(data, 0);
  const bytes = readU64(data, 8, "bitmap_directory_size");
  const offset = readU64(data, 16, "bitmap_directory_offset");
  const whole = alignUp(bytes, layout.clusterBytes);
  if (count > BITMAPS_MAX || bytes > DIRECTORY_BYTES_MAX || offset % layout.clusterBytes !== 0)
    return false;
  if (offset + bytes > file.length || guard.find(offset, whole) !== null) return false;
  const directory = new Uint8Array(bytes);
  await file.read(directory, offset);
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + FIXED_BYTES > bytes) return false;
    writeU32(directory, at + FLAGS_AT, (readU32(directory, at + FLAGS_AT) | IN_USE) >>> 0);
    at += alignUp(FIXED_BYTES + readU32(directory, at + 20) + readU16(directory, at + 18), 8);
  }
  if (at !== bytes) return false;
  // Only one bit of each entry changes: however a crash tears it, every entry makes sense.
  if (bytes > 0) await file.write(directory, offset);
  return true;
}
