/**
 * What an image holds past its disk's end, and how it goes away:
 *
 *     │ … whole clusters │ last cluster │ cut off: their tables' entries, then whole tables │
 *                              ▲ end
 *                              └ clearTail()   └─────────── dropPastEnd() ──────────────┘
 *
 * It comes from disks that were larger, from a resize that a crash cut short, or from a snapshot with a
 * machine's state that somebody applied. Nobody reads it; but a disk that grows must not show it.
 */

import { alignUp, readU32, writeU32 } from "../../../base/bytes.ts";
import { assert } from "../../../base/errors.ts";
import { allocateLocked, unreference } from "./allocate.ts";
import { freePacked, readEncoded } from "./compressed.ts";
import type { Image } from "./image.ts";
import { decodeEntry, entryAt, hostOf, type L2Spot, l2OffsetOf, mapRun, withL2 } from "./l2.ts";
import { ensureL2 } from "./l2-table.ts";
import { l1EntriesFor, readPackedPlace, writeL2Entry } from "./layout.ts";

/**
 * Gives up all clusters past the disk's end. Caller holds the mutex and has called beginChange(); what
 * was given up is free after the next epoch.
 *
 * @throws BlockError what reading tables throws; what was not reached stays where it is
 */
export async function dropPastEnd(image: Image): Promise<void> {
  const { layout, header, l1 } = image;
  const tables = l1EntriesFor(layout, header.size);
  // The last table that the disk needs is emptied from the disk's end on.
  const end = Math.min(tables, l1.bytes / 8) * layout.l2CoverBytes;
  for (let at = alignUp(header.size, layout.clusterBytes); at < end; ) {
    at += await emptyEntries(image, at);
  }
  for (let index = tables; index < l1.bytes / 8; index++) await dropTable(image, index);
}

/** @returns guest bytes from `offset` on whose entries are empty now */
async function emptyEntries(image: Image, offset: number): Promise<number> {
  const { layout } = image;
  const reach = (spot: L2Spot) => spot.left * layout.clusterBytes;
  const empty = await withL2(image, offset, (spot) => {
    if (!spot) return layout.l2CoverBytes - (offset % layout.l2CoverBytes);
    const { l2EntryBytes } = layout;
    const entries = spot.page.bytes.subarray(spot.index * l2EntryBytes);
    return entries.every((byte) => byte === 0) ? reach(spot) : 0;
  });
  if (empty > 0) return empty;
  await image.epoch.makeRoom();
  await ensureL2(image, offset);
  return withL2(image, offset, (spot) => {
    assert(spot, "ensureL2() has made a table");
    for (let i = 0; i < spot.left; i++) {
      unreference(image, spot, i, entryAt(image, spot, i, offset), "request");
      writeL2Entry(spot.page.bytes, (spot.index + i) * layout.l2EntryBytes, layout, {
        host: -1,
        copied: false,
        compressed: false,
        allocated: 0,
        zero: 0,
      });
    }
    image.pages.markDirty(spot.page);
    return reach(spot);
  });
}

/** The table first: no cluster may become free while an entry on disk still leads to it. */
async function dropTable(image: Image, index: number): Promise<void> {
  const { layout, pages, epoch, guard } = image;
  await epoch.makeRoom();
  const offset = await withL2(image, index * layout.l2CoverBytes, (_spot, l1) => {
    const found = l2OffsetOf(image, l1);
    if (found === 0) return 0;
    writeU32(l1.page.bytes, l1.at, 0);
    writeU32(l1.page.bytes, l1.at + 4, 0);
    pages.markDirty(l1.page);
    return found;
  });
  if (offset === 0) return;
  const table = image.l2Table(offset);
  for (let at = 0; at < table.bytes; at += pages.pageBytes) {
    await epoch.makeRoom();
    let page = pages.peek(offset + at);
    for (; !page; page = pages.peek(offset + at)) await pages.load(table, offset + at);
    const first = at / layout.l2EntryBytes;
    for (let i = 0; i < page.bytes.length / layout.l2EntryBytes; i++) {
      const guest = index * layout.l2CoverBytes + (first + i) * layout.clusterBytes;
      freeEntry(image, page.bytes, i, guest);
    }
  }
  pages.drop(offset, table.bytes);
  guard.removeTable(offset, "L2 table");
  epoch.free(offset, 1);
}

