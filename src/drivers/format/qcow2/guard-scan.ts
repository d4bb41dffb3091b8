/**
 * Learns where an image's structures lie: see guard.ts. From a header, not from what is in memory, so
 * that a change of all of them can be looked at before it is made.
 */

import { readU32 } from "../../../base/bytes.ts";
import { BlockError } from "../../../base/errors.ts";
import { type Directory, findDirectory } from "./bitmap-directory.ts";
import type { Extensions } from "./extensions.ts";
import { Guard, type GuardedTable, SCAN_BYTES } from "./guard.ts";
import type { Header } from "./header.ts";
import type { Image } from "./image.ts";
import { hostOffsetOf } from "./layout.ts";
import type { Table } from "./pages.ts";
import { isPossibleL1, type SnapshotEntry, tableBytesOf } from "./snapshot-table.ts";

/**
 * @param header with its snapshots; all that it leads to has been written
 * @throws BlockError EPERM if two structures share a place or two entries lead to one table, EIO if a table cannot be read
 */
export async function scanGuard(
  image: Image,
  header: Header,
  snapshots: readonly SnapshotEntry[],
): Promise<Guard> {
  const { clusterBytes } = header.layout;
  const guard = new Guard(clusterBytes);
  const l1: Table = { kind: "l1", offset: header.l1Offset, bytes: header.l1Entries * 8 };
  const refcountTable: Table = {
    kind: "refcount-table",
    offset: header.refcountTableOffset,
    bytes: header.refcountTableClusters * clusterBytes,
  };
  guard.setArea("header", 0, clusterBytes);
  guard.setArea("refcount table", refcountTable.offset, refcountTable.bytes);
  guard.setArea("L1 table", l1.offset, l1.bytes);
  if (snapshots.length > 0) {
    guard.setArea("snapshot table", header.snapshotsOffset, tableBytesOf(snapshots));
  }
  for (const [i, entry] of snapshots.entries()) {
    if (entry.l1.entries === 0 || !isPossibleL1(entry, header)) continue;
    guard.setArea(`snapshot ${i}'s L1 table`, entry.l1.offset, entry.l1.entries * 8);
  }
  await scanInactive(image, guard, header, snapshots);
  const directory = directoryOf(header, image.extensions);
  const { encryption } = image.extensions;
  if (encryption) guard.setArea("encryption header", encryption.offset, encryption.bytes);
  if (directory) guard.setArea("bitmap directory", directory.offset, directory.bytes);
  const shared = guard.sharedAreas();
  if (shared) throw sharedPlace(...shared);
  await scanTable(image, guard, refcountTable, "refcount block");
  await scanTable(image, guard, l1, "L2 table");
  return guard;
}

/** null also where it makes no sense: whoever wants the bitmaps is told. */
function directoryOf(header: Header, extensions: Extensions): Directory | null {
  try {
    return findDirectory(header, extensions);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return null;
  }
}

async function scanTable(
  { pages }: Image,
  guard: Guard,
  table: Table,
  kind: GuardedTable,
): Promise<void> {
  if (table.bytes > SCAN_BYTES) return;
  for (let at = 0; at < table.bytes; at += pages.pageBytes) {
    const offset = table.offset + at;
    let page = pages.peek(offset);
    for (; !page; page = pages.peek(offset)) await pages.load(table, offset);
    for (let i = 0; i < page.bytes.length; i += 8) {
      const place = hostOffsetOf(readU32(page.bytes, i), readU32(page.bytes, i + 4));
      if (guard.hasTable(place, kind)) throw sharedTable(kind, place);
      guard.addTable(place, kind);
    }
  }
}

/** Learns the L2 tables of snapshots, as far as their L1 tables together are small. */
async function scanInactive(
  { file }: Image,
  guard: Guard,
  header: Header,
  snapshots: readonly SnapshotEntry[],
): Promise<void> {
  let left = SCAN_BYTES;
  for (const entry of snapshots) {
    const { offset, entries } = entry.l1;
    if (!isPossibleL1(entry, header) || entries * 8 > left) continue;
    // A table that is cut off is told of when somebody wants the snapshot.
    const bytes = Math.min(entries * 8, file.length - offset);
    if (bytes <= 0) continue;
    left -= bytes;
    const table = new Uint8Array(bytes);
    await file.read(table, offset);
    for (let at = 0; at + 8 <= bytes; at += 8) {
      guard.addTable(hostOffsetOf(readU32(table, at), readU32(table, at + 4)), "inactive L2 table");
    }
  }
}

/** A change behind one entry would be one behind the other as well. */
function sharedTable(kind: GuardedTable, offset: number): BlockError {
  return new BlockError(
    "EPERM",
    `The image is corrupt: two entries lead to the ${kind} at ${offset}. It can be opened with ` +
      "'read-only': true",
  );
}

/** What is written to the one would be lost of the other. */
function sharedPlace(one: string, other: string): BlockError {
  return new BlockError(
    "EPERM",
    `The image is corrupt: its ${one} and its ${other} lie in one place. It can be opened with ` +
      "'read-only': true",
  );
}
