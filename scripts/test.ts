/** `npm test`: everything that a change must pass. */

import { BROWSER, END_TO_END, runChecks, STYLE, TYPES, UNIT } from "./checks.ts";

export function main(): Promise<number> {
  return runChecks([TYPES, STYLE, UNIT, BROWSER, END_TO_END]);
}
