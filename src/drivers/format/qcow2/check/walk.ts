/**
 * One walk over all that an image refers to, in QEMU's order, counting references:
 *
 *     header · active L1 ─▶ L2 ─▶ clusters · snapshots' L1 ─▶ … · snapshot table · refcount table
 *            · encryption header · bitmaps · refcount blocks
 *
 * L2 tables are visited once each, sorted by their place, however many entries lead to them: so the
 * work is bounded by the file, not by what tables claim.
 */

import { alignDown, MiB, readU32 } from "../../../../base/bytes.ts";
import { BlockError } from "../../../../base/errors.ts";
import { hostOffsetOf, L1_BYTES_MAX, L1_RESERVED } from "../layout.ts";
import { hasAlignedL1, type L1Place } from "../snapshot-table.ts";
import { countBitmaps } from "./bitmap-check.ts";
import { type Checked, fileBytes, hex, readSoFar, writeTable } from "./context.ts";
import { checkL2 } from "./l2-check.ts";
import { countRefcounts } from "./refcount-blocks.ts";
import { ReferenceCounts } from "./reference-counts.ts";
import type { Uses } from "./uses.ts";

const PIECE_BYTES = 64 * 1024;
/** L2 tables that are read together have at most so many bytes, and are so many. */
const BATCH_BYTES = MiB;
const BATCH_TABLES = 16;

export class Walk {
  readonly checked: Checked;
  readonly counts: ReferenceCounts;
  readonly fileBytes: number;
  /** Where to note what clusters are used for. */
  readonly uses: Uses | null;
  /** Read into again and again. */
  readonly #tables: Uint8Array[] = [];

  /** @param start first cluster whose references are counted */
  constructor(checked: Checked, start: number, uses: Uses | null = null) {
    this.checked = checked;
    this.uses = uses;
    this.counts = new ReferenceCounts(
      start,
      checked.image.layout.refcountOrder,
      checked.countBytes,
    );
    this.fileBytes = fileBytes(checked);
  }

  /** Clusters of the file, with those that are referred to although the file ends in them. */
  get clusters(): number {
    const { clusterBytes } = this.checked.image.layout;
    return Math.max(Math.ceil(this.fileBytes / clusterBytes), this.counts.highest + 1);
  }

  /** The file's last cluster need not be whole. */
  isInside(offset: number, bytes: number): boolean {
    return offset + bytes - this.fileBytes < this.checked.image.layout.clusterBytes;
  }

  /** References to all clusters that a range touches. */
  count(offset: number, bytes: number, times: number): void {
    const { clusterBytes } = this.checked.image.layout;
    const last = Math.floor((offset + bytes - 1) / clusterBytes);
    for (let i = Math.floor(offset / clusterBytes); i <= last; i++) this.counts.add(i, times);
  }

  countData(offset: number, bytes: number, times: number): void {
    const { clusterBytes } = this.checked.image.layout;
    this.count(offset, bytes, times);
    this.uses?.addData(
      Math.floor(offset / clusterBytes),
      Math.floor((offset + bytes - 1) / clusterBytes),
    );
  }

  /** As count(), for what is not mended if the file does not have it. @returns whether it has */
  countRegion(what: string, offset: number, bytes: number, times = 1): boolean {
    if (bytes === 0) return true;
    if (this.isInside(offset, bytes)) {
      this.count(offset, bytes, times);
      return true;
    }
    this.checked.tally.corruption(`The ${what} at ${hex(offset)} lies past the file's end`, times);
    this.addBeyond(offset, bytes);
    return false;
  }

  addBeyond(offset: number, bytes: number): void {
    const { beyond, tally } = this.checked;
    // With more of them nobody could say any more where there is room.
    if (beyond.length >= BEYOND_MAX) tally.isIncomplete = true;
    else beyond.push({ offset, end: offset + bytes });
  }

