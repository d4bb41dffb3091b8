/** docs/scenarios.md and the tests agree: every scenario has a test, or a reason why not. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";

const root = join(import.meta.dirname, "..");

interface Scenario {
  readonly number: string;
  /** "tested", or why there is no test. */
  readonly here: string;
}

function scenarios(): Scenario[] {
  const text = readFileSync(join(root, "docs/scenarios.md"), "utf8");
  return [...text.matchAll(/^\| (\d+b?) \|.*\| ([^|]+) \|$/gm)].map(([, number, here]) => ({
    number: number!,
    here: here!,
  }));
}

/** Numbers at the beginning of the titles of all tests: it("#20 #21 ends …"). */
function testedNumbers(): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const file of readdirSync(join(root, "test"), { recursive: true, encoding: "utf8" })) {
    if (!file.endsWith(".test.ts")) continue;
    const text = readFileSync(join(root, "test", file), "utf8");
    const titles = text.matchAll(
      /\b(?:it|test|describe)(?:\.each\([^;]*?\))?\(\s*["'`]((?:#\d+b? )+)/g,
    );
    for (const [, numbers] of titles) {
      for (const [, number] of numbers!.matchAll(/#(\d+b?)/g)) {
        found.set(number!, [...(found.get(number!) ?? []), file]);
      }
    }
  }
  return found;
}

it("has a test for every scenario that the table calls tested, and only for those", () => {
  const tested = testedNumbers();
  const rows = scenarios();
  expect(rows.length).toBeGreaterThan(100);
  const missing = rows.filter(({ here, number }) => here === "tested" && !tested.has(number));
  const needless = rows.filter(({ here, number }) => here !== "tested" && tested.has(number));
  const unknown = [...tested.keys()].filter((n) => !rows.some(({ number }) => number === n));
  expect(
    missing.map(({ number }) => number),
    "called tested, but no test has the number",
  ).toEqual([]);
  expect(
    needless.map(({ number }) => number),
    "has a test, but the table says why not",
  ).toEqual([]);
  expect(unknown, "in a title, but not in the table").toEqual([]);
});

it("gives a reason, not a word, where there is no test", () => {
  for (const { here, number } of scenarios()) {
    if (here !== "tested") expect(here.length, `scenario ${number}`).toBeGreaterThan(20);
  }
});
