/** The command line on Node, for browser tests that compare with it: a Vitest browser command. */

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BrowserCommand } from "vitest/node";

const BLOCKTAB = join(import.meta.dirname, "../../../bin/blocktab.mjs");

/**
 * Runs `blocktab img` in a folder with these files.
 *
 * @param files by name, as base64
 * @returns the file `wanted` as base64 afterwards, and what was printed
 */
export const nodeImg: BrowserCommand<
  [lines: readonly (readonly string[])[], files: Record<string, string>, wanted: string]
> = async (_context, lines, files, wanted) => {
  const folder = mkdtempSync(join(tmpdir(), "blocktab-img-"));
  try {
    for (const [name, text] of Object.entries(files)) {
      writeFileSync(join(folder, name), Buffer.from(text, "base64"));
    }
    const stdout = lines.map((argv) =>
      execFileSync(process.execPath, [BLOCKTAB, "img", ...argv], {
        cwd: folder,
        encoding: "utf8",
        // What a repair tells of each cluster.
        stdio: ["ignore", "pipe", "ignore"],
      }),
    );
    return { stdout, file: readFileSync(join(folder, wanted)).toString("base64") };
  } finally {
    rmSync(folder, { recursive: true });
  }
};

declare module "vitest/browser" {
  interface BrowserCommands {
    nodeImg(
      lines: readonly (readonly string[])[],
      files: Record<string, string>,
      wanted: string,
    ): Promise<{ stdout: string[]; file: string }>;
  }
}
