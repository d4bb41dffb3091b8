/**
 * A stretch at the end of all that is counted: new refcount blocks, a larger refcount table if the
 * blocks no longer fit the one there is, and room for what the caller wants side by side.
 *
 *     first cluster that block number `block` describes
 *     ▼
 *     │ new blocks … │ refcount table, if it grows … │ the caller's clusters … │
 *
 * The blocks describe all of the stretch, themselves included. Nothing refers to it until it is
 * on disk; then one entry, or one 12-byte write of the header, does. A crash before that leaves
 * nothing behind but a longer file, a crash after it at most leaks.
 */

import { writeU32, writeU64 } from "../../../base/bytes.ts";
import { BlockError } from "../../../base/errors.ts";
import { overlapError } from "./guard.ts";
import { AT } from "./header.ts";
import type { Image } from "./image.ts";
import { type Layout, REFCOUNT_TABLE_BYTES_MAX, SECTOR_BYTES } from "./layout.ts";

const COPY_BYTES = 64 * 1024;

interface Plan {
  readonly blocks: number;
  /** Clusters of the new refcount table, 0 if the one there is will do. */
  readonly tableClusters: number;
}

/**
 * Hands out clusters side by side: where there is such a gap, else at the end. Caller holds the mutex.
 *
 * @returns offset of the first
 * @throws BlockError as Refcounts.allocate(), and ENOSPC if the refcount table cannot hold more
 */
export async function allocateRegion(image: Image, count: number): Promise<number> {
  const { refcounts } = image;
  const gap = await refcounts.findGap(count);
  if (gap >= 0) {
    await refcounts.takeGap(gap, count);
    return gap;
  }
  let end = 0;
  for await (const { block } of refcounts.blocks()) end = block + 1;
  return appendRegion(image, end, count);
}

/**
 * Caller holds the mutex.
 *
 * @param block number of the first refcount block that does not exist; none after it does
 * @param clusters how many the caller wants, may be 0; their refcounts are 1 afterwards
 * @returns offset of the caller's clusters
 * @throws BlockError ENOSPC if the refcount table cannot hold more
 */
export async function appendRegion(image: Image, block: number, clusters: number): Promise<number> {
  const { epoch, file, layout, guard, refcounts } = image;
  const { clusterBytes } = layout;
  // From here on the table in the file is as in memory, and may be copied.
  await epoch.run();
  const plan = planRegion(layout, block, clusters, refcounts.table.bytes / 8);
  const start = block * layout.refcountBlockEntries * clusterBytes;
  const total = plan.blocks + plan.tableClusters + clusters;
  const area = guard.find(start, total * clusterBytes);
  if (area) throw await image.markCorrupt(overlapError("an uncounted cluster", start, area));
  image.pages.drop(start, total * clusterBytes);

  await writeBlocks(image, start, plan.blocks, total);
  const entries = new Uint8Array(plan.blocks * 8);
  for (let i = 0; i < plan.blocks; i++) writeU64(entries, i * 8, start + i * clusterBytes);
  const oldTable = refcounts.table;
  if (plan.tableClusters === 0) {
    await file.flush();
    await linkBlocks(image, entries, oldTable.offset + block * 8);
  } else {
    const offset = start + plan.blocks * clusterBytes;
    const bytes = plan.tableClusters * clusterBytes;
    await file.writeZeroes(offset + oldTable.bytes, bytes - oldTable.bytes);
    await copyWithin(image, oldTable.offset, offset, oldTable.bytes);
    await file.write(entries, offset + block * 8);
    await file.flush();
    await switchTable(image, offset, plan.tableClusters);
    epoch.free(oldTable.offset, oldTable.bytes / clusterBytes);
  }
  for (let i = 0; i < plan.blocks; i++) guard.addTable(start + i * clusterBytes, "refcount block");
  return start + (plan.blocks + plan.tableClusters) * clusterBytes;
}

function planRegion(layout: Layout, block: number, clusters: number, entries: number): Plan {
  const { clusterBytes, refcountBlockEntries } = layout;
  let blocks = 1;
  let tableClusters = 0;
  for (;;) {
    const total = blocks + tableClusters + clusters;
    const moreBlocks = Math.ceil(total / refcountBlockEntries);
    const needed = block + moreBlocks;
    let moreTable = 0;
    if (needed > entries) {
      // Half as much again, so that a growing disk does not move its table all the time.
      const bytes = Math.max(needed, Math.ceil(entries * 1.5)) * 8;
      moreTable = Math.ceil(Math.min(bytes, REFCOUNT_TABLE_BYTES_MAX) / clusterBytes);
      if (needed * 8 > moreTable * clusterBytes) {
        throw new BlockError(
          "ENOSPC",
          "The image cannot grow: its refcount table has the largest size there can be",
        );
      }
    }
    if (moreBlocks === blocks && moreTable === tableClusters) return { blocks, tableClusters };
    blocks = Math.max(blocks, moreBlocks);
    tableClusters = Math.max(tableClusters, moreTable);
  }
}

