/** All kinds of operation that a crash may cut: the rows of docs/crash.md. */

import type { Kind } from "../trial.ts";
import { allocation } from "./allocation.ts";
import { bitmaps } from "./bitmaps.ts";
import { jobs } from "./jobs.ts";
import { logged } from "./logged.ts";
import { oddSizes } from "./odd-sizes.ts";
import { repairs } from "./repair.ts";
import { sizes } from "./sizes.ts";
import { snapshots } from "./snapshots.ts";

export const KINDS: readonly Kind[] = [
  ...allocation,
  ...snapshots,
  ...bitmaps,
  ...sizes,
  ...oddSizes,
  ...jobs,
  ...repairs,
  ...logged,
];
