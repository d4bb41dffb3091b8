/**
 * Every kernel again, in plain TypeScript: what it should answer, said as simply as can be while
 * still being a fair thing to race against. No tricks are shared with assembly/.
 */

import { readU32 } from "../../src/base/bytes.ts";
import type { ClusterKind, ClusterRun } from "../../src/kernel/kernel.ts";

export function isZero(buf: Uint8Array): boolean {
  const head = Math.min((4 - (buf.byteOffset % 4)) % 4, buf.length);
  const tail = buf.length - ((buf.length - head) % 4);
  for (let i = 0; i < head; i++) if (buf[i] !== 0) return false;
  for (let i = tail; i < buf.length; i++) if (buf[i] !== 0) return false;
  if (tail === head) return true;
  const words = new Uint32Array(buf.buffer, buf.byteOffset + head, (tail - head) / 4);
  for (let i = 0; i < words.length; i++) if (words[i] !== 0) return false;
  return true;
}

export function zeroRun(buf: Uint8Array, granule: number): { bytes: number; zero: boolean } {
  const zero = isZero(buf.subarray(0, granule));
  let bytes = granule;
  while (bytes < buf.length && isZero(buf.subarray(bytes, bytes + granule)) === zero) {
    bytes += granule;
  }
  return { bytes: Math.min(bytes, buf.length), zero };
}

export function firstDifference(a: Uint8Array, b: Uint8Array): number {
  return a.findIndex((byte, i) => byte !== b[i]);
}

export function gather(
  target: Uint8Array,
  source: Uint8Array,
  indexes: Uint32Array,
  clusterBytes: number,
): void {
  indexes.forEach((index, i) => {
    for (let at = 0; at < clusterBytes; at++) {
      target[i * clusterBytes + at] = source[index * clusterBytes + at]!;
    }
  });
}

export function scatter(
  target: Uint8Array,
  source: Uint8Array,
  indexes: Uint32Array,
  clusterBytes: number,
): void {
  indexes.forEach((index, i) => {
    for (let at = 0; at < clusterBytes; at++) {
      target[index * clusterBytes + at] = source[i * clusterBytes + at]!;
    }
  });
}

const SINGLE: readonly ClusterKind[] = ["compressed", "invalid"];

export function l2Run(
  table: Uint8Array,
  index: number,
  limit: number,
  clusterBits: number,
  externalData: boolean,
): ClusterRun {
  const high = readU32(table, index * 8);
  const low = readU32(table, index * 8 + 4);
  const clusterBytes = 2 ** clusterBits;
  const kind = entryKind(high, low, clusterBytes, externalData);
  if (SINGLE.includes(kind)) return { kind, count: 1, copied: false };
  const hasCluster = kind === "normal" || kind === "zero-alloc";
  const copied = hasCluster && high >= 2 ** 31;
  const offset = hostOffset(high, low);

  let count = 1;
  for (; count < limit; count++) {
    const high = readU32(table, (index + count) * 8);
    const low = readU32(table, (index + count) * 8 + 4);
    if (entryKind(high, low, clusterBytes, externalData) !== kind) break;
    if (!hasCluster) continue;
    if (high >= 2 ** 31 !== copied) break;
    if (hostOffset(high, low) !== offset + count * clusterBytes) break;
  }
  return { kind, count, copied };
}

function entryKind(
  high: number,
  low: number,
  clusterBytes: number,
  externalData: boolean,
): ClusterKind {
  const copied = high >= 2 ** 31;
  if ((high & 0x4000_0000) !== 0) return externalData ? "invalid" : "compressed";
  if ((high & 0x3f00_0000) !== 0 || (low & 0x1fe) !== 0) return "invalid";
  // A cluster has at most 2^21 bytes: where it starts is all in the low half.
  if ((low & (clusterBytes - 512)) !== 0) return "invalid";
  const offset = hostOffset(high, low);
  if ((low & 1) !== 0) return offset === 0 ? "zero-plain" : "zero-alloc";
  if (offset !== 0) return "normal";
  return externalData && copied ? "normal" : "unallocated";
}

/** Exact although up to 2^56: the low nine bits are zero. */
function hostOffset(high: number, low: number): number {
  return (high & 0x00ff_ffff) * 2 ** 32 + (low - (low & 0x1ff));
}

export function l2RunExtended(
  table: Uint8Array,
  index: number,
  subcluster: number,
  limit: number,
  clusterBits: number,
  externalData: boolean,
): ClusterRun {
  const clusterBytes = 2 ** clusterBits;
  const start = index * 32 + subcluster;
  const first = subclusterAt(table, start, clusterBytes, externalData);
  const { kind, copied } = first;
  if (SINGLE.includes(kind)) return { kind, count: Math.min(32 - subcluster, limit), copied };
  let count = 1;
  for (; count < limit; count++) {
    const next = subclusterAt(table, start + count, clusterBytes, externalData);
    if (next.kind !== kind || next.copied !== copied) break;
    const clusters = Math.floor((start + count) / 32) - index;
    if (first.hasCluster && next.offset !== first.offset + clusters * clusterBytes) break;
  }
  return { kind, count, copied };
}

