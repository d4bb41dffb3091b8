/** The subcommands: the one place where a new one is listed. */

import type { ImgCommand } from "../command.ts";
import { amend } from "./amend.ts";
import { bitmap } from "./bitmap.ts";
import { create } from "./create.ts";
import { info } from "./info.ts";
import { map } from "./map.ts";
import { measure } from "./measure.ts";
import { resize } from "./resize.ts";
import { snapshot } from "./snapshot.ts";

export const COMMANDS: readonly ImgCommand[] = [
  amend,
  bitmap,
  create,
  info,
  map,
  measure,
  resize,
  snapshot,
];
