/** The subcommands: the one place where a new one is listed. */

import type { ImgCommand } from "../command.ts";
import { create } from "./create.ts";
import { info } from "./info.ts";
import { map } from "./map.ts";

export const COMMANDS: readonly ImgCommand[] = [create, info, map];
