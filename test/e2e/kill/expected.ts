/** What a disk may read as when its guest's browser has been killed. */

import { SECTOR_BYTES } from "../../crash/content.ts";
import { Expected, type Version } from "../../crash/guest.ts";
import type { Step } from "./plan.ts";

/**
 * @param start what each sector was before
 * @param begun the last step that had begun
 * @param done how many were over
 */
export function expectedAfter(
  start: Int32Array,
  steps: Iterable<Step>,
  begun: number,
  done: number,
): Expected {
  const sectors: Version[][] = Array.from(start, (id) => [{ id, from: 0, done: 0 }]);
  let before = 0;
  let step = 0;
  for (const { kind, offset, bytes, id } of steps) {
    if (step > begun) break;
    if (kind === "flush") {
      if (step < done) before = step + 1;
    } else {
      for (let at = offset; at < offset + bytes; at += SECTOR_BYTES) {
        sectors[at / SECTOR_BYTES]!.push({ id, from: step, done: step + 1 });
      }
    }
    step++;
  }
  const sizes = [{ id: start.length * SECTOR_BYTES, from: 0, done: 0 }];
  return new Expected(sectors, sizes, { from: 0, before, root: "top" }, begun + 1);
}
