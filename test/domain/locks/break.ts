/**
 * Breaks a copy of the locks in one place at a time, and prints what the exploration says of each, as
 * JSON. A program of its own: what is broken may fail where nobody waits for it.
 */

import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { replaceOnce } from "../../model/break.ts";
import type { Breakage } from "../../model/breakages.ts";
import { BREAKAGES } from "./breakages.ts";

const ROOT = join(import.meta.dirname, "../../..");
const PARTS = ["package.json", "src/domain/locks", "test/domain/locks"];
/** Each breakage has to show in one of so many runs. */
const SEEDS = 60;

let escaped: unknown;
process.on("unhandledRejection", (error) => {
  escaped ??= error;
});

const folder = mkdtempSync(join(tmpdir(), "blocktab-locks-"));
try {
  const said: (string | null)[] = [];
  for (const [at, breakage] of BREAKAGES.entries())
    said.push(await tryOne(join(folder, String(at)), breakage));
  console.log(JSON.stringify(said));
} finally {
  rmSync(folder, { recursive: true });
}

/** @returns what is said, null if nothing is */
async function tryOne(copy: string, { file, from, to }: Breakage): Promise<string | null> {
  for (const part of PARTS) cpSync(join(ROOT, part), join(copy, part), { recursive: true });
  symlinkSync(join(ROOT, "src/base"), join(copy, "src/base"));
  const path = join(copy, file);
  writeFileSync(path, replaceOnce(readFileSync(path, "utf8"), from, to));
  const { explore } = await import(pathToFileURL(join(copy, "test/domain/locks/explore.ts")).href);
  escaped = undefined;
  for (let seed = 1; seed <= SEEDS; seed++) {
    try {
      await explore({ seed });
      if (escaped !== undefined) throw escaped;
    } catch (error) {
      const first = escaped ?? error;
      return first instanceof Error ? first.message : String(first);
    }
  }
  return null;
}
