/**
 * One L2 table, entry by entry: what is wrong with it, what it refers to, and what can be mended in it
 * without guessing.
 *
 *     compressed, COPIED              the flag means nothing there: it goes
 *     compressed, subcluster bits     they mean nothing there: they go
 *     a subcluster allocated and zero the data is kept
 *     allocated without a cluster     there is no data: the bits go
 *     zeroes, kept in a crooked place the place is given up; it reads as zeroes as before
 *     a cluster past the file's end   it never came to be: the entry goes. QEMU reads it as zeroes,
 *                                     does not mend it, and may put refcounts there
 *
 * All else is left to people, as is what lies where data is (uses.ts). A table that several L1 entries lead
 * to is looked at once, and counts as often.
 */

import { COMPRESSED_HI, COPIED_HI, hostOffsetOf, readPackedPlace } from "../layout.ts";
import { hex } from "./context.ts";
import type { Walk } from "./walk.ts";

export interface L2Visit {
  /** The whole table, to be changed where something is mended. */
  readonly bytes: Uint8Array;
  readonly offset: number;
  /** As many L1 entries lead here. */
  readonly times: number;
  /** Of the disk as it is, and not of a snapshot. */
  readonly isActive: boolean;
  /** Guest offset of its first cluster, by the first of them. */
  readonly guestOffset: number;
  /** Something may be mended in it. */
  readonly mayWrite: boolean;
}

const RESERVED_HI = 0x3f000000;
const RESERVED_LO = 0x1fe;
const DETOUR_HI = COMPRESSED_HI | RESERVED_HI;

/** @returns true if the table was changed */
export function checkL2(walk: Walk, visit: L2Visit): boolean {
  const { image, tally } = walk.checked;
  const { layout, externalData } = image;
  const { clusterBytes, extendedL2, l2EntryBytes } = layout;
  const { times, isActive } = visit;
  const view = new DataView(visit.bytes.buffer, visit.bytes.byteOffset, visit.bytes.length);
  const { counts } = tally;
  const isStandard = !extendedL2 && !externalData;
  const countsFragments = isActive && !tally.isSilent;
  let changed = false;
  let next = 0;
  let plain = 0;
  let fragmented = 0;

  /** Tells of what is wrong, mends it if that is allowed. */
  const mend = (text: string, fix: () => void): boolean => {
    if (!visit.mayWrite) {
      tally.corruption(text, times);
      return false;
    }
    tally.fixedCorruption(text);
    fix();
    changed = true;
    return true;
  };

  // Of the entry at hand.
  let at = 0;
  const where = () =>
    `L2 entry ${at / l2EntryBytes} of the table at ${hex(visit.offset)} (guest offset ` +
    `${hex(visit.guestOffset + (at / l2EntryBytes) * clusterBytes)})`;
  const clear = () => {
    for (let i = at; i < at + l2EntryBytes; i += 4) view.setUint32(i, 0);
  };

  for (; at < visit.bytes.length; at += l2EntryBytes) {
    const hi = view.getUint32(at);
    const lo = view.getUint32(at + 4);
    const allocated = extendedL2 ? view.getUint32(at + 12) : 0;
    if (hi === 0 && lo === 0 && allocated === 0) continue;
    // The usual case, without detours: a cluster of data, in its place.
    if (isStandard && (hi & DETOUR_HI) === 0 && (lo & (clusterBytes - 1)) === 0) {
      const host = (hi & 0x00ffffff) * 2 ** 32 + lo;
      if (host > 0 && host < walk.fileBytes) {
        if (countsFragments) {
          plain += times;
          if (next !== 0 && host !== next) fragmented += times;
          next = host + clusterBytes;
        }
        walk.counts.add(host / clusterBytes, times);
        walk.uses?.addData(host / clusterBytes);
        continue;
      }
    }
    const zeroes = extendedL2 ? view.getUint32(at + 8) : 0;

    if (hi & COMPRESSED_HI) {
      if (hi & COPIED_HI) {
        mend(`${where()} is compressed and has the COPIED flag`, () =>
          view.setUint32(at, (hi & ~COPIED_HI) >>> 0),
        );
      }
      if (externalData) {
        tally.corruption(`${where()} is compressed, beside an external data file`, times);
        continue;
      }
      if (zeroes !== 0 || allocated !== 0) {
        const text = `${where()} is compressed and has subcluster bits`;
        const mended = mend(text, () => {
          view.setUint32(at + 8, 0);
          view.setUint32(at + 12, 0);
        });
        if (!mended) {
          // QEMU does not count what it refers to, and so takes it for a leak.
          tally.isIncomplete = true;
          continue;
        }
      }
      const { offset, bytes } = readPackedPlace(hi, lo, layout.clusterBits);
      const isInside = walk.isInside(offset, bytes);
      if (!isInside) {
        const text = `${where()} leads to packed data at ${hex(offset)}, past the file's end`;
        if (mend(text, clear)) continue;
        walk.addBeyond(offset, bytes);
      }
      if (isInside) walk.countData(offset, bytes, times);
      if (countsFragments) {
        counts["allocated-clusters"] += times;
        counts["compressed-clusters"] += times;
        counts["fragmented-clusters"] += times;
      }
      continue;
    }

    if (hi & RESERVED_HI || lo & RESERVED_LO) {
      tally.corruption(`${where()} has reserved bits`, times);
    }
    const host = hostOffsetOf(hi, lo);
    const isZero = !extendedL2 && (lo & 1) !== 0;
    if (host === 0 && (isZero || !(externalData && hi & COPIED_HI))) {
      if (allocated !== 0 && !isZero) {
        mend(`${where()} has allocated subclusters without a cluster`, () =>
          view.setUint32(at + 12, 0),
        );
      }
      continue;
    }

    if ((zeroes & allocated) !== 0) {
      const text = `${where()} has subclusters that are allocated and zero`;
      mend(text, () => view.setUint32(at + 8, (zeroes & ~allocated) >>> 0));
    }
    if (lo & (clusterBytes - 1) & ~511) {
      const hasData = extendedL2 ? allocated !== 0 : !isZero;
      if (hasData) {
        tally.corruption(`${where()} leads to ${hex(host)}, not a cluster's first byte`, times);
      } else {
        const text = `${where()} keeps ${hex(host)}, not a cluster's first byte`;
        const mended = mend(text, () => {
          clear();
          if (extendedL2) view.setUint32(at + 8, 0xffffffff);
          else view.setUint32(at + 4, 1);
        });
        if (mended) continue;
      }
    }
    if (externalData) {
      const place = visit.guestOffset + (at / l2EntryBytes) * clusterBytes;
      if (host !== place) {
        tally.corruption(`${where()} leads to ${hex(host)} of the data file`, times);
      }
    }
    const isInside = externalData || walk.isInside(host, clusterBytes);
    if (!isInside) {
      const text = `${where()} leads to ${hex(host)}, past the file's end`;
      if (mend(text, clear)) continue;
      walk.addBeyond(host, clusterBytes);
    }
    if (countsFragments) {
      counts["allocated-clusters"] += times;
      if (next !== 0 && host !== next) counts["fragmented-clusters"] += times;
      next = host + clusterBytes;
    }
    if (isInside && !externalData) walk.countData(host, clusterBytes, times);
  }
  counts["allocated-clusters"] += plain;
  counts["fragmented-clusters"] += fragmented;
  return changed;
}
