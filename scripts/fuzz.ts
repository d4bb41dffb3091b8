/**
 * `npm run fuzz -- --qmp 100000 [--seed 7]`: inputs that nobody would send, as many as one likes. A
 * seed that fails is shown with the last inputs; the same seed and count give the same run.
 */

import { parseArgs } from "node:util";
import { FuzzError, type Fuzzer, type FuzzReport } from "../test/fuzz/fuzzer.ts";
import { FUZZERS } from "../test/fuzz/fuzzers.ts";
import { UserError } from "./setup.mjs";

const USAGE = `Usage: npm run fuzz -- ${FUZZERS.map(({ name }) => `[--${name} N]`).join(" ")} [--seed N]

Sends random and mutated input to an engine, and fails where that stops, does not answer, does not
let others be answered, keeps something behind, or takes more and more memory.

${FUZZERS.map(({ name, inputs }) => `  --${name} N   how many ${inputs}`).join("\n")}
  --seed N  default 1`;

const SEED_MAX = 2 ** 32 - 1;
const TELL_EVERY_MS = 5000;

export async function main(args: string[]): Promise<number> {
  const values = parse(args);
  const chosen = FUZZERS.filter(({ name }) => values[name] !== undefined);
  if (values["help"] || chosen.length === 0) {
    console.log(USAGE);
    return values["help"] ? 0 : 2;
  }
  const seed = numberOf("seed", values["seed"] ?? 1, SEED_MAX);
  for (const fuzzer of chosen) {
    const count = numberOf(fuzzer.name, values[fuzzer.name], Number.MAX_SAFE_INTEGER);
    if (!(await run(fuzzer, count, seed))) return 1;
  }
  return 0;
}

function parse(args: string[]): Record<string, unknown> {
  try {
    return parseArgs({
      args,
      options: {
        ...Object.fromEntries(FUZZERS.map(({ name }) => [name, { type: "string" as const }])),
        seed: { type: "string" },
        help: { type: "boolean", short: "h" },
      },
    }).values;
  } catch (error) {
    throw new UserError((error as Error).message);
  }
}

/** @throws UserError */
function numberOf(name: string, text: unknown, max: number): number {
  const number = Number(text);
  if (/^\d+$/.test(String(text)) && number <= max) return number;
  throw new UserError(`--${name} takes a whole number up to ${max}; got '${text}'`);
}

/** @returns whether all is well */
async function run(fuzzer: Fuzzer, count: number, seed: number): Promise<boolean> {
  let toldMs = performance.now();
  const onProgress = (done: number) => {
    if (performance.now() - toldMs < TELL_EVERY_MS) return;
    toldMs = performance.now();
    console.log(`       ${done} of ${count} ${fuzzer.inputs}`);
  };
  try {
    tell(fuzzer, count, seed, await fuzzer.run({ count, seed, onProgress }));
    return true;
  } catch (error) {
    if (!(error instanceof FuzzError)) throw error;
    const cause = error.cause instanceof Error ? (error.cause.stack ?? "") : "";
    console.log(`${error.inputs.join("\n")}\n\n${cause}\n\nFAILED ${error.message}`);
    return false;
  }
}

function tell({ inputs }: Fuzzer, count: number, seed: number, { kinds, heap }: FuzzReport): void {
  const heard = [...kinds].sort(([, a], [, b]) => b - a).map(([kind, n]) => `${n} ${kind}`);
  const mebibytes = (bytes: number) => (bytes / 2 ** 20).toFixed(1);
  const at = (part: number) => mebibytes(heap[Math.floor((heap.length - 1) * part)] ?? 0);
  console.log(`ok     ${count} ${inputs}, seed ${seed}; heard: ${heard.join(", ")}`);
  console.log(
    `       MiB in use: ${at(0)} after the first of ${heap.length} batches, ${at(0.25)} after a ` +
      `quarter, ${at(0.5)} after half, ${at(1)} at the end; most ${mebibytes(Math.max(0, ...heap))}`,
  );
}
