/** The page, built: dist/ is made anew when anything that goes into it is younger. */

import { statSync } from "node:fs";
import { join } from "node:path";
import { newestMs, ROOT } from "./setup.mjs";

/** Folder of the built page. */
export const PAGE = join(ROOT, "dist");

const SOURCES = ["web", "src", "build", "vite.config.ts", "package-lock.json"];

/** @returns the folder to serve */
export async function ensurePage(): Promise<string> {
  const builtMs = statSync(join(PAGE, "index.html"), { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (newestMs(SOURCES.map((name) => join(ROOT, name))) < builtMs) return PAGE;
  process.stderr.write("Building the page …\n");
  // Loaded only when needed: it is large.
  const { build } = await import("vite");
  await build({ configFile: join(ROOT, "vite.config.ts"), logLevel: "warn" });
  return PAGE;
}
