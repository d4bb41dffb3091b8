/** What the tests of subcommands that move data have in common. */

import { join } from "node:path";
import { beforeEach, expect } from "vitest";
import { seededRandom } from "../../src/base/random.ts";
import { writePatchy } from "./loop-rig.ts";
import { type Folders, type Outcome, qemuImg, useFolders } from "./rig.ts";

/** Two folders anew for each test, ours and the real tool's. */
export function eachTestsFolders(): { readonly now: Folders; each(name: string): string[] } {
  const fresh = useFolders();
  let now: Folders;
  beforeEach(() => {
    now = fresh();
  });
  return {
    get now() {
      return now;
    },
    each: (name) => [now.mine, now.real].map((folder) => join(folder, name)),
  };
}

/** The same random disk at both paths. */
export function makeDisks(paths: readonly string[], bytes: number, seed: number): void {
  for (const path of paths) writePatchy(seededRandom(seed), path, bytes);
}

/** Which runs hold what, wherever it lies: runs that differ in their places only are one. */
export function mapOf(path: string): object[] {
  const runs: { what: string; length: number }[] = [];
  for (const { start: _s, offset: _o, length, ...rest } of mapRuns(path)) {
    const what = JSON.stringify(rest);
    const last = runs.at(-1);
    if (last?.what === what) last.length += length;
    else runs.push({ what, length });
  }
  return runs;
}

function mapRuns(path: string): { start: number; offset?: number; length: number }[] {
  return JSON.parse(qemuImg("map", "--output=json", path));
}

/** Both said the same, and we nothing that is wrong. */
export function expectDone({ ours, theirs }: { ours: Outcome; theirs: Outcome }): void {
  expect(ours.stderr).toBe("");
  expect([ours.status, ours.stdout]).toEqual([theirs.status, theirs.stdout]);
}
