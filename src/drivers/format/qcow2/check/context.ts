/**
 * What the parts of one check share.
 *
 *     check.ts              the order of work             walk.ts          what refers to what
 *     snapshot-check.ts     the snapshot table            l2-check.ts      one L2 table
 *     compare.ts            refcounts and references      bitmap-check.ts  persistent bitmaps
 *     rebuild-refcounts.ts  all refcounts anew            copied.ts        COPIED flags
 *     uses.ts               what is not to be written over
 *
 * Everything is read from the file: nobody else uses the image. (QEMU: block/qcow2-refcount.c.)
 */

import { alignUp, writeU32 } from "../../../../base/bytes.ts";
import type { CheckFix } from "../../../../block/check.ts";
import type { Guard } from "../guard.ts";
import { AT, Incompatible } from "../header.ts";
import type { Image } from "../image.ts";
import { SECTOR_BYTES } from "../layout.ts";
import type { SnapshotEntry } from "../snapshot-table.ts";
import type { Tally } from "./tally.ts";
import type { Uses } from "./uses.ts";

/** An entry as it is to be; `tableBytes`: what it takes in the table as that is now. */
export interface LooseSnapshot extends SnapshotEntry {
  readonly tableBytes: number;
}

export interface Checked {
  readonly image: Image;
  readonly fix: CheckFix;
  readonly tally: Tally;
  readonly snapshots: readonly LooseSnapshot[];
  /** What no L2 table may lie on. New refcounts make it another one. */
  guard: Guard;
  /** The rest that no table may lie on; null where nothing is mended. */
  uses: Uses | null;
  /** For the counts of one walk. */
  readonly countBytes: number;
  /** References past the file's end that stay: nothing must be put there. */
  readonly beyond: { readonly offset: number; readonly end: number }[];
}

/** The file's length as QEMU sees it, in whole sectors. */
export function fileBytes({ image }: Checked): number {
  return alignUp(image.file.length, SECTOR_BYTES);
}

/** Reads what there is of the file; past its end are zeroes. */
export async function readSoFar(
  { image }: Checked,
  buf: Uint8Array,
  offset: number,
): Promise<void> {
  const there = Math.max(0, Math.min(buf.length, image.file.length - offset));
  if (there > 0) await image.file.read(buf.subarray(0, there), offset);
  buf.fill(0, there);
}

/** A write of the repair: before the first one the image is marked dirty. */
export async function writeTable(
  checked: Checked,
  bytes: Uint8Array,
  offset: number,
): Promise<void> {
  await beginRepair(checked);
  await checked.image.file.write(bytes, offset);
}

/**
 * Says in the file that its refcounts may be wrong. Who finds the image so after a crash repairs it before
 * he writes to it. (Version 2 has no place for that; what was wrong before is no worse then.)
 */
export async function beginRepair({ image }: Checked): Promise<void> {
  const { version, incompatible } = image.header;
  if (version === 2 || incompatible.lo & Incompatible.dirty) return;
  await writeIncompatible(image, (incompatible.lo | Incompatible.dirty) >>> 0);
}

/** Changes the low word of the incompatible features, and flushes. */
export async function writeIncompatible(image: Image, lo: number): Promise<void> {
  const bytes = new Uint8Array(8);
  writeU32(bytes, 0, image.header.incompatible.hi);
  writeU32(bytes, 4, lo);
  await image.file.write(bytes, AT.incompatible);
  await image.file.flush();
  image.header = { ...image.header, incompatible: { ...image.header.incompatible, lo } };
}

export function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
