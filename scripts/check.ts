/** `npm run check`: what needs no browser of `npm test`. */

import { runChecks, STYLE, TYPES, UNIT } from "./checks.ts";

export function main(): Promise<number> {
  return runChecks([TYPES, STYLE, UNIT]);
}
