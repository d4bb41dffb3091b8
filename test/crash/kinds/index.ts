/** All kinds of operation that a crash may cut: the rows of docs/crash.md. */

import type { Kind } from "../trial.ts";
import { allocation } from "./allocation.ts";

export const KINDS: readonly Kind[] = [...allocation];
