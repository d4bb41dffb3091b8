/** The subcommands: the one place where a new one is listed. */

import type { ImgCommand } from "../command.ts";
import { compare } from "./compare.ts";
import { convert } from "./convert.ts";
import { create } from "./create.ts";

export const COMMANDS: readonly ImgCommand[] = [compare, convert, create];
