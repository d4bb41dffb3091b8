/**
 * Every script of test/differential/scripts/ says the same on the real qemu-storage-daemon and on
 * ours, and what is on record of QEMU 10 as well. See docs/differential.md.
 */

import { afterAll, describe, expect, it } from "vitest";
import { HOW_TO_INSTALL, isBefore, realDaemons } from "./daemon.ts";
import { DIFFERENCES } from "./differences.ts";
import { ImageStock } from "./images.ts";
import { NEWER } from "./newer.ts";
import { readRecordings } from "./record.ts";
import { type Rule, unneeded } from "./rules.ts";
import { AREAS, SCRIPTS } from "./scripts/index.ts";
import { judge } from "./suite.ts";

const daemons = realDaemons();
const isMissing = daemons.length === 0;
/** A machine that checks changes must have it; at home it is said, and left out. */
const mustHave = process.env["CI"] !== undefined && process.env["CI"] !== "";

const stock = new ImageStock();
afterAll(() => stock.end());

const needed = new Set<Rule>();
let scriptCount = 0;

it.runIf(isMissing && mustHave)("has a daemon to compare with", () => {
  expect.fail(HOW_TO_INSTALL);
});

for (const { title, scripts } of AREAS) {
  const recordings = readRecordings(title);
  describe(isMissing ? `${title} (only what is recorded: ${HOW_TO_INSTALL})` : title, () => {
    for (const script of scripts) {
      it.concurrent(script.name, async () => {
        const recording = recordings.get(script.name);
        if (!recording) expect.fail("Not recorded yet: npm run differential -- --record");
        const outcome = await judge(script, daemons, stock, recording);
        for (const rule of outcome.needed) needed.add(rule);
        scriptCount++;
        const reports = outcome.verdicts.filter(({ report }) => report.length > 0);
        if (reports.length > 0) {
          expect.fail(
            reports.flatMap(({ title: from, report }) => ["", from, ...report]).join("\n"),
          );
        }
      });
    }
  });
}

describe("the suite", () => {
  it("has no recording of a script that is gone", () => {
    const names = AREAS.map(
      ({ title, scripts }) => [title, scripts.map(({ name }) => name)] as const,
    );
    for (const [title, scripts] of names) {
      expect([...readRecordings(title).keys()].filter((name) => !scripts.includes(name))).toEqual(
        [],
      );
    }
  });

  it("has one script of a name", () => {
    const titles = SCRIPTS.map(({ title }) => title);
    expect(new Set(titles).size).toBe(titles.length);
  });

  it("needs every rule by which differences are passed over", ({ skip }) => {
    if (scriptCount < SCRIPTS.length) skip("not all scripts were run");
    const olderRules = NEWER.filter(({ since }) => daemons.some((one) => isBefore(one, since)));
    expect(unneeded([...DIFFERENCES, ...olderRules], needed)).toEqual([]);
  });
});
