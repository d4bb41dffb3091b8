/**
 * Makes a fresh clone ready to run: dependencies, the wasm kernels, and the programs that tests and
 * demo drive. Everything here looks first and is silent when there is nothing to do.
 *
 * Runs before there is a node_modules, so it imports nothing but Node's own modules. What is built
 * appears under its name only when it is whole, and of several starts at once one does the work: a
 * test suite starts the daemon a hundred times side by side.
 */

import { spawn } from "node:child_process";
import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { hasPlaywrightChromium, systemChromium } from "./chromium.mjs";
import { onPath } from "./on-path.mjs";

/** The checkout's top folder. */
export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

const BUILD = join(ROOT, "build");
const WASM = join(BUILD, "kernel.wasm");
/** The command line in one file, with all that it imports. */
const CLI = join(BUILD, "cli", "blocktab.mjs");
const LOCK = join(BUILD, "setup.lock");

/**
 * Of the Debian family's packages, the one that holds each program.
 *
 * @type {Record<string, string>}
 */
const QEMU_PACKAGES = {
  "qemu-img": "qemu-utils",
  "qemu-io": "qemu-utils",
  "qemu-storage-daemon": "qemu-system-common",
};

/**
 * The same for the NBD clients that only tests drive.
 *
 * @type {Record<string, string>}
 */
const NBD_PACKAGES = {
  nbdinfo: "libnbd-bin",
  nbdcopy: "libnbd-bin",
  nbdsh: "python3-libnbd",
};

/** Something about the user's machine or arguments that only the user can change. */
export class UserError extends Error {
  /** @override */
  name = "UserError";
}

/** @throws UserError if this Node is older than package.json's engines say */
export function ensureNode() {
  const { engines } = readJson(join(ROOT, "package.json"));
  const wanted = engines.node.replace(/[^\d.]/g, "");
  if (!isOlder(process.versions.node, wanted)) return;
  throw new UserError(`needs Node ${wanted} or newer; this is Node ${process.versions.node}`);
}

/** Runs `npm ci` if node_modules is not what package-lock.json says. */
export async function ensureDependencies() {
  if (dependenciesReason(ROOT) === null) return;
  await alone(async () => {
    const reason = dependenciesReason(ROOT);
    if (reason === null) return;
    const npm = process.env.npm_execpath;
    const [command, ...before] = npm?.endsWith(".js") ? [process.execPath, npm] : ["npm"];
    await step(`Installing dependencies (${reason})`, () =>
      run(command, [...before, "ci", "--include=dev", "--no-audit", "--no-fund"], {
        // The browser is the system's; Playwright's own would be some hundred MiB more.
        env: { ...process.env, PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD: "1" },
        failure: "npm ci failed; its own words are above",
      }),
    );
  });
}

/**
 * Why `npm ci` has to run, or null if node_modules holds what the lock file names. npm keeps what it
 * has installed in node_modules/.package-lock.json, which it writes last.
 *
 * @param {string} root the folder of package-lock.json
 * @returns {string | null}
 */
