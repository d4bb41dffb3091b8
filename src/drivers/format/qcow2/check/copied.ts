/**
 * COPIED flags: an entry of the active tables has it exactly if its cluster has refcount 1. A flag too
 * many lets a write change what a snapshot sees; one too few costs a copy.
 */

import { readU32, writeU32 } from "../../../../base/bytes.ts";
import { COMPRESSED_HI, COPIED_HI, hostOffsetOf, type Layout } from "../layout.ts";
import { type Checked, fileBytes, hex, readSoFar, writeTable } from "./context.ts";
import { UNREADABLE } from "./refcount-blocks.ts";
import type { RefcountOnes } from "./refcount-ones.ts";

const PIECE_BYTES = 64 * 1024;

/** @param blocks of the refcounts as they are now, which `ones` is about, too */
export async function checkCopied(
  checked: Checked,
  blocks: Float64Array,
  ones: RefcountOnes,
): Promise<void> {
  const { image, tally, fix } = checked;
  const { header, layout } = image;
  const { counts } = tally;
  // Where something is left over, the refcounts may not be what is wrong.
  const isSettled = counts["check-errors"] === 0 && counts.corruptions === 0 && counts.leaks === 0;
  const repair = fix === "all" || (fix === "leaks" && isSettled);
  const hasUnreadable = blocks.includes(UNREADABLE);
  const isOne = (cluster: number) => {
    if (hasUnreadable) {
      const block = Math.floor(cluster / layout.refcountBlockEntries);
      if (blocks[block] === UNREADABLE) return null;
    }
    return ones.get(cluster) ?? ones.lookUp(checked, blocks, cluster);
  };
  const visits = new Map<number, number>();

  const end = Math.min(header.l1Entries * 8, fileBytes(checked) - header.l1Offset);
  const isFree = (offset: number) =>
    checked.uses?.mayBeDataOrL2(Math.floor(offset / layout.clusterBytes)) === false;
  const mayWriteL1 = repair && checked.guard.find(header.l1Offset, end, "L1 table") === null;
  for (let at = 0; at < end; at += PIECE_BYTES) {
    const piece = new Uint8Array(Math.min(PIECE_BYTES, end - at));
    await readSoFar(checked, piece, header.l1Offset + at);
    let changed = false;
    for (let i = 0; i + 8 <= piece.length; i += 8) {
      const hi = readU32(piece, i);
      const offset = hostOffsetOf(hi, readU32(piece, i + 4));
      if (offset === 0) continue;
      visits.set(offset, (visits.get(offset) ?? 0) + 1);
      const one = await isOne(Math.floor(offset / layout.clusterBytes));
      if (one === null || one === ((hi & COPIED_HI) !== 0)) continue;
      const text = `L1 entry ${(at + i) / 8} has ${one ? "no" : "a"} COPIED flag, which is wrong`;
      if (!mayWriteL1 || !isFree(header.l1Offset + at + i)) {
        tally.corruption(text);
        continue;
      }
      tally.fixedCorruption(text);
      writeU32(piece, i, (hi ^ COPIED_HI) >>> 0);
      changed = true;
    }
    if (changed) await writeTable(checked, piece, header.l1Offset + at);
  }

  const table = new Uint8Array(layout.clusterBytes);
  tally.addTotal(visits.size * layout.clusterBytes);
  for (const [offset, times] of [...visits].sort(([a], [b]) => a - b)) {
    if (offset >= fileBytes(checked)) continue;
    await readSoFar(checked, table, offset);
    const mayWrite =
      repair &&
      offset % layout.clusterBytes === 0 &&
      offset + layout.clusterBytes <= image.file.length &&
      checked.uses?.mayBeData(offset / layout.clusterBytes) === false &&
      checked.guard.find(offset, layout.clusterBytes, "L2 table") === null;
    const visit = { bytes: table, offset, times, mayWrite };
    const known = hasUnreadable ? null : ones;
    if (await checkTable(checked, visit, isOne, known)) {
      await writeTable(checked, table, offset);
    }
    await tally.step(table.length);
  }
}

interface Table {
  readonly bytes: Uint8Array;
  readonly offset: number;
  readonly times: number;
  readonly mayWrite: boolean;
}

/** @returns true if flags were changed */
async function checkTable(
  { image, tally }: Checked,
  { bytes, offset, times, mayWrite }: Table,
  isOne: (cluster: number) => boolean | null | Promise<boolean | null>,
  known: RefcountOnes | null,
): Promise<boolean> {
  const { layout, externalData } = image;
  const { clusterBytes, l2EntryBytes } = layout;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let changed = false;
  for (let at = 0; at < bytes.length; at += l2EntryBytes) {
    if (known && !externalData) at = nextDoubt(view, at, layout, known);
    if (at >= bytes.length) break;
    const hi = view.getUint32(at);
    const lo = view.getUint32(at + 4);
    if ((hi === 0 && lo === 0) || hi & COMPRESSED_HI) continue;
    const copied = (hi & COPIED_HI) !== 0;
    const host = hostOffsetOf(hi, lo);
    const isZero = !layout.extendedL2 && (lo & 1) !== 0;
    if (host === 0 && (isZero || !externalData || !copied)) continue;
    const found = externalData ? true : isOne(Math.floor(host / clusterBytes));
    const one = typeof found === "object" && found !== null ? await found : found;
    if (one === null || one === copied) continue;
    const text =
      `L2 entry ${at / l2EntryBytes} of the table at ${hex(offset)} has ${one ? "no" : "a"} COPIED ` +
      "flag, which is wrong";
    if (!mayWrite) {
      tally.corruption(text, times);
      continue;
    }
    tally.fixedCorruption(text);
    view.setUint32(at, (hi ^ COPIED_HI) >>> 0);
    changed = true;
  }
  return changed;
}

/** Where the next entry is whose flag is not plainly right; the table's length if there is none. */
function nextDoubt(view: DataView, from: number, layout: Layout, ones: RefcountOnes): number {
  const { clusterBits, l2EntryBytes } = layout;
  const hiShift = 2 ** (32 - clusterBits);
  let at = from;
  for (; at < view.byteLength; at += l2EntryBytes) {
    const hi = view.getUint32(at);
    const lo = view.getUint32(at + 4);
    if (hi & COMPRESSED_HI || (hi === 0 && lo === 0)) continue;
    const cluster = (hi & 0x00ffffff) * hiShift + (lo >>> clusterBits);
    if (cluster === 0 || ones.get(cluster) !== ((hi & COPIED_HI) !== 0)) break;
  }
  return at;
}
