/**
 * The whole engine under random use: guests that read and write, jobs of all types, every verb at
 * every moment, snapshots, transactions, bitmaps, drains, clients that leave, stores that are slow and
 * fail, and time that goes on. All of it follows from a seed, so a failure can be run again.
 *
 *   step ──▶ one action, picked by the seed ──▶ what the tables allow, and nothing else, has happened
 *   end  ──▶ all jobs end, or the engine closes in the midst of them ──▶ every disk and every copy
 *            equals its model; nothing is left behind; a new engine finds the same in the stores
 */

import { Ending } from "./ending.ts";
import { Run, STEPS_PER_RUN } from "./run.ts";

export { STEPS_PER_RUN } from "./run.ts";

export interface SimulationOptions {
  readonly seed: number;
  readonly steps?: number;
  /** Sees every action and every message. */
  readonly trace?: (line: string) => void;
}

/** What a run was like: for people, and for the check that it did something. */
export interface SimulationReport {
  /** Jobs started, by type and end: "mirror completed". */
  readonly ends: ReadonlyMap<string, number>;
  readonly guestRequests: number;
}

/** What a simulation has found. */
export class SimulationError extends Error {
  override readonly name = "SimulationError";
  readonly seed: number;
  /** Where it was: "step 12", or "the end". */
  readonly where: string;
  /** What happened last. */
  readonly lines: readonly string[];

  constructor(seed: number, where: string, lines: readonly string[], cause: unknown) {
    const text = cause instanceof Error ? cause.message : String(cause);
    super(
      `seed ${seed}, ${where}: ${text}\nAll of it:  npm run simulate -- --seed ${seed} --trace`,
      { cause },
    );
    this.seed = seed;
    this.where = where;
    this.lines = lines;
  }
}

const LINES_MAX = 60;

/** @throws SimulationError */
export async function simulate(options: SimulationOptions): Promise<SimulationReport> {
  const { seed, steps = STEPS_PER_RUN } = options;
  const lines: string[] = [];
  const note = (line: string) => {
    lines.push(line);
    if (lines.length > LINES_MAX) lines.shift();
    options.trace?.(line);
  };
  const run = await Run.make(seed, note);
  let step = 0;
  try {
    for (; step < steps && !run.isCutShort; step++) await run.step(step);
    note(run.isCutShort ? "the engine closes" : "the end begins");
    await new Ending(run).end();
  } catch (error) {
    const where = step < steps && !run.isCutShort ? `step ${step}` : "the end";
    throw new SimulationError(seed, where, lines, error);
  }
  return { ends: run.jobs.ends, guestRequests: run.guests.reduce((sum, g) => sum + g.requests, 0) };
}
