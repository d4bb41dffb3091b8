/**
 * The same operations, recorded by the filter blklogwrites in its own format. Those on one file only; and
 * as the log knows no lengths, all that has been cut off a file is still there.
 */

import type { Kind } from "../trial.ts";
import { allocation } from "./allocation.ts";
import { bitmaps } from "./bitmaps.ts";
import { oddSizes } from "./odd-sizes.ts";
import { sizes } from "./sizes.ts";
import { snapshots } from "./snapshots.ts";

const SHARE = 0.25;
const TWO_FILES = ["another backing file in the header", "an external data file"];

export const logged: readonly Kind[] = [
  ...allocation,
  ...snapshots,
  ...bitmaps,
  ...sizes.filter(({ name }) => !TWO_FILES.includes(name)),
  ...oddSizes,
].map((kind) => ({
  ...kind,
  name: `blklogwrites: ${kind.name}`,
  isLogged: true,
  share: Math.min(SHARE, kind.share ?? 1),
}));