export function dependenciesReason(root) {
  const installedFile = join(root, "node_modules", ".package-lock.json");
  if (!existsSync(installedFile)) return "there are none yet";
  const wanted = readJson(join(root, "package-lock.json")).packages;
  const installed = readJson(installedFile).packages;
  for (const [path, { version, integrity, optional }] of Object.entries(wanted)) {
    if (path === "") continue;
    const there = installed[path];
    // Optional packages are for other systems, for the most part.
    if (there === undefined && optional) continue;
    const name = path.replace(/^.*node_modules\//, "");
    if (there?.version !== version || there.integrity !== integrity) {
      return `package-lock.json asks for ${name} ${version}`;
    }
    if (!existsSync(join(root, path))) return `${name} is not there`;
  }
  return null;
}

/** Compiles assembly/ if it is newer than what has been compiled. */
export async function ensureWasm() {
  const sources = [join(ROOT, "assembly"), join(ROOT, "asconfig.json")];
  await ensureBuilt(WASM, sources, "Compiling the wasm kernels", async (folder) => {
    const asc = join(ROOT, "node_modules", "assemblyscript", "bin", "asc.js");
    const out = [
      "--outFile",
      join(folder, "kernel.wasm"),
      "--textFile",
      join(folder, "kernel.wat"),
    ];
    await run(process.execPath, [asc, "--target", "release", ...out], {
      failure: "the AssemblyScript compiler failed; its own words are above",
    });
    return ["kernel.wat", "kernel.wasm"];
  });
}

/** Bundles src/cli/ and all below it into one file if a source is newer: `blocktab` starts fast. */
export async function ensureCli() {
  const sources = ["src", "package.json", "package-lock.json"].map((name) => join(ROOT, name));
  await ensureBuilt(CLI, sources, "Bundling the command line", async (folder) => {
    const { build } = await import("vite");
    await build({
      root: ROOT,
      configFile: false,
      logLevel: "error",
      ssr: { noExternal: true },
      build: {
        ssr: join(ROOT, "src", "cli", "main.ts"),
        outDir: folder,
        target: "node20",
        sourcemap: true,
        rollupOptions: { output: { entryFileNames: "blocktab.mjs", codeSplitting: false } },
      },
    });
    return ["blocktab.mjs.map", "blocktab.mjs"];
  });
}

/**
 * Builds a file if it is not younger than its sources.
 *
 * @param {string} target
 * @param {string[]} sources files and folders
 * @param {string} title of the step
 * @param {(folder: string) => Promise<string[]>} build into an empty folder; the names of what is to
 *   be moved next to the target, the target itself last
 */
async function ensureBuilt(target, sources, title, build) {
  const isFresh = () => modifiedMs(target) >= newestMs(sources);
  if (isFresh()) return;
  await alone(async () => {
    if (isFresh()) return;
    const startedAt = new Date();
    const folder = join(BUILD, `new-${process.pid}`);
    try {
      mkdirSync(folder, { recursive: true });
      const names = await step(title, () => build(folder));
      mkdirSync(dirname(target), { recursive: true });
      // A source that changes while the compiler runs is newer than what comes out.
      for (const name of names) utimesSync(join(folder, name), startedAt, startedAt);
      for (const name of names) renameSync(join(folder, name), join(dirname(target), name));
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
}

/**
 * Does the work while no other process of this checkout is at such work.
 *
 * @param {() => Promise<void>} work
 */
async function alone(work) {
  mkdirSync(BUILD, { recursive: true });
  while (!tryLock()) await new Promise((resolve) => setTimeout(resolve, 50));
  try {
    await work();
  } finally {
    rmSync(LOCK, { force: true });
  }
}

/** The lock is a file with its holder's process number: one that died does not hold it. */
function tryLock() {
  const own = `${LOCK}-${process.pid}`;
  writeFileSync(own, String(process.pid));
  try {
    // A link and not a write: the lock is never seen without its number.
    linkSync(own, LOCK);
    return true;
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw error;
  } finally {
    rmSync(own);
  }
  if (!isHeld()) rmSync(LOCK, { force: true });
  return false;
}

function isHeld() {
  try {
    process.kill(Number(readFileSync(LOCK, "utf8")), 0);
    return true;
  } catch (error) {
    // Another user's process is one, too.
    return codeOf(error) === "EPERM";
  }
}

/** @param {unknown} error */
function codeOf(error) {
  return /** @type {NodeJS.ErrnoException} */ (error).code;
}

/** @throws UserError if there is no Chromium and none can be installed */
export async function ensureChromium() {
  if (await hasChromium()) return;
  await aptInstall(["chromium"]);
  if (await hasChromium()) return;
  throw new UserError(
    "needs Chromium: install it (Debian: apt install chromium), or let Playwright fetch one " +
      "(npx playwright install chromium), or name one in the environment as CHROMIUM=/path/to/it",
  );
}

async function hasChromium() {
  return systemChromium() !== undefined || (await hasPlaywrightChromium());
}

/** @throws UserError if QEMU's tools are not there and cannot be installed */
export async function ensureQemu() {
  await ensureTools(QEMU_PACKAGES, "QEMU's tools", "the package qemu");
}

/** @throws UserError if libnbd's tools are not there and cannot be installed */
export async function ensureNbdClients() {
  await ensureTools(NBD_PACKAGES, "libnbd's tools", "the package libnbd");
}

/**
 * @param {Record<string, string>} packages Debian's, by what is needed of them
 * @param {string} what for people
 * @param {string} elsewhere what to install on other systems
 */
async function ensureTools(packages, what, elsewhere) {
  const missing = () => Object.keys(packages).filter((tool) => onPath(tool) === undefined);
  if (missing().length === 0) return;
  await aptInstall([...new Set(missing().map((tool) => packages[tool] ?? ""))]);
  if (missing().length === 0) return;
  const all = [...new Set(Object.values(packages))].join(" ");
  throw new UserError(
    `needs ${what}: ${missing().join(", ")} (Debian: apt install ${all}; elsewhere: ${elsewhere})`,
  );
}

/**
 * Installs packages if this is root on a system with apt; else nothing happens.
 *
 * @param {string[]} packages
 */
async function aptInstall(packages) {
  const apt = onPath("apt-get");
  if (apt === undefined || process.getuid?.() !== 0) return;
  const options = { env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" }, quiet: true };
  await step(`Installing ${packages.join(", ")} with apt`, async () => {
    // Old lists are better than none: if this fails, installing tells whether it mattered.
    await run(apt, ["update", "-q"], options).catch((error) => note(error.message));
    await run(apt, ["install", "-q", "-y", "--no-install-recommends", ...packages], options).catch(
      (error) => note(error.message),
    );
  });
}

/**
 * Tells what happens and how long it took, on stderr: stdout belongs to the command.
 *
 * @template T
 * @param {string} title
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
async function step(title, work) {
  const startMs = Date.now();
  note(`${title} …`);
  const result = await work();
  note(`${title}: done in ${((Date.now() - startMs) / 1000).toFixed(1)} s`);
  return result;
}

/** @param {string} text */
function note(text) {
  process.stderr.write(`${text}\n`);
}

/**
 * Runs a program in the checkout to its end.
 *
 * @param {string} command
 * @param {string[]} args
 * @param {{ env?: NodeJS.ProcessEnv, failure?: string, quiet?: boolean }} options `quiet` keeps what
 *   the program says for the error
 * @returns {Promise<void>}
 * @throws UserError if it fails
 */
function run(command, args, { env = process.env, failure, quiet = false } = {}) {
  return new Promise((resolve, reject) => {
    /** @type {Buffer[]} */
    const said = [];
    const child = spawn(command, args, {
      cwd: ROOT,
      env,
      // What it prints goes to stderr too.
      stdio: ["ignore", quiet ? "pipe" : 2, quiet ? "pipe" : 2],
    });
    child.stdout?.on("data", (chunk) => said.push(chunk));
    child.stderr?.on("data", (chunk) => said.push(chunk));
    child.on("error", (error) => reject(new UserError(`cannot run ${command}: ${error.message}`)));
    child.on("close", (status, signal) => {
      if (status === 0) return resolve();
      const tail = Buffer.concat(said).toString().trim().split("\n").slice(-15).join("\n");
      const what = failure ?? `${command} ${args[0]} failed (${signal ?? `status ${status}`})`;
      reject(new UserError(tail === "" ? what : `${what}:\n${tail}`));
    });
  });
}

/**
 * -Infinity if there is no such file.
 *
 * @param {string} path
 */
function modifiedMs(path) {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Number.NEGATIVE_INFINITY;
}

/**
 * When the youngest of these files and folders, and all below them, was changed. A folder counts
 * too: it changes when a file in it goes away.
 *
 * @param {string[]} paths what is not there is passed over
 * @returns {number} milliseconds since 1970, -Infinity if there is nothing
 */
export function newestMs(paths) {
  let newest = Number.NEGATIVE_INFINITY;
  for (const path of paths) {
    const there = statSync(path, { throwIfNoEntry: false });
    if (there === undefined) continue;
    newest = Math.max(newest, there.mtimeMs);
    if (!there.isDirectory()) continue;
    const below = readdirSync(path).filter((name) => name !== "node_modules");
    newest = Math.max(newest, newestMs(below.map((name) => join(path, name))));
  }
  return newest;
}

/**
 * Whether version `a` ("20.19.1") comes before version `b`.
 *
 * @param {string} a
 * @param {string} b
 */
export function isOlder(a, b) {
  const left = a.split(".").map(Number);
  const right = b.split(".").map(Number);
  for (let i = 0; i < 3; i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}

/** @param {string} path */
function readJson(path) {
  return JSON.parse(readFileSync(path, "utf8"));
}
