/**
 * Makes a fresh clone ready to run: dependencies, the wasm kernels, and the programs that tests and
 * demo drive. Everything here looks first and is silent when there is nothing to do.
 *
 * Runs before there is a node_modules, so it imports nothing but Node's own modules.
 */

import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync, statSync, utimesSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { hasPlaywrightChromium, systemChromium } from "./chromium.mjs";
import { onPath } from "./on-path.mjs";

/** The checkout's top folder. */
export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

const WASM = join(ROOT, "build", "kernel.wasm");

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
  if (modifiedMs(WASM) >= newestMs(sources)) return;
  await step("Compiling the wasm kernels", () => buildWasm());
}

async function buildWasm() {
  const startedAt = new Date();
  // Half a file from a compiler that was stopped must not look newer than its sources.
  rmSync(WASM, { force: true });
  const asc = join(ROOT, "node_modules", "assemblyscript", "bin", "asc.js");
  await run(process.execPath, [asc, "--target", "release"], {
    failure: "the AssemblyScript compiler failed; its own words are above",
  });
  // A source that changes while the compiler runs is newer than what comes out.
  utimesSync(WASM, startedAt, startedAt);
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
  const missing = () => Object.keys(QEMU_PACKAGES).filter((tool) => onPath(tool) === undefined);
  if (missing().length === 0) return;
  await aptInstall([...new Set(missing().map((tool) => QEMU_PACKAGES[tool] ?? ""))]);
  if (missing().length === 0) return;
  throw new UserError(
    `needs QEMU's tools: ${missing().join(", ")} ` +
      "(Debian: apt install qemu-utils qemu-system-common; elsewhere: the package qemu)",
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
 * @param {string} title
 * @param {() => Promise<void>} work
 */
async function step(title, work) {
  const startMs = Date.now();
  note(`${title} …`);
  await work();
  note(`${title}: done in ${((Date.now() - startMs) / 1000).toFixed(1)} s`);
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
    newest = Math.max(newest, modifiedMs(path));
    if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) continue;
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
