/** Thousands of random steps, all of them from seeds: see simulation.ts. */

import { expect, it } from "vitest";
import { STEPS_PER_RUN, simulate } from "./simulation.ts";

/** `npm run simulate` does more, and shows what went wrong. */
const STEPS = 100_000;

it("loses no write, hangs no job, and leaves nothing behind, whatever is asked of it", async () => {
  const ends = new Map<string, number>();
  for (let seed = 1; seed * STEPS_PER_RUN <= STEPS; seed++) {
    const report = await simulate({ seed });
    for (const [end, count] of report.ends) ends.set(end, (ends.get(end) ?? 0) + count);
  }
  // It was about something.
  for (const type of ["stream", "commit", "mirror", "backup"]) {
    for (const end of ["completed", "cancelled", "failed"]) {
      expect(ends.get(`${type} ${end}`), `${type} ${end}`).toBeGreaterThan(0);
    }
  }
}, 600_000);
