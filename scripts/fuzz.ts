/**
 * `npm run fuzz -- --nbd 10000 [--seed 7]`: nonsense against an engine, for as long as one likes. What
 * fails is shown with the command that shows it again.
 */

import { parseArgs } from "node:util";
import { MiB } from "../src/base/bytes.ts";
import { systemRandom } from "../src/base/random.ts";
import { fuzzNbd } from "../test/fuzz/nbd/fuzz.ts";
import { UserError } from "./setup.mjs";

/** Runs that many cases from a seed on. @throws Error that names the seed of the case that fails */
type Fuzzer = (cases: number, seed: number) => Promise<string>;

const FUZZERS: Readonly<Record<string, { readonly what: string; readonly run: Fuzzer }>> = {
  nbd: {
    what: "NBD byte streams, over connections in memory",
    run: (cases, seed) => runNbd(cases, seed, false),
  },
  "nbd-sockets": {
    what: "NBD byte streams, over real sockets",
    run: (cases, seed) => runNbd(cases, seed, true),
  },
};

const SEED_MAX = 2 ** 32 - 1;

const USAGE = `Usage: npm run fuzz -- --WHAT N [--seed N]

Tells an engine N things that are random, or were right before they were changed at random, and looks
after each whether it and its other clients are well. The seed is that of the first; it is printed.

${Object.entries(FUZZERS)
  .map(([name, { what }]) => `  --${name} N`.padEnd(20) + what)
  .join("\n")}`;

export async function main(args: string[]): Promise<number> {
  const values = parse(args);
  const wanted = Object.keys(FUZZERS).filter((name) => values[name] !== undefined);
  if (values["help"] || wanted.length === 0) {
    console.log(USAGE);
    return values["help"] ? 0 : 1;
  }
  const seed = numberOf("seed", values["seed"] ?? `${systemRandom().below(2 ** 31)}`);
  for (const name of wanted) {
    const cases = numberOf(name, values[name]!);
    console.log(`${name}: ${cases} from seed ${seed}`);
    try {
      console.log(`ok     ${await FUZZERS[name]!.run(cases, seed)}`);
    } catch (error) {
      const failed = (error as { seed?: number }).seed;
      const again = failed === undefined ? "" : `\nnpm run fuzz -- --${name} 1 --seed ${failed}`;
      console.log(error, `\nFAILED ${name}, ${(error as Error).message}${again}`);
      return 1;
    }
  }
  return 0;
}

async function runNbd(cases: number, seed: number, onSockets: boolean): Promise<string> {
  const { messages, growth } = await fuzzNbd({
    cases,
    seed,
    onSockets,
    onBatch: (done, bytes) => console.log(`       ${done} streams, ${mebi(bytes)} in use`),
  });
  return `${cases} streams, ${messages} messages back; memory grew by ${mebi(growth)}`;
}

function mebi(bytes: number): string {
  return `${(bytes / MiB).toFixed(1)} MiB`;
}

function parse(args: string[]): Record<string, string | undefined> & { help?: string } {
  const options = Object.fromEntries(
    [...Object.keys(FUZZERS), "seed"].map((name) => [name, { type: "string" } as const]),
  );
  if (args.includes("--help")) return { help: "" };
  try {
    return parseArgs({ args, options }).values as Record<string, string | undefined>;
  } catch (error) {
    throw new UserError((error as Error).message);
  }
}

/** @throws UserError */
function numberOf(name: string, text: string): number {
  const number = Number(text);
  if (/^\d+$/.test(text) && number <= SEED_MAX) return number;
  throw new UserError(`--${name} takes a whole number up to ${SEED_MAX}; got '${text}'`);
}
