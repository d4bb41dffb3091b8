/**
 * Verbs at any moment on groups of jobs, replayable from a seed. Whatever happens: only legal moves,
 * every ending exactly once, groups of one mind, no work under a drain, refusals only where the
 * rules say so, and nobody waits for ever.
 *
 *   JOB_SEED=42 npx vitest run --project node test/job/interleave.test.ts       this one seed
 *   JOB_SEEDS=100000 …                                                          so many
 */

import { expect, it } from "vitest";
import { seededRandom } from "../../src/base/random.ts";
import { Chaos } from "./chaos.ts";

const { JOB_SEED, JOB_SEEDS } = process.env;
const FIRST = Number(JOB_SEED ?? 1);
const SEEDS = JOB_SEED ? 1 : Number(JOB_SEEDS ?? 3000);

it(`#24 keeps its promises in ${SEEDS} random worlds`, async () => {
  const endings = new Map<string, number>();
  for (let seed = FIRST; seed < FIRST + SEEDS; seed++) {
    const chaos = new Chaos(seededRandom(seed));
    try {
      await chaos.run();
    } catch (reason) {
      const text = `JOB_SEED=${seed}: ${reason}\n${chaos.log.join("\n")}`;
      throw new Error(text, { cause: reason });
    }
    for (const { end } of chaos.lives) endings.set(end, (endings.get(end) ?? 0) + 1);
  }
  // A run that never gets anywhere proves nothing: each way to end has been gone many times.
  if (JOB_SEED) return;
  for (const end of ["success", "failed", "cancelled", "never started", "never set up"]) {
    expect(endings.get(end) ?? 0, `${end} in ${[...endings]}`).toBeGreaterThan(SEEDS / 100);
  }
}, 3_600_000);
