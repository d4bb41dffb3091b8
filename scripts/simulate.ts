/**
 * `npm run simulate [-- --steps 1000000] [--seed 7]`: the model check for as long as one likes. A seed
 * that fails is shown with what happened last, and with the command that shows all of it.
 */

import { parseArgs } from "node:util";
import { SimulationError, STEPS_PER_RUN, simulate } from "../test/model/simulation.ts";
import { UserError } from "./setup.mjs";

const USAGE = `Usage: npm run simulate -- [--steps N] [--seed N] [--trace]
       npm run simulate -- --breakages [PART OF A NAME]
       npm run simulate -- --locks [--steps N] [--seed N] [--trace]

Uses the engine at random, ${STEPS_PER_RUN} steps with each seed, and holds it against the model of
docs/model-check.md until it has done so many steps (default 100000), or something is wrong.

  --seed N      the first seed (default 1)
  --trace       run this one seed, and show every step and every message
  --breakages   break the engine in many places, one after the other, each in a copy of the
                sources, and show that the model notices
  --locks       the locks of domains instead (docs/domain-locks.md)`;

const STEPS = 100_000;
const SEED_MAX = 2 ** 32 - 1;
const TELL_EVERY_MS = 2000;

export async function main(args: string[]): Promise<number> {
  const { values, positionals } = parse(args);
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  if (values.breakages) {
    // Only now: it is for those who work on the model.
    const { showBreakages } = await import("../test/model/break.ts");
    return showBreakages(positionals[0] ?? "");
  }
  if (positionals[0] !== undefined) {
    const options = "it takes --steps, --seed, --trace, --breakages, --locks; --help tells more";
    throw new UserError(`what is '${positionals[0]}'? ${options}`);
  }
  const seed = numberOf("seed", values.seed ?? "1", SEED_MAX);
  if (values.locks) {
    const { exploreLocks } = await import("../test/domain/locks/replay.ts");
    const steps = numberOf("steps", values.steps ?? String(STEPS), Number.MAX_SAFE_INTEGER);
    return exploreLocks(seed, values.trace ? null : steps);
  }
  if (values.trace) return showTrace(seed);
  return run(seed, numberOf("steps", values.steps ?? String(STEPS), Number.MAX_SAFE_INTEGER));
}

function parse(args: string[]) {
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: {
        steps: { type: "string" },
        seed: { type: "string" },
        trace: { type: "boolean" },
        breakages: { type: "boolean" },
        locks: { type: "boolean" },
        help: { type: "boolean", short: "h" },
      },
    });
  } catch (error) {
    throw new UserError((error as Error).message);
  }
}

/** @throws UserError */
function numberOf(name: string, text: string, max: number): number {
  const number = Number(text);
  if (/^\d+$/.test(text) && number <= max) return number;
  throw new UserError(`--${name} takes a whole number up to ${max}; got '${text}'`);
}

async function run(firstSeed: number, steps: number): Promise<number> {
  const progress = new Rate(steps);
  const ends = new Map<string, number>();
  for (let done = 0; done < steps; done += STEPS_PER_RUN) {
    // After the last seed comes the first one.
    const seed = (firstSeed + done / STEPS_PER_RUN) % (SEED_MAX + 1);
    try {
      const report = await simulate({ seed, steps: Math.min(STEPS_PER_RUN, steps - done) });
      for (const [end, count] of report.ends) ends.set(end, (ends.get(end) ?? 0) + count);
    } catch (error) {
      if (!(error instanceof SimulationError)) throw error;
      progress.end();
      tell(error);
      return 1;
    }
    progress.show(done + STEPS_PER_RUN);
  }
  progress.end();
  const jobs = [...ends].sort().map(([end, count]) => `${count} ${end}`);
  console.log(`ok     ${group(steps)} steps from seed ${firstSeed}; jobs: ${jobs.join(", ")}`);
  return 0;
}

async function showTrace(seed: number): Promise<number> {
  try {
    await simulate({ seed, trace: (line) => console.log(line) });
  } catch (error) {
    if (!(error instanceof SimulationError)) throw error;
    console.log(`${causeOf(error)}\n\nFAILED ${error.message}`);
    return 1;
  }
  console.log(`ok     seed ${seed}`);
  return 0;
}

function tell(error: SimulationError): void {
  console.log(`${error.lines.join("\n")}\n\n${causeOf(error)}\n\nFAILED ${error.message}`);
}

/** Where in the engine, or in the model, it was noticed. */
function causeOf({ cause }: SimulationError): string {
  const stack = cause instanceof Error ? (cause.stack ?? "") : "";
  return stack.split("\n").slice(1).join("\n");
}

/** "  120 000 of 1 000 000 steps  2 700 a second", on one line where the terminal can do that. */
class Rate {
  readonly #steps: number;
  readonly #startMs = performance.now();
  #toldMs = performance.now();

  constructor(steps: number) {
    this.#steps = steps;
  }

  show(done: number): void {
    const nowMs = performance.now();
    if (nowMs - this.#toldMs < TELL_EVERY_MS) return;
    this.#toldMs = nowMs;
    const rate = Math.round(done / ((nowMs - this.#startMs) / 1000));
    const line = `       ${group(done)} of ${group(this.#steps)} steps  ${group(rate)} a second`;
    process.stdout.write(process.stdout.isTTY ? `\r\x1b[K${line}` : `${line}\n`);
  }

  end(): void {
    if (process.stdout.isTTY) process.stdout.write("\r\x1b[K");
  }
}

/** 1234567 → "1 234 567" */
function group(number: number): string {
  return String(number).replace(/\B(?=(\d{3})+$)/g, " ");
}
