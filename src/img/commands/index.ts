/** The subcommands: the one place where a new one is listed. */

import type { ImgCommand } from "../command.ts";
import { commit } from "./commit.ts";
import { compare } from "./compare.ts";
import { convert } from "./convert.ts";
import { create } from "./create.ts";
import { dd } from "./dd.ts";
import { rebase } from "./rebase.ts";

export const COMMANDS: readonly ImgCommand[] = [commit, compare, convert, create, dd, rebase];
