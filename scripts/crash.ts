/**
 * `npm run crash [-- --states 100000] [--seed 7] [--only NAME]`: cuts the power in the middle of every
 * kind of operation, as often as one likes. A state that must not be is shown with all that makes it
 * again, and its files are kept.
 */

import { parseArgs } from "node:util";
import { KINDS } from "../test/crash/kinds/index.ts";
import { CrashError, crash, type Report } from "../test/crash/run.ts";
import { formatSeconds } from "../web/format.ts";
import { UserError } from "./setup.mjs";

const STATES = 10_000;
const SEED_MAX = 2 ** 31;
const TELL_EVERY_MS = 2000;

const USAGE = `Usage: npm run crash -- [--states N] [--seed N] [--only PART OF A NAME] [--list]

Records what operations on qcow2 images write, makes the files that a crash could leave, and holds
each against our check, the real qemu-img and what the guest was promised. See docs/crash.md.

  --states N    so many for all kinds together (default ${STATES})
  --seed N      the first seed (default 1)
  --only NAME   only kinds with this in their names
  --list        names of the kinds, and no more`;

export async function main(args: string[]): Promise<number> {
  const values = parse(args);
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  const kinds = KINDS.filter(({ name }) => name.includes(values.only ?? ""));
  if (kinds.length === 0)
    throw new UserError(`no kind has '${values.only}' in its name; see --list`);
  if (values.list) {
    for (const { name } of kinds) console.log(name);
    return 0;
  }
  const states = numberOf("states", values.states ?? String(STATES), Number.MAX_SAFE_INTEGER);
  const seed = numberOf("seed", values.seed ?? "1", SEED_MAX);
  console.log(`       ${kinds.length} kinds of operation, ${states} states, seed ${seed}`);
  const startMs = performance.now();
  let toldMs = startMs;
  try {
    const report = await crash({
      kinds,
      states,
      seed,
      onProgress(report, kind) {
        const nowMs = performance.now();
        if (nowMs - toldMs < TELL_EVERY_MS) return;
        toldMs = nowMs;
        const rate = report.states / ((nowMs - startMs) / 1000);
        const left = formatSeconds((states - report.states) / rate);
        const line = `${report.states} of ${states} states  ${rate.toFixed(0)} a second  ${left} left`;
        console.log(`       ${line}  ${kind.name}`);
      },
    });
    console.log(`ok     ${figures(report)}, seed ${seed}, ${since(startMs)}`);
    return 0;
  } catch (error) {
    if (!(error instanceof CrashError)) throw error;
    const { cause } = error;
    console.log(`FAILED ${error.message}\n${cause instanceof Error ? cause.stack : ""}`);
    return 1;
  }
}

function figures({ states, trials, distinct, leaky, checked, sampled }: Report): string {
  return (
    `${states} states of ${trials} runs: ${distinct} distinct, ${leaky} of them leak, none is corrupt, ` +
    `${checked} checks by qemu-img, which has read ${sampled}`
  );
}

const since = (startMs: number) => formatSeconds((performance.now() - startMs) / 1000);

function parse(args: string[]) {
  try {
    return parseArgs({
      args,
      options: {
        states: { type: "string" },
        seed: { type: "string" },
        only: { type: "string" },
        list: { type: "boolean" },
        help: { type: "boolean", short: "h" },
      },
    }).values;
  } catch (error) {
    throw new UserError((error as Error).message);
  }
}

/** @throws UserError */
function numberOf(name: string, text: string, max: number): number {
  const number = Number(text);
  if (/^\d+$/.test(text) && number > 0 && number <= max) return number;
  throw new UserError(`--${name} takes a whole number from 1 to ${max}; got '${text}'`);
}
