/**
 * Many clients on many domains, at random: docs/domain-locks.md tells what must hold. It takes as long
 * as 100 000 operations take. A seed that fails: npm run simulate -- --locks --seed N --trace
 */

import { expect, it } from "vitest";
import { type Counts, ExplorationError, explore, OPERATIONS_PER_RUN } from "./explore.ts";

const OPERATIONS = 100_000;

it("holds through 100 000 operations, with every kind of them and of failure", async () => {
  const counts: Counts = new Map();
  for (let seed = 1; seed <= OPERATIONS / OPERATIONS_PER_RUN; seed++)
    await explore({ seed }, counts);
  const kinds = ["query", "destroy", "suspend", "modify", "abort", "modify-migration-safe", "agent"]
    .concat(["async", "async-nested", "event", "undefined", "waited for a block job"])
    .concat(["timeout", "queue-limit", "nowait", "aborted", "gone"]);
  for (const kind of kinds) expect([kind, counts.get(kind) ?? 0]).not.toEqual([kind, 0]);
}, 300_000);

it("goes the same way with the same seed, and says which it was", async () => {
  const runs = [0, 1].map(async () => {
    const lines: string[] = [];
    await explore({ seed: 7, trace: (line) => lines.push(line) });
    return lines;
  });
  const [first, second] = await Promise.all(runs);
  expect(first!.length).toBeGreaterThan(OPERATIONS_PER_RUN);
  expect(second).toEqual(first);
  expect(new ExplorationError(7, new Error("it broke"), []).message).toBe("seed 7: it broke");
});