function freeEntry(image: Image, bytes: Uint8Array, i: number, guest: number): void {
  const { l2EntryBytes, clusterBits } = image.layout;
  const at = i * l2EntryBytes;
  const [hi, lo] = [readU32(bytes, at), readU32(bytes, at + 4)];
  if (hi === 0 && lo === 0) return;
  const entry = decodeEntry(image, bytes, i, guest);
  if (entry.compressed) freePacked(image, readPackedPlace(hi, lo, clusterBits), "request");
  else if (hostOf(image, entry) >= 0) image.epoch.free(entry.host, 1, "request");
}

/**
 * Zeroes what the disk's last cluster holds past the disk's end. Of an external data file that part is
 * cut off by whoever changes its length.
 *
 * @param hides and sees to it that a longer backing file does not show there
 */
export async function clearTail(image: Image, size: number, hides: boolean): Promise<void> {
  const { clusterBytes } = image.layout;
  if (image.externalData && !hides) return;
  const start = size - (size % clusterBytes);
  if (start === size) return;
  const mapping = await mapRun(image, start, size - start);
  const whole = new Uint8Array(clusterBytes);
  if (mapping.kind === "encoded") {
    // Packed clusters are packed whole; whoever wrote this one may have left anything in there.
    await readEncoded(image, whole, start);
    if (image.kernel.isZero(whole.subarray(size - start))) return;
  }
  await image.epoch.makeRoom();
  await rewriteTail(image, start, size, whole, hides);
}

/** Writes the last cluster anew, with zeroes up to its end. */
async function rewriteTail(
  image: Image,
  start: number,
  size: number,
  whole: Uint8Array,
  hides: boolean,
): Promise<void> {
  const { clusterBytes } = image.layout;
  const kinds = new Set<string>();
  for (let at = start; at < size; ) {
    const mapping = await mapRun(image, at, size - at);
    const piece = whole.subarray(at - start, at - start + mapping.bytes);
    kinds.add(mapping.kind);
    if (mapping.kind === "data") {
      await childOf(image).read(piece, mapping.offset);
      image.encryption?.cipher.decrypt(piece, mapping.offset);
    } else if (mapping.kind === "encoded") await readEncoded(image, piece, at);
    else if (mapping.kind === "unallocated" && image.backing) await image.backing.read(piece, at);
    else piece.fill(0);
    at += mapping.bytes;
  }
  whole.fill(0, size - start);
  const isBare = kinds.size === 1 && (kinds.has("unallocated") || kinds.has("zero"));
  if (isBare && !hides && !(await holdsPast(image, start, size))) return;
  // The whole cluster, past the disk's end: so that nothing behind it is left undecided.
  const room = await allocateLocked(image, start, clusterBytes);
  assert(room.bytes === clusterBytes, "one cluster gets its room in one piece");
  try {
    image.encryption?.cipher.encrypt(whole, room.offset);
    await childOf(image).write(whole, room.offset);
  } catch (error) {
    await room.abortLocked();
    throw error;
  }
  await room.commitLocked();
}

/** Whether the last cluster has subclusters of data that begin past the disk's end. */
function holdsPast(image: Image, start: number, size: number): Promise<boolean> {
  const { subclusterBytes, subclusters } = image.layout;
  const kept = Math.ceil((size - start) / subclusterBytes);
  return withL2(image, start, (spot) => {
    if (!spot || kept === subclusters) return false;
    return entryAt(image, spot, 0, start).allocated >>> kept !== 0;
  });
}

function childOf(image: Image) {
  const child = image.externalData ? image.dataFile : image.file;
  assert(child, "an image has a file for its data");
  return child;
}
