/** Many clients on many domains, at random: docs/domain-locks.md tells what must hold. */

import { expect, it } from "vitest";
import { type Counts, explore, OPERATIONS_PER_RUN } from "./explore.ts";

const OPERATIONS = 100_000;

it("holds through 100 000 operations, each kind of them and of failure among them", async () => {
  const counts: Counts = new Map();
  for (let seed = 1; seed <= OPERATIONS / OPERATIONS_PER_RUN; seed++)
    await explore({ seed }, counts);
  console.log(counts);
  expect(1).toBe(1);
});
