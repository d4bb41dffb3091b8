/** What a guest does, from a seed: page and test know it both, so the page need only tell how far it is. */

import { seededRandom } from "../../../src/base/random.ts";

export const DISK_BYTES = 4 * 1024 * 1024;
const SECTOR_BYTES = 512;
const MOST_SECTORS = 128;

export interface Step {
  readonly kind: "write" | "zeroes" | "flush";
  readonly offset: number;
  readonly bytes: number;
  /** Of what is written: see test/crash/content.ts. */
  readonly id: number;
}

/** Without end. @param firstId no id below it is used */
export function* stepsOf(seed: number, firstId: number, diskBytes = DISK_BYTES): Generator<Step> {
  const random = seededRandom(seed);
  for (let id = firstId; ; id++) {
    const count = 1 + random.below(random.below(3) === 0 ? MOST_SECTORS : 9);
    const offset = random.below(diskBytes / SECTOR_BYTES - count + 1) * SECTOR_BYTES;
    const dice = random.below(10);
    const kind = dice < 6 ? "write" : dice < 8 ? "zeroes" : "flush";
    yield { kind, offset, bytes: count * SECTOR_BYTES, id: kind === "zeroes" ? 0 : id };
  }
}
