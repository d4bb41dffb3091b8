/**
 * Breaks a copy of the sources in one place at a time, and shows that the model notices: what else
 * would it be good for? `npm run simulate -- --breakages [part of a name]`
 */

import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BREAKAGES, type Breakage } from "./breakages.ts";

const ROOT = join(import.meta.dirname, "../..");
const PARTS = ["src", "test", "scripts", "web", "build", "package.json", "tsconfig.json"];
const STEPS = 200_000;
/** Not by way of scripts/run.mjs: the copy needs no setting up. */
const SIMULATE = `
  import { register } from "tsx/esm/api";
  register();
  const { main } = await import("./scripts/simulate.ts");
  process.exitCode = await main(["--steps", "${STEPS}"]);
`;
/** A broken engine may go round in circles without an end. */
const LIMIT_MS = 5 * 60 * 1000;

/** @returns the exit status: 0 if all that were tried have been noticed */
export async function showBreakages(part: string): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "blocktab-breakages-"));
  let unnoticed = 0;
  try {
    for (const name of PARTS) cpSync(join(ROOT, name), join(folder, name), { recursive: true });
    symlinkSync(join(ROOT, "node_modules"), join(folder, "node_modules"));
    for (const breakage of BREAKAGES) {
      if (!breakage.name.includes(part)) continue;
      const noticed = await tryOne(folder, breakage);
      console.log(`${noticed === null ? "UNNOTICED" : "noticed  "}  ${breakage.name}`);
      if (noticed === null) unnoticed++;
      else console.log(`             ${noticed}`);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
  return unnoticed === 0 ? 0 : 1;
}

/** @returns what the model says, or null if it says nothing */
async function tryOne(folder: string, { file, from, to }: Breakage): Promise<string | null> {
  const path = join(folder, file);
  const text = readFileSync(path, "utf8");
  writeFileSync(path, replaceOnce(text, from, to));
  try {
    return await simulateIn(folder);
  } finally {
    writeFileSync(path, text);
  }
}

/** @throws Error unless `from` is there, once */
export function replaceOnce(text: string, from: string, to: string): string {
  const [before, after, ...more] = text.split(from);
  if (after === undefined || more.length > 0) throw new Error(`Not there once: ${from}`);
  return `${before}${to}${after}`;
}

function simulateIn(folder: string): Promise<string | null> {
  return new Promise((resolve) => {
    const args = ["--input-type=module", "--eval", SIMULATE];
    const child = spawn(process.execPath, args, { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
    let said = "";
    child.stdout.on("data", (chunk: Buffer) => {
      said += chunk;
    });
    child.stderr.on("data", (chunk: Buffer) => {
      said += chunk;
    });
    const limit = setTimeout(() => child.kill(), LIMIT_MS);
    child.on("close", (status) => {
      clearTimeout(limit);
      if (status === 0) return resolve(null);
      if (status === null) return resolve("it does not come to an end");
      const failed = /^FAILED (.*)$/m.exec(said)?.[1];
      resolve(failed ?? said.trim().split("\n").at(-1) ?? "it fails");
    });
  });
}
