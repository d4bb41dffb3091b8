/** `npm run simulate -- --locks [--steps N] [--seed N] [--trace]`: the exploration of locks by hand. */

import { ExplorationError, explore, OPERATIONS_PER_RUN } from "./explore.ts";

/**
 * @param steps operations from this seed on; null: this seed alone, and every step of it is shown
 * @returns the exit status
 */
export async function exploreLocks(firstSeed: number, steps: number | null): Promise<number> {
  const runs = steps === null ? 1 : Math.ceil(steps / OPERATIONS_PER_RUN);
  const trace = steps === null ? (line: string) => console.log(line) : undefined;
  try {
    for (let seed = firstSeed; seed < firstSeed + runs; seed++) await explore({ seed, trace });
  } catch (error) {
    if (!(error instanceof ExplorationError)) throw error;
    if (!trace) console.log(error.lines.join("\n"));
    console.log(`\nFAILED ${error.message}`);
    return 1;
  }
  console.log(`ok     ${runs * OPERATIONS_PER_RUN} operations from seed ${firstSeed}`);
  return 0;
}
