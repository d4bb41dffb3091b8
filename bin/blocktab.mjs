#!/usr/bin/env node
/**
 * The command `blocktab`. In a checkout it first makes ready what it runs, and is silent when there
 * is nothing to do; a package brings it along. What it does is in src/cli/.
 */

import { existsSync } from "node:fs";

const isCheckout = existsSync(new URL("../src/cli/main.ts", import.meta.url));
try {
  if (isCheckout) {
    const setup = await import("../scripts/setup.mjs");
    setup.ensureNode();
    await setup.ensureDependencies();
    await setup.ensureWasm();
    await setup.ensureCli();
  }
  const { main } = await import(new URL("../build/cli/blocktab.mjs", import.meta.url).href);
  process.exit(await main(process.argv.slice(2)));
} catch (error) {
  const expected = error instanceof Error && error.name === "UserError";
  console.error(expected ? `blocktab: ${error.message}` : error);
  process.exit(1);
}
