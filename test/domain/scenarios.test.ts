/** docs/domain-scenarios.md and the tests agree: every scenario has a test, or a reason why not. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";

const TESTS = join(import.meta.dirname, "..");
const TABLE = readFileSync(join(TESTS, "../docs/domain-scenarios.md"), "utf8");

const rows = [...TABLE.matchAll(/^\| ([ABCKLM]\d\d) \|.*\| ([^|]+) \|$/gm)].map(([, id, here]) => ({
  id: id!,
  here: here!,
}));

/** Ids at the beginning of titles, in the folders of what libvirt's scenarios are about. */
const tested = new Set(
  ["domain", "engine", "browser", "e2e"]
    .flatMap((folder) =>
      readdirSync(join(TESTS, folder), { recursive: true, encoding: "utf8" }).map((file) =>
        join(TESTS, folder, file),
      ),
    )
    .filter((file) => /\.test\.tsx?$/.test(file))
    .flatMap((file) => [
      ...readFileSync(file, "utf8").matchAll(
        /\b(?:it|test|describe)(?:\.each\([^;]*?\))?\(\s*["'`]((?:[ABCKLM]\d\d )+)/g,
      ),
    ])
    .flatMap(([, ids]) => ids!.trim().split(" ")),
);

it("has a test for every scenario that the table calls tested, and a row for every test", () => {
  expect(rows.length).toBeGreaterThan(25);
  expect(new Set(rows.map(({ id }) => id)).size).toBe(rows.length);
  const called = rows.filter(({ here }) => here === "tested").map(({ id }) => id);
  expect(called.filter((id) => !tested.has(id))).toEqual([]);
  const known = new Set(rows.map(({ id }) => id));
  expect([...tested].filter((id) => !known.has(id))).toEqual([]);
});

it("gives a reason, not a word, where there is no test", () => {
  for (const { id, here } of rows) {
    if (here !== "tested") expect(here.length, `scenario ${id}`).toBeGreaterThan(20);
  }
});
