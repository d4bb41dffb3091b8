/** The subcommands: the one place where a new one is listed. */

import type { ImgCommand } from "../command.ts";
import { amend } from "./amend.ts";
import { bitmap } from "./bitmap.ts";
import { check } from "./check.ts";
import { commit } from "./commit.ts";
import { compare } from "./compare.ts";
import { convert } from "./convert.ts";
import { create } from "./create.ts";
import { dd } from "./dd.ts";
import { info } from "./info.ts";
import { map } from "./map.ts";
import { measure } from "./measure.ts";
import { rebase } from "./rebase.ts";
import { resize } from "./resize.ts";
import { snapshot } from "./snapshot.ts";

export const COMMANDS: readonly ImgCommand[] = [
  amend,
  bitmap,
  check,
  commit,
  compare,
  convert,
  create,
  dd,
  info,
  map,
  measure,
  rebase,
  resize,
  snapshot,
];
