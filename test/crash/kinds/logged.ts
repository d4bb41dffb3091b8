/**
 * The same operations, recorded by the filter blklogwrites in its own format. Those on one file only, and
 * without a file that gets shorter: the log knows no lengths.
 */

import type { Kind } from "../trial.ts";
import { allocation } from "./allocation.ts";
import { bitmaps } from "./bitmaps.ts";
import { sizes } from "./sizes.ts";
import { snapshots } from "./snapshots.ts";

const SHARE = 0.3;
const SIZES = [
  "grow",
  "grow, and the L1 table with it",
  "the refcount table moves",
  "amend: version and lazy refcounts",
  "amend: width of refcounts",
  "several guests at once",
];

export const logged: readonly Kind[] = [
  ...allocation,
  ...snapshots,
  ...bitmaps,
  ...sizes.filter(({ name }) => SIZES.includes(name)),
].map((kind) => ({
  ...kind,
  name: `blklogwrites: ${kind.name}`,
  isLogged: true,
  share: Math.min(SHARE, kind.share ?? 1),
}));
