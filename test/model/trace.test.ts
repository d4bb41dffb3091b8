/** The same seed is the same run, or a failure could not be looked into. */

import { expect, it } from "vitest";
import { simulate } from "./simulation.ts";

it.each([1, 2, 3, 25, 77])("does the same again with seed %i", async (seed) => {
  const first = await traceOf(seed);
  expect(await traceOf(seed)).toEqual(first);
  expect(first.length).toBeGreaterThan(500);
});

async function traceOf(seed: number): Promise<string[]> {
  const lines: string[] = [];
  await simulate({ seed, trace: (line) => lines.push(line) });
  return lines;
}
