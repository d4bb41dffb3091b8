/**
 * The door of every command: `npm start`, `npm test`, `npm run demo`, … all come here.
 *
 *     node scripts/run.mjs <command> [arguments of the command]
 *
 * It makes the checkout ready for the command, as the table says, and then runs the command's
 * module. Only Node's own modules are imported up here: at this point there may be no node_modules.
 */

import {
  ensureChromium,
  ensureCli,
  ensureDependencies,
  ensureNbdClients,
  ensureNode,
  ensureQemu,
  ensureWasm,
} from "./setup.mjs";

/**
 * What each command needs before its module can be loaded, in this order. The module exports
 * `main(args)`, which resolves with the exit status or with nothing if all is well.
 *
 * @type {Record<string, { needs: (() => Promise<void>)[], module: string | null, takes?: "nothing" }>}
 */
const COMMANDS = {
  start: { needs: [ensureDependencies, ensureWasm], module: "./serve.ts" },
  demo: {
    needs: [ensureDependencies, ensureWasm, ensureChromium, ensureQemu],
    module: "./demo.ts",
  },
  test: {
    needs: [
      ensureDependencies,
      ensureWasm,
      ensureCli,
      ensureChromium,
      ensureQemu,
      ensureNbdClients,
    ],
    module: "./test.ts",
    takes: "nothing",
  },
  check: {
    needs: [ensureDependencies, ensureWasm, ensureCli, ensureQemu, ensureNbdClients],
    module: "./check.ts",
    takes: "nothing",
  },
  simulate: { needs: [ensureDependencies, ensureWasm, ensureQemu], module: "./simulate.ts" },
  crash: { needs: [ensureDependencies, ensureWasm, ensureQemu], module: "./crash.ts" },
  fuzz: { needs: [ensureDependencies, ensureWasm], module: "./fuzz.ts" },
  differential: {
    needs: [ensureDependencies, ensureWasm, ensureCli, ensureQemu, ensureNbdClients],
    module: "./differential.ts",
  },
  bench: {
    needs: [ensureDependencies, ensureWasm, ensureCli, ensureChromium, ensureQemu],
    module: "./bench.ts",
  },
  "build:wasm": { needs: [ensureDependencies, ensureWasm], module: null, takes: "nothing" },
  "build:cli": {
    needs: [ensureDependencies, ensureWasm, ensureCli],
    module: null,
    takes: "nothing",
  },
};

const [name = "", ...args] = process.argv.slice(2);
try {
  process.exitCode = await run(name, args);
} catch (error) {
  // A UserError is about the user's machine or arguments, a BlockError about an image: one line
  // says it. Everything else is a bug here, and its stack is what helps.
  const expected =
    error instanceof Error && (error.name === "UserError" || error.name === "BlockError");
  console.error(expected ? `blocktab ${name}: ${error.message}` : error);
  process.exitCode = 1;
}

/**
 * @param {string} name
 * @param {string[]} args
 * @returns {Promise<number>} the exit status
 */
async function run(name, args) {
  const command = COMMANDS[name];
  if (command === undefined) {
    console.error(`Usage: node scripts/run.mjs ${Object.keys(COMMANDS).join(" | ")}`);
    return 1;
  }
  if (command.takes === "nothing" && args.length > 0) {
    console.error(`blocktab ${name}: takes no arguments; got: ${args.join(" ")}`);
    return 1;
  }
  ensureNode();
  for (const ensure of command.needs) await ensure();
  if (command.module === null) return 0;
  const { register } = await import("tsx/esm/api");
  register();
  const { main } = await import(command.module);
  return (await main(args)) ?? 0;
}
