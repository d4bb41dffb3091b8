/** Random disks with holes of all sizes, for what moves them. */

import { writeFileSync } from "node:fs";
import type { Random } from "../../src/base/random.ts";

/** Runs of data and zeroes: sectors, pages, clusters, and parts of them. */
export function patchyDisk(random: Random, bytes: number): Uint8Array {
  const disk = new Uint8Array(bytes);
  const units = [512, 4096, 65536, 100, 300_000];
  for (let at = 0; at < bytes; ) {
    const run = units[random.below(units.length)]! * (1 + random.below(5));
    const end = Math.min(bytes, at + run);
    if (random.below(2) === 0) {
      let state = random.below(2 ** 31) | 1;
      const dull = random.below(3) === 0;
      for (let i = at; i < end; i++) {
        state = (Math.imul(state, 1103515245) + 12345) >>> 0;
        disk[i] = dull ? 7 : (state >>> 24) | 1;
      }
    }
    at = end;
  }
  return disk;
}

export function writePatchy(random: Random, path: string, bytes: number): Uint8Array {
  const disk = patchyDisk(random, bytes);
  writeFileSync(path, disk);
  return disk;
}
