/** The page, built: dist/ is made anew when anything that goes into it is younger. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { statSync } from "node:fs";
import { join } from "node:path";
import { newestMs, ROOT, UserError } from "./setup.mjs";

/** Folder of the built page. */
export const PAGE = join(ROOT, "dist");

const SOURCES = ["web", "src", "build", "vite.config.ts", "package-lock.json"];

/** @returns the folder to serve */
export async function ensurePage(): Promise<string> {
  const builtMs = statSync(join(PAGE, "index.html"), { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (newestMs(SOURCES.map((name) => join(ROOT, name))) < builtMs) return PAGE;
  process.stderr.write("Building the page …\n");
  const vite = join(ROOT, "node_modules", "vite", "bin", "vite.js");
  const options = ["build", "--config", join(ROOT, "vite.config.ts"), "--logLevel", "warn"];
  // A process of its own: with another NODE_ENV, such as a test runner's, it would not be the page
  // that users get; its service worker would be missing.
  const env = { ...process.env, NODE_ENV: "production" };
  const build = spawn(process.execPath, [vite, ...options], { cwd: ROOT, stdio: "inherit", env });
  const [status] = await once(build, "close");
  if (status !== 0) throw new UserError("the page could not be built; see above");
  return PAGE;
}
