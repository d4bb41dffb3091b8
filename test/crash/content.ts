/**
 * What guests write: each sector says which write it is of, so that whoever reads one knows whether it
 * may be there.
 *
 *     sector of write `id`     │ id u32 │ sector number u32 │ filling: one byte, or noise │
 *     id 0                     │ zeroes                                                  │
 */

import { readU32, writeU32 } from "../../src/base/bytes.ts";

export const SECTOR_BYTES = 512;
/** Zeroes. */
export const NOTHING = 0;
/** No content of any write. */
export const RUBBISH = -1;

const scratch = new Uint8Array(SECTOR_BYTES);

export function fillSector(into: Uint8Array, id: number, sector: number): void {
  if (id === NOTHING) {
    into.fill(0);
    return;
  }
  // Every third write is noise, which does not pack; the others do.
  if (id % 3 === 0) noise(into, Math.imul(id, 0x9e3779b1) ^ sector);
  else into.fill(1 + (id % 255));
  writeU32(into, 0, id);
  writeU32(into, 4, sector);
}

function noise(into: Uint8Array, seed: number): void {
  let state = seed | 1;
  for (let i = 0; i < into.length; i += 4) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    writeU32(into, i, state >>> 0);
  }
}

/** Whole sectors of one write. */
export function contentOf(id: number, offset: number, bytes: number): Uint8Array<ArrayBuffer> {
  const buf = new Uint8Array(bytes);
  for (let at = 0; at < bytes; at += SECTOR_BYTES) {
    fillSector(buf.subarray(at, at + SECTOR_BYTES), id, (offset + at) / SECTOR_BYTES);
  }
  return buf;
}

/** Of which write a sector is: an id, NOTHING, or RUBBISH. */
export function idOf(bytes: Uint8Array, sector: number): number {
  const id = readU32(bytes, 0);
  fillSector(scratch, id, sector);
  return Buffer.compare(scratch, bytes) === 0 ? id : RUBBISH;
}

/** The ids of a stretch of a disk. @param first number of its first sector */
export function idsOf(disk: Uint8Array, first = 0): Int32Array {
  const ids = new Int32Array(disk.length / SECTOR_BYTES);
  for (let i = 0; i < ids.length; i++) {
    const at = i * SECTOR_BYTES;
    ids[i] = idOf(disk.subarray(at, at + SECTOR_BYTES), first + i);
  }
  return ids;
}