function subclusterAt(
  table: Uint8Array,
  position: number,
  clusterBytes: number,
  externalData: boolean,
): { kind: ClusterKind; copied: boolean; hasCluster: boolean; offset: number } {
  const at = Math.floor(position / 32) * 16;
  const bit = position % 32;
  const [high, low] = [readU32(table, at), readU32(table, at + 4)];
  const [zeroes, allocated] = [readU32(table, at + 8), readU32(table, at + 12)];
  const entry = entryKind(high, low, clusterBytes, externalData);
  const nothing = { copied: false, hasCluster: false, offset: 0 };

  if (entry === "compressed") {
    return { ...nothing, kind: zeroes === 0 && allocated === 0 ? "compressed" : "invalid" };
  }
  if (entry !== "normal" && entry !== "unallocated") return { ...nothing, kind: "invalid" };
  const zero = ((zeroes >>> bit) & 1) === 1;
  if (entry === "unallocated") {
    if (allocated !== 0) return { ...nothing, kind: "invalid" };
    return { ...nothing, kind: zero ? "zero-plain" : "unallocated" };
  }
  if ((zeroes & allocated) !== 0) return { ...nothing, kind: "invalid" };
  const data = ((allocated >>> bit) & 1) === 1;
  return {
    kind: zero ? "zero-alloc" : data ? "normal" : "unallocated-alloc",
    copied: high >= 2 ** 31,
    hasCluster: true,
    offset: hostOffset(high, low),
  };
}

/** Exact at every width. */
export function refcountAt(block: Uint8Array, order: number, index: number): bigint {
  const bits = 2 ** order;
  if (bits < 8) {
    const byte = block[Math.floor((index * bits) / 8)]!;
    return BigInt(Math.floor(byte / 2 ** ((index * bits) % 8)) % 2 ** bits);
  }
  let value = 0n;
  for (let i = 0; i < bits / 8; i++) value = value * 256n + BigInt(block[(index * bits) / 8 + i]!);
  return value;
}

export function setRefcount(block: Uint8Array, order: number, index: number, value: bigint): void {
  const bits = 2 ** order;
  if (bits < 8) {
    const at = Math.floor((index * bits) / 8);
    const unit = 2 ** ((index * bits) % 8);
    block[at]! += (Number(value) - Number(refcountAt(block, order, index))) * unit;
    return;
  }
  for (let i = bits / 8 - 1, rest = value; i >= 0; i--, rest /= 256n) {
    block[(index * bits) / 8 + i] = Number(rest % 256n);
  }
}

export function refcountGet(block: Uint8Array, order: number, index: number): number {
  return Math.min(Number(refcountAt(block, order, index)), 2 ** 53);
}

export function refcountAdd(
  block: Uint8Array,
  order: number,
  index: number,
  count: number,
  delta: number,
): number {
  const end = 2n ** BigInt(2 ** order);
  for (let i = index; i < index + count; i++) {
    const sum = refcountAt(block, order, i) + BigInt(delta);
    if (sum < 0n || sum >= end) return i;
  }
  for (let i = index; i < index + count; i++) {
    setRefcount(block, order, i, refcountAt(block, order, i) + BigInt(delta));
  }
  return -1;
}

export function findFreeRun(
  block: Uint8Array,
  order: number,
  start: number,
  limit: number,
  want: number,
): { index: number; count: number } | null {
  const isFree = (i: number) => i < start + limit && refcountAt(block, order, i) === 0n;
  let index = start;
  while (index < start + limit && !isFree(index)) index++;
  if (index === start + limit) return null;
  let count = 1;
  while (count < want && isFree(index + count)) count++;
  return { index, count };
}

function bit(map: Uint8Array, i: number): number {
  return Math.floor(map[Math.floor(i / 8)]! / 2 ** (i % 8)) % 2;
}

export function bitmapNext(map: Uint8Array, start: number, end: number, value: 0 | 1): number {
  for (let i = start; i < end; i++) if (bit(map, i) === value) return i;
  return -1;
}

export function bitmapFill(map: Uint8Array, start: number, count: number, value: 0 | 1): void {
  for (let i = start; i < start + count; i++) {
    map[Math.floor(i / 8)]! += (value - bit(map, i)) * 2 ** (i % 8);
  }
}

export function bitmapCount(map: Uint8Array, start: number, count: number): number {
  let set = 0;
  for (let i = start; i < start + count; i++) set += bit(map, i);
  return set;
}

export function bitmapMerge(target: Uint8Array, source: Uint8Array): void {
  for (let i = 0; i < target.length; i++) target[i]! |= source[i]!;
}
