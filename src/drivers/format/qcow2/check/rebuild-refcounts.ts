/**
 * All refcounts anew, out of what refers to the clusters: in a place of their own behind everything, so
 * that nothing is written over that somebody may need, and the header leads to them in one write.
 *
 *     │ the file as it is │ new refcount blocks … │ new refcount table │
 *                         ▲ or behind what still refers to clusters past the end
 *
 * Afterwards nothing refers to the old ones: they are free. A crash before the header leaves a longer
 * file. (QEMU takes clusters that no reference was found to, and so has overwritten data that the file
 * had not got yet.)
 */

import { alignUp, writeU64 } from "../../../../base/bytes.ts";
import { BlockError } from "../../../../base/errors.ts";
import { REFCOUNT_TABLE_BYTES_MAX } from "../layout.ts";
import { switchTable } from "../refcount-grow.ts";
import { beginRepair, type Checked, fileBytes, readSoFar } from "./context.ts";
import { readBlockTable, readCount, UNREADABLE, writeCount } from "./refcount-blocks.ts";
import type { RefcountOnes } from "./refcount-ones.ts";
import { Walk } from "./walk.ts";

const PIECE_CLUSTERS = 64 * 1024;
const TABLE_PIECE_BYTES = 64 * 1024;

interface Region {
  /** Host offset of the first block. */
  readonly offset: number;
  readonly clusters: number;
  readonly tableClusters: number;
  /** Place of each block that is needed. */
  readonly blocks: ReadonlyMap<number, number>;
}

/**
 * @param ones filled anew
 * @throws BlockError EFBIG where the refcount table cannot be as large; what writing throws, and the
 *   image is as before then
 */
export async function rebuildRefcounts(checked: Checked, ones: RefcountOnes): Promise<void> {
  const { image, tally } = checked;
  const { clusterBytes, refcountBlockEntries: perBlock } = image.layout;
  const old = await readBlockTable(checked);
  tally.isSilent = true;
  const needed = new Set<number>();
  if (tally.isIncomplete) for (const [block, at] of old.entries()) if (at > 0) needed.add(block);
  let whole: Walk | null = null;
  for (let start = 0; start !== Number.POSITIVE_INFINITY; ) {
    const walk = await walkFrom(checked, start);
    for (const { first, counts } of walk.counts.pages()) {
      for (let i = 0; i < counts.length; i++) {
        if (counts[i]! > 0) needed.add(Math.floor((first + i) / perBlock));
      }
    }
    start = walk.counts.end;
    whole = walk.counts.start === 0 && start === Number.POSITIVE_INFINITY ? walk : null;
  }

  const region = place(checked, needed);
  await beginRepair(checked);
  // What was mended so far counts before anything is put behind the file's end.
  await image.file.flush();
  ones.clear();
  const end = region.offset / clusterBytes + region.clusters;
  for (let start = 0; start < end; ) {
    const walk: Walk = whole ?? (await walkFrom(checked, start));
    const stop = Math.min(walk.counts.end, end);
    await writeCounts(walk, old, region, { start, stop }, ones);
    start = stop;
  }
  await writeBlockTable(checked, region);
  await image.file.flush();
  const tableOffset = region.offset + region.blocks.size * clusterBytes;
  await switchTable(image, tableOffset, region.tableClusters);
  tally.isSilent = false;
}

async function walkFrom(checked: Checked, start: number): Promise<Walk> {
  const walk = new Walk(checked, start);
  await walk.run(false);
  return walk;
}

/** The blocks describe themselves and their table, too. */
function place(checked: Checked, needed: ReadonlySet<number>): Region {
  const { clusterBytes, refcountBlockEntries: perBlock } = checked.image.layout;
  let offset = alignUp(fileBytes(checked), clusterBytes);
  for (let clusters = 0; ; ) {
    const first = offset / clusterBytes;
    const blocks = new Set(needed);
    for (let i = first; i < first + clusters; i++) blocks.add(Math.floor(i / perBlock));
    const tableClusters = Math.ceil(((maxOf(blocks) + 1) * 8) / clusterBytes);
    if (tableClusters * clusterBytes > REFCOUNT_TABLE_BYTES_MAX) {
      throw new BlockError("EFBIG", "The refcount table would have to be larger than it can be");
    }
    const total = blocks.size + tableClusters;
    const end = offset + total * clusterBytes;
    const inTheWay = checked.beyond.find((range) => range.offset < end && offset < range.end);
    if (inTheWay) offset = alignUp(inTheWay.end, clusterBytes);
    else if (total === clusters) {
      const sorted = [...blocks].sort((a, b) => a - b);
      const places = new Map(sorted.map((block, i) => [block, offset + i * clusterBytes]));
      return { offset, clusters, tableClusters, blocks: places };
    }
    clusters = Math.max(clusters, total);
  }
}

function maxOf(numbers: Iterable<number>): number {
  let max = 0;
  for (const number of numbers) if (number > max) max = number;
  return max;
}

async function writeCounts(
  { checked, counts }: Walk,
  old: Float64Array,
  region: Region,
  { start: from, stop: to }: { readonly start: number; readonly stop: number },
  ones: RefcountOnes,
): Promise<void> {
  const { image, tally } = checked;
  const { clusterBytes, refcountBlockEntries: perBlock, refcountOrder: order } = image.layout;
  const bits = 2 ** order;
  const regionStart = region.offset / clusterBytes;
  for (let start = from; start < to; ) {
    const block = Math.floor(start / perBlock);
    const stop = Math.min(to, (block + 1) * perBlock, start + PIECE_CLUSTERS);
    const offset = region.blocks.get(block);
    if (offset !== undefined) {
      const inBlock = ((start % perBlock) * bits) / 8;
      const bytes = new Uint8Array(Math.ceil(((stop - start) * bits) / 8));
      const before = new Uint8Array(tally.isIncomplete ? bytes.length : 0);
      const oldOffset = old[block] ?? 0;
      if (oldOffset !== UNREADABLE && oldOffset > 0) {
        await readSoFar(checked, before, oldOffset + inBlock);
      }
      for (let i = 0; i < stop - start; i++) {
        const cluster = start + i;
        let count = cluster >= regionStart && cluster < regionStart + region.clusters ? 1 : 0;
        count = Math.max(count, counts.get(cluster));
        if (before.length > 0) count = Math.max(count, readCount(before, order, i));
        if (count === 0) continue;
        writeCount(bytes, order, i, count);
        if (count === 1) ones.set(cluster);
      }
      await image.file.write(bytes, offset + inBlock);
      await tally.step(bytes.length);
    }
    start = stop;
  }
}

async function writeBlockTable({ image }: Checked, region: Region): Promise<void> {
  const { clusterBytes } = image.layout;
  const offset = region.offset + region.blocks.size * clusterBytes;
  const bytes = region.tableClusters * clusterBytes;
  for (let at = 0; at < bytes; at += TABLE_PIECE_BYTES) {
    const piece = new Uint8Array(Math.min(TABLE_PIECE_BYTES, bytes - at));
    for (let i = 0; i < piece.length; i += 8) {
      writeU64(piece, i, region.blocks.get((at + i) / 8) ?? 0);
    }
    await image.file.write(piece, offset + at);
  }
}