  /** @param withRefcounts false leaves out the refcount table and its blocks */
  async run(withRefcounts = true): Promise<void> {
    const { image, snapshots, tally } = this.checked;
    const { header, layout } = image;
    this.count(0, layout.clusterBytes, 1);
    await this.#l1({ offset: header.l1Offset, entries: header.l1Entries }, 1, true);
    if (image.externalData && header.snapshotCount > 0) {
      tally.corruption(`There are ${header.snapshotCount} snapshots, beside an external data file`);
    }
    await this.#snapshots();
    if (header.snapshotCount > 0) {
      const bytes = snapshots.reduce((sum, { tableBytes }) => sum + tableBytes, 0);
      this.countRegion("snapshot table", header.snapshotsOffset, bytes);
    }
    const tableBytes = header.refcountTableClusters * layout.clusterBytes;
    if (withRefcounts) this.countRegion("refcount table", header.refcountTableOffset, tableBytes);
    const { encryption } = image.extensions;
    if (encryption) this.countRegion("encryption header", encryption.offset, encryption.bytes);
    await countBitmaps(this);
    if (withRefcounts) await countRefcounts(this);
  }

  async #snapshots(): Promise<void> {
    const { snapshots, image, tally } = this.checked;
    // Entries that lead to one and the same table are one walk.
    const places = new Map<string, { l1: L1Place; times: number }>();
    for (const [i, entry] of snapshots.entries()) {
      const { l1 } = entry;
      const what = `Snapshot ${i} has an L1 table`;
      if (!hasAlignedL1(entry, image.layout)) {
        tally.corruption(`${what} at ${hex(l1.offset)}, which is not a cluster's first byte`);
        tally.isIncomplete = true;
      } else if (l1.entries * 8 > L1_BYTES_MAX) {
        tally.corruption(`${what} of ${l1.entries} entries; at most ${L1_BYTES_MAX / 8} are`);
        tally.isIncomplete = true;
      } else {
        const key = `${l1.offset} ${l1.entries}`;
        const place = places.get(key);
        if (place) place.times++;
        else places.set(key, { l1, times: 1 });
      }
    }
    for (const { l1, times } of places.values()) await this.#l1(l1, times, false);
  }

  async #l1(l1: L1Place, times: number, isActive: boolean): Promise<void> {
    if (!this.countRegion("L1 table", l1.offset, l1.entries * 8, times)) return;
    const { offsets, indexes } = await this.#readL1(l1, times);
    const order = Uint32Array.from(offsets.keys());
    order.sort((a, b) => offsets[a]! - offsets[b]! || a - b);
    const { layout } = this.checked.image;
    const most = Math.max(1, Math.min(BATCH_TABLES, BATCH_BYTES / layout.clusterBytes));
    for (let from = 0; from < order.length; ) {
      const batch: Visit[] = [];
      while (from < order.length && batch.length < most) {
        const offset = offsets[order[from]!]!;
        let to = from + 1;
        while (to < order.length && offsets[order[to]!] === offset) to++;
        batch.push({ offset, index: indexes[order[from]!]!, times: times * (to - from) });
        from = to;
      }
      await this.#visit(batch, isActive);
    }
  }

  /** The L2 tables of an L1 table, those that are in the file, and the entries that lead to them. */
  async #readL1(l1: L1Place, times: number): Promise<Found> {
    const { image, tally } = this.checked;
    const { clusterBytes } = image.layout;
    const offsets: number[] = [];
    const indexes: number[] = [];
    const end = Math.min(l1.entries * 8, this.fileBytes - l1.offset);
    tally.addTotal(end);
    for (let at = 0; at < end; at += PIECE_BYTES) {
      const piece = new Uint8Array(Math.min(PIECE_BYTES, end - at));
      await readSoFar(this.checked, piece, l1.offset + at);
      for (let i = 0; i + 8 <= piece.length; i += 8) {
        const hi = readU32(piece, i);
        const lo = readU32(piece, i + 4);
        if (hi === 0 && lo === 0) continue;
        const index = (at + i) / 8;
        const where = `L1 entry ${index} of the table at ${hex(l1.offset)}`;
        const offset = hostOffsetOf(hi, lo);
        if (offset === 0 && this.#mayWrite(l1.offset + at + i, 8, "L1")) {
          tally.fixedCorruption(`${where} has flags and leads nowhere`);
          await writeTable(this.checked, new Uint8Array(8), l1.offset + at + i);
          continue;
        }
        if (hi & L1_RESERVED.hi || lo & L1_RESERVED.lo) {
          tally.corruption(`${where} has reserved bits`, times);
        }
        const isCrooked = (lo & (clusterBytes - 1) & ~511) !== 0;
        const crooked = `${where} leads to ${hex(offset)}, not a cluster's first byte`;
        if (!this.isInside(offset, clusterBytes)) {
          const text = `${where} leads to ${hex(offset)}, past the file's end`;
          if (this.#mayWrite(l1.offset + at + i, 8, "L1")) {
            tally.fixedCorruption(text);
            await writeTable(this.checked, new Uint8Array(8), l1.offset + at + i);
          } else {
            tally.corruption(text, times);
            if (isCrooked) tally.corruption(crooked, times);
            this.addBeyond(offset, clusterBytes);
          }
          continue;
        }
        this.count(offset, clusterBytes, times);
        this.uses?.addL2Table(Math.floor(offset / clusterBytes));
        if (isCrooked) tally.corruption(crooked, times);
        offsets.push(offset);
        indexes.push(index);
      }
      await tally.step(piece.length);
    }
    tally.addTotal(offsets.length * clusterBytes);
    return { offsets, indexes };
  }

  async #visit(batch: readonly Visit[], isActive: boolean): Promise<void> {
    const { image, tally } = this.checked;
    const { clusterBytes, l2CoverBytes } = image.layout;
    const tables = this.#tables;
    while (tables.length < batch.length) tables.push(new Uint8Array(clusterBytes));
    await Promise.all(batch.map(({ offset }, i) => readSoFar(this.checked, tables[i]!, offset)));
    for (const [i, { offset, index, times }] of batch.entries()) {
      const bytes = tables[i]!;
      const guestOffset = index * l2CoverBytes;
      const mayWrite = this.#mayWrite(offset, clusterBytes, "L2");
      const visit = { bytes, offset, times, isActive, guestOffset, mayWrite };
      if (checkL2(this, visit)) await writeTable(this.checked, bytes, offset);
      await tally.step(clusterBytes * times);
    }
  }

  /** Tables are mended in the first walk, where they are surely nothing else. */
  #mayWrite(offset: number, bytes: number, kind: "L1" | "L2"): boolean {
    const { fix, tally, guard, image, uses } = this.checked;
    if (fix !== "all" || tally.isSilent || offset + bytes > image.file.length) return false;
    const { clusterBytes } = image.layout;
    if (kind === "L2" && offset % clusterBytes !== 0) return false;
    const cluster = Math.floor(offset / clusterBytes);
    if (kind === "L2" ? uses?.mayBeData(cluster) : uses?.mayBeDataOrL2(cluster)) return false;
    return guard.find(alignDown(offset, clusterBytes), clusterBytes, `${kind} table`) === null;
  }
}

const BEYOND_MAX = 10_000;

/** Side by side: numbers alone, since there may be four million of them. */
interface Found {
  readonly offsets: readonly number[];
  readonly indexes: readonly number[];
}

interface Visit {
  readonly offset: number;
  readonly index: number;
  readonly times: number;
}

/** Runs reads of what cannot be relied on. @returns its BlockError, or null */
export async function problemOf(work: () => Promise<void>): Promise<BlockError | null> {
  try {
    await work();
    return null;
  } catch (error) {
    if (error instanceof BlockError && error.errno !== "ECANCELED") return error;
    throw error;
  }
}