/** Writes refcount blocks at `start` that count the first `total` clusters from there as 1. */
async function writeBlocks(
  image: Image,
  start: number,
  blocks: number,
  total: number,
): Promise<void> {
  const { file, kernel, layout } = image;
  const { clusterBytes, refcountBlockEntries, refcountOrder } = layout;
  for (let i = 0; i < blocks; i++) {
    const block = new Uint8Array(clusterBytes);
    const used = Math.min(refcountBlockEntries, total - i * refcountBlockEntries);
    kernel.refcountAdd(block, refcountOrder, 0, Math.max(0, used), 1);
    await file.write(block, start + i * clusterBytes);
  }
}

/**
 * Sector by sector: a block is counted in itself or in one before it, and a crash that tears the entries
 * must not leave one without the other.
 *
 * @throws as decisive(); the entries before are there then, and what they count is leaked
 */
async function linkBlocks(image: Image, entries: Uint8Array, offset: number): Promise<void> {
  const { table } = image.refcounts;
  try {
    for (let at = 0; at < entries.length; ) {
      const end = Math.min(entries.length, at + SECTOR_BYTES - ((offset + at) % SECTOR_BYTES));
      await decisive(image, entries.subarray(at, end), offset + at);
      at = end;
    }
  } finally {
    image.pages.drop(table.offset, table.bytes);
  }
}

/** Makes the table at `offset`, which is on disk, the image's. @throws as decisive() */
export async function switchTable(image: Image, offset: number, clusters: number): Promise<void> {
  const field = new Uint8Array(12);
  writeU64(field, 0, offset);
  writeU32(field, 8, clusters);
  await decisive(image, field, AT.refcountTable);
  const old = image.refcounts.table;
  const bytes = clusters * image.layout.clusterBytes;
  image.pages.drop(old.offset, old.bytes);
  image.header = {
    ...image.header,
    refcountTableOffset: offset,
    refcountTableClusters: clusters,
  };
  image.refcounts.table = { kind: "refcount-table", offset, bytes };
  image.guard.setArea("refcount table", offset, bytes);
}

/**
 * A write that the rest of the image depends on, and a flush. If it fails, what was there before is
 * put back, so that the caller may go on as if nothing had been tried. Only where that fails too
 * nobody knows what is in the file: then nothing more is written to it.
 *
 * @throws BlockError what the write or the flush threw; `image.isCorrupt` tells how it stands
 */
export async function decisive(image: Image, bytes: Uint8Array, offset: number): Promise<void> {
  const { file } = image;
  const before = new Uint8Array(bytes.length);
  await file.read(before.subarray(0, Math.max(0, file.length - offset)), offset);
  let isWritten = false;
  try {
    await file.write(bytes, offset);
    isWritten = true;
    await file.flush();
  } catch (error) {
    if (!(await isPutBack(image, before, offset, isWritten))) image.isCorrupt = true;
    throw error;
  }
}

/**
 * True if these bytes are on disk for certain.
 *
 * @param isWritten others were written over them, and only the flush has failed: what is read may
 *   then be what the store remembers, and not what it holds
 */
async function isPutBack(
  { file }: Image,
  before: Uint8Array,
  offset: number,
  isWritten: boolean,
): Promise<boolean> {
  let isIntact = false;
  try {
    await file.write(before, offset);
    isIntact = true;
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    // A full store may refuse even this, having changed nothing.
    if (isWritten) return false;
  }
  try {
    if (!isIntact) {
      const found = new Uint8Array(before.length);
      await file.read(found.subarray(0, Math.max(0, file.length - offset)), offset);
      if (!found.every((byte, i) => byte === before[i])) return false;
    }
    await file.flush();
    return true;
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return false;
  }
}

/** Copies bytes inside the file, in pieces. */
export async function copyWithin(
  image: Image,
  source: number,
  target: number,
  bytes: number,
): Promise<void> {
  const buf = new Uint8Array(Math.min(COPY_BYTES, bytes));
  for (let done = 0; done < bytes; done += buf.length) {
    const piece = buf.subarray(0, Math.min(buf.length, bytes - done));
    await image.file.read(piece, source + done);
    await image.file.write(piece, target + done);
  }
}
