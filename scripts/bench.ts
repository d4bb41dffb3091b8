/** `npm run bench [-- --only NAME --runs N --json FILE]`: how fast it is, in real Chromium and on Node. */

import { mkdirSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { dirname, resolve } from "node:path";
import { parseArgs } from "node:util";
import { Lab } from "../test/bench/lab.ts";
import { type Aim, type Line, measure, type Result, type Spread } from "../test/bench/line.ts";
import { BUNDLE_LINES } from "../test/bench/lines/bundle.ts";
import { DAEMON_LINES } from "../test/bench/lines/daemon.ts";
import { HAND_OVER_LINES } from "../test/bench/lines/hand-over.ts";
import { JOB_LINES } from "../test/bench/lines/jobs.ts";
import { JOURNAL_LINES } from "../test/bench/lines/journal.ts";
import { KERNEL_LINES } from "../test/bench/lines/kernels.ts";
import { MEMORY_LINES } from "../test/bench/lines/memory.ts";
import { PAGE_LINES } from "../test/bench/lines/page.ts";
import { QCOW2_LINES } from "../test/bench/lines/qcow2.ts";
import { RANDOM_IO_LINES } from "../test/bench/lines/random-io.ts";
import { STREAM_LINES } from "../test/bench/lines/stream.ts";
import { WRITE_INTENT_LINES } from "../test/bench/lines/write-intent.ts";
import { formatSeconds } from "../web/format.ts";
import { UserError } from "./setup.mjs";

const LINES: readonly Line[] = [
  ...STREAM_LINES,
  ...JOB_LINES,
  ...KERNEL_LINES,
  ...PAGE_LINES,
  ...HAND_OVER_LINES,
  ...BUNDLE_LINES,
  ...MEMORY_LINES,
  ...DAEMON_LINES,
  ...JOURNAL_LINES,
  ...WRITE_INTENT_LINES,
  ...QCOW2_LINES,
  ...RANDOM_IO_LINES,
];

const USAGE = `Usage: npm run bench -- [--only NAME]... [--runs N] [--json FILE]

Measures each line next to its reference, pair by pair in one run, and prints the median of the
ratios with the least and the greatest. Needs 20 GiB of disk, and up to some minutes a line. A name may be the
beginning of one: ${LINES.map(({ name }) => name).join(", ")}.`;

interface Options {
  readonly lines: readonly Line[];
  readonly runs: number | undefined;
  readonly json: string | undefined;
}

/** @returns 0 if every line could be measured, whether or not it meets its aim */
export async function main(args: string[]): Promise<number> {
  const options = parse(args);
  if (options === null) {
    console.log(USAGE);
    return 0;
  }
  console.log(`${cpus().length} processors, ${cpus()[0]?.model ?? "of an unknown kind"}\n`);
  const results: Result[] = [];
  const failed: string[] = [];
  const lab = new Lab();
  const stop = () => void lab.close().finally(() => process.exit(130));
  process.once("SIGINT", stop).once("SIGTERM", stop);
  try {
    for (const line of options.lines) {
      try {
        results.push(await measureLine(line, lab, options.runs));
      } catch (error) {
        console.error(`\n${line.name} FAILED:`, error);
        failed.push(line.name);
      }
    }
  } finally {
    process.off("SIGINT", stop).off("SIGTERM", stop);
    await lab.close();
  }
  report(results, failed);
  if (options.json !== undefined) writeJson(options.json, results);
  return failed.length === 0 ? 0 : 1;
}

async function measureLine(line: Line, lab: Lab, runs = line.runs): Promise<Result> {
  const startMs = performance.now();
  process.stderr.write(`${line.name}:`);
  const sides = await line.prepare(lab);
  try {
    const result = await measure(line, sides, runs, (run) =>
      process.stderr.write(run === 0 ? " warm-up" : ` ${run}`),
    );
    const seconds = formatSeconds((performance.now() - startMs) / 1000);
    process.stderr.write(`, ${seconds}\n`);
    return result;
  } catch (error) {
    await lab.recover();
    throw error;
  } finally {
    await sides.done?.();
  }
}

function report(results: readonly Result[], failed: readonly string[]): void {
  const header = ["", "ratio", "min – max", "aim", "", "ours", "reference", ""];
  const rows = results.map((result) => [
    result.name,
    digits(result.ratio),
    `${digits(result.min)} – ${digits(result.max)}`,
    formatAim(result.aim),
    result.aim === null ? "" : result.aimMet ? "ok" : "MISSED",
    formatSpread(result.measured.ours),
    formatSpread(result.measured.theirs),
    result.measured.unit,
  ]);
  const widths = header.map((_, i) => Math.max(...[header, ...rows].map((row) => row[i]!.length)));
  console.log("");
  for (const row of [header, ...rows]) {
    console.log(
      row
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join("  ")
        .trimEnd(),
    );
  }
  console.log("\nThe reference of each ratio:");
  for (const { name, reference, note } of results) {
    console.log(`  ${name}: ${reference}${note === undefined ? "" : `. ${note}`}`);
  }
  if (failed.length > 0) console.log(`\nFAILED: ${failed.join(", ")}`);
}

function formatAim(aim: Aim | null): string {
  if (aim === null) return "";
  return "atLeast" in aim ? `>= ${aim.atLeast}` : `<= ${aim.atMost}`;
}

function formatSpread({ median, min, max }: Spread): string {
  return min === max ? digits(median) : `${digits(median)} (${digits(min)} – ${digits(max)})`;
}

/** Three digits are as many as such a measurement holds. */
function digits(value: number): string {
  if (Number.isInteger(value) || value >= 100) return value.toFixed(0);
  return value.toFixed(value >= 10 ? 1 : 2);
}

function writeJson(file: string, results: readonly Result[]): void {
  const path = resolve(process.env["INIT_CWD"] ?? ".", file);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${JSON.stringify(results, null, 2)}\n`);
}

/** null: only the usage is wanted. */
function parse(args: string[]): Options | null {
  const { values } = parsed(args);
  if (values.help) return null;
  const { only = [], runs } = values;
  if (runs !== undefined && !/^[1-9]\d{0,3}$/.test(runs)) {
    throw new UserError(`--runs takes a number from 1 to 9999; got '${runs}'`);
  }
  for (const name of only) {
    if (LINES.some((line) => line.name.startsWith(name))) continue;
    const names = LINES.map((line) => line.name).join(", ");
    throw new UserError(`no line begins with '${name}'; there are: ${names}`);
  }
  const isWanted = ({ name }: Line) =>
    only.length === 0 || only.some((start) => name.startsWith(start));
  return {
    lines: LINES.filter(isWanted),
    runs: runs === undefined ? undefined : Number(runs),
    json: values.json,
  };
}

function parsed(args: string[]) {
  try {
    return parseArgs({
      args,
      options: {
        only: { type: "string", multiple: true },
        runs: { type: "string" },
        json: { type: "string" },
        help: { type: "boolean", short: "h" },
      },
    });
  } catch (error) {
    throw new UserError(`${(error as Error).message}\n\n${USAGE}`);
  }
}
