/** 384 KiB that claim to be half a TiB: see docs/hostile.md. */

import { deflateRawSync } from "node:zlib";
import { GiB, KiB, writeU32, writeU64 } from "../../src/base/bytes.ts";

export const CLUSTER = 64 * KiB;
export const SIZE = 512 * GiB;

/** header │ refcount table │ refcount block │ L1: 1024 entries │ L2: 8192 entries │ 79 bytes or so */
export function bomb(l1Entries = 1024, l2Tables = 1): Uint8Array {
  const bytes = new Uint8Array((5 + l2Tables) * CLUSTER);
  writeU32(bytes, 0, 0x514649fb);
  writeU32(bytes, 4, 3);
  writeU32(bytes, 20, 16);
  writeU64(bytes, 24, SIZE);
  writeU32(bytes, 36, 1024);
  writeU64(bytes, 40, 3 * CLUSTER);
  writeU64(bytes, 48, CLUSTER);
  writeU32(bytes, 56, 1);
  writeU32(bytes, 96, 4);
  writeU32(bytes, 100, 112);
  writeU64(bytes, CLUSTER, 2 * CLUSTER);
  for (let i = 0; i < 5 + l2Tables; i++) bytes[2 * CLUSTER + i * 2 + 1] = 1;
  const stream = (4 + l2Tables) * CLUSTER;
  bytes.set(deflateRawSync(new Uint8Array(CLUSTER).fill(7), { windowBits: 12, level: 9 }), stream);
  for (let i = 0; i < l1Entries; i++) {
    writeU64(bytes, 3 * CLUSTER + i * 8, (4 + (i % l2Tables)) * CLUSTER);
  }
  for (let i = 0; i < l2Tables * 8192; i++) {
    writeU32(bytes, 4 * CLUSTER + i * 8, 0x40000000);
    writeU32(bytes, 4 * CLUSTER + i * 8 + 4, stream);
  }
  return bytes;
}
