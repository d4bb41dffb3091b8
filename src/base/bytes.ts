/**
 * Numbers in byte arrays, and alignment. Offsets are plain numbers, exact to 2^53, so nothing here
 * uses bit operators on them: those cut to 32 bits.
 */

import { BlockError } from "./errors.ts";

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;
/** What disks are counted in, whatever else their blocks are (QEMU: BDRV_SECTOR_SIZE). */
export const SECTOR_BYTES = 512;

/** Rounds down to a multiple of `granule`. */
export function alignDown(value: number, granule: number): number {
  return value - (value % granule);
}

/** Rounds up to a multiple of `granule`. */
export function alignUp(value: number, granule: number): number {
  const rest = value % granule;
  return rest === 0 ? value : value + (granule - rest);
}

export function readU16(bytes: Uint8Array, at: number): number {
  return bytes[at]! * 0x100 + bytes[at + 1]!;
}

export function readU32(bytes: Uint8Array, at: number): number {
  return readU16(bytes, at) * 0x10000 + readU16(bytes, at + 2);
}

/**
 * A big-endian u64 as a number.
 *
 * @param what the field's name, for the error
 * @throws BlockError EFBIG from 2^53 on, where numbers stop being exact
 */
export function readU64(bytes: Uint8Array, at: number, what: string): number {
  const high = readU32(bytes, at);
  const low = readU32(bytes, at + 4);
  if (high >= 0x200000) {
    const shown = `0x${((BigInt(high) << 32n) | BigInt(low)).toString(16)}`;
    throw new BlockError("EFBIG", `${what} is ${shown}; at most 2^53 - 1 is supported`);
  }
  return high * 2 ** 32 + low;
}

export function writeU16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

export function writeU32(bytes: Uint8Array, at: number, value: number): void {
  writeU16(bytes, at, value >>> 16);
  writeU16(bytes, at + 2, value);
}

/** @param value whole number, 0 .. 2^53-1 */
export function writeU64(bytes: Uint8Array, at: number, value: number): void {
  writeU32(bytes, at, Math.floor(value / 2 ** 32));
  writeU32(bytes, at + 4, (value % 2 ** 32) >>> 0);
}
