/**
 * The checks of `npm test` and `npm run check`: each is one program run to its end, and the verdicts
 * stand together on the last screen. All run even if one fails, so that one run tells all.
 */

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { formatSeconds } from "../web/format.ts";
import { ROOT } from "./setup.mjs";

export interface Check {
  readonly title: string;
  /** Module in node_modules that is the program, and its arguments. */
  readonly program: string;
  readonly args: readonly string[];
  /** Vitest: counts its tests into the verdict. */
  readonly counts?: true;
}

interface Verdict {
  readonly title: string;
  readonly passed: boolean;
  readonly seconds: number;
  readonly detail: string;
  /** Names of tests to look at, each with why: on the last screen, which is all that some see. */
  readonly named: readonly string[];
}

const TSC = "typescript/bin/tsc";
const BIOME = "@biomejs/biome/bin/biome";
const VITEST = "vitest/vitest.mjs";

export const TYPES: Check = { title: "types", program: TSC, args: ["--noEmit"] };
export const STYLE: Check = { title: "style", program: BIOME, args: ["ci", "."] };
/** They wait for other programs and for the disk: two workers to a processor. Vitest's own most is one. */
const WORKERS = 2 * availableParallelism();
export const UNIT = vitest("unit tests on Node", "node", `--maxWorkers=${WORKERS}`);
export const BROWSER = vitest("drivers in Chromium", "browser");
export const END_TO_END = vitest("end to end in Chromium", "e2e");

function vitest(title: string, project: string, ...more: string[]): Check {
  return { title, program: VITEST, args: ["run", "--project", project, ...more], counts: true };
}

/** @returns the exit status: 0 only if every check has passed */
export async function runChecks(checks: readonly Check[]): Promise<number> {
  const verdicts: Verdict[] = [];
  for (const check of checks) {
    console.log(`\n── ${check.title} ──`);
    verdicts.push(await runCheck(check));
  }
  console.log("");
  for (const { title, passed, seconds, detail, named } of verdicts) {
    console.log(
      `${passed ? "ok    " : "FAILED"}  ${title.padEnd(24)}${formatSeconds(seconds).padEnd(12)}${detail}`,
    );
    for (const line of named) console.log(`        ${line}`);
  }
  return verdicts.every(({ passed }) => passed) ? 0 : 1;
}

async function runCheck({ title, program, args, counts }: Check): Promise<Verdict> {
  const folder = mkdtempSync(join(tmpdir(), "blocktab-test-"));
  const report = join(folder, "report.json");
  const reporters = counts
    ? ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`]
    : [];
  const startMs = performance.now();
  try {
    const passed = await runTool(program, [...args, ...reporters]);
    const seconds = (performance.now() - startMs) / 1000;
    if (!counts) return { title, passed, seconds, detail: "", named: [] };
    const { detail, named } = readReport(report);
    return { title, passed, seconds, detail, named };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** "312 passed, 1 failed, 2 skipped": what was left out is said, too; and which failed, if only once. */
function readReport(report: string): Pick<Verdict, "detail" | "named"> {
  if (!existsSync(report)) return { detail: "no report", named: [] };
  const { testResults, ...numbers } = JSON.parse(readFileSync(report, "utf8")) as VitestReport;
  // A file that cannot even be loaded has no tests that could fail.
  const broken = testResults.filter(
    ({ status, assertionResults }) => status === "failed" && assertionResults.length === 0,
  );
  const tests = testResults.flatMap(({ assertionResults }) => assertionResults);
  const failed = tests.filter(({ status }) => status === "failed");
  // Errors of a test that passed are those of a first try.
  const retried = tests.filter(
    ({ status, failureMessages }) => status === "passed" && failureMessages.length > 0,
  );
  const parts: [string, number][] = [
    ["passed", numbers.numPassedTests],
    ["failed", numbers.numFailedTests],
    ["skipped", numbers.numPendingTests + numbers.numTodoTests],
    ["files broken", broken.length],
    ["passed at the second try only", retried.length],
  ];
  return {
    detail: parts
      .filter(([word, n]) => n > 0 || word === "passed")
      .map(([word, n]) => `${n} ${word}`)
      .join(", "),
    named: [
      ...broken.map(({ name, message }) => `cannot run: ${name}: ${firstLines(message)}`),
      ...failed.map((test) => `failed: ${test.fullName}: ${firstLines(test.failureMessages[0])}`),
      ...retried.map((test) => `retried: ${test.fullName}: ${firstLines(test.failureMessages[0])}`),
    ],
  };
}

/** Enough of an error to know it by. */
function firstLines(text = ""): string {
  return text.split("\n").slice(0, 3).join(" | ").slice(0, 400);
}

/** What is read of Vitest's JSON report. */
interface VitestReport {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly message?: string;
    readonly assertionResults: readonly {
      readonly fullName: string;
      readonly status: string;
      readonly failureMessages: readonly string[];
    }[];
  }[];
}

/** @returns whether it ended with status 0 */
function runTool(program: string, args: readonly string[]): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [join(ROOT, "node_modules", program), ...args], {
      cwd: ROOT,
      stdio: ["ignore", "inherit", "inherit"],
    });
    child.on("error", reject);
    child.on("close", (status) => resolve(status === 0));
  });
}
