/**
 * The house rules, as functions over source text: which imports are allowed, what may be reached
 * for, and that what is written about files is true. test/tidy.test.ts runs them over the tree and
 * over snippets that break them.
 */

import { dirname, join, normalize } from "node:path";

/** Path from the top folder with '/', and text. */
export interface Source {
  readonly path: string;
  readonly text: string;
}

/** What is wrong, as "path: problem". */
export type Problem = string;

/**
 * The floors of src/, ground first. A file may import from its own folder or from a lower floor;
 * folders that share a floor do not know each other.
 */
export const FLOORS: readonly (readonly string[])[] = [
  ["base"],
  ["kernel", "job"],
  ["block"],
  ["drivers"],
  ["blockjob", "export"],
  ["qmp", "img"],
  ["engine"],
  ["domain", "cli"],
];

/** Kinds of drivers: they meet in src/block/, and in src/drivers/index.ts that lists them. */
const DRIVER_KINDS = ["protocol", "format", "filter"];

export interface Import {
  /** As written: "../base/errors.ts" or "valibot". */
  readonly target: string;
  readonly typeOnly: boolean;
}

/** Static and dynamic imports, re-exports, and files named by `new URL(…, import.meta.url)`. */
export function importsOf({ text }: Source): Import[] {
  const code = withoutComments(text);
  const found: Import[] = [];
  const statement = /\b(?:import|export)\s+(type\b)?([^;"'`]*?)\bfrom\s*["']([^"']+)["']/g;
  for (const [, type, , target] of code.matchAll(statement)) {
    found.push({ target: target!, typeOnly: type !== undefined });
  }
  const others = [
    /\bimport\s*["']([^"']+)["']/g,
    /\bimport\s*\(\s*["']([^"']+)["']/g,
    /\bnew URL\(\s*["']([^"']+)["']\s*,\s*import\.meta\.url/g,
  ];
  for (const pattern of others) {
    for (const [, target] of code.matchAll(pattern))
      found.push({ target: target!, typeOnly: false });
  }
  return found;
}

/** A relative import as a path from the top folder; null for packages. "?url" and the like go. */
function resolved({ path }: Source, { target }: Import): string | null {
  if (!target.startsWith(".")) return null;
  return normalize(join(dirname(path), target.replace(/\?.*$/, "")));
}

/** Imports in src/ go down or stay in the folder. */
export function checkFloors(source: Source): Problem[] {
  const folder = folderOf(source.path);
  if (folder === null) return [];
  const own = floorOf(folder);
  if (own < 0) return [`${source.path}: the folder '${folder}' stands on no floor`];
  const problems: Problem[] = [];
  for (const imported of importsOf(source)) {
    const target = resolved(source, imported);
    if (target === null || isKernelBinary(target)) continue;
    const below = folderOf(target);
    if (below === folder) continue;
    if (below !== null && floorOf(below) >= 0 && floorOf(below) < own) continue;
    problems.push(`${source.path}: '${folder}' may not import ${target}`);
  }
  return problems;
}

/** Protocols, formats and filters do not know each other. */
export function checkDriverKinds(source: Source): Problem[] {
  const kind = driverKindOf(source.path);
  if (kind === null) return [];
  return importsOf(source)
    .map((imported) => resolved(source, imported))
    .filter((target) => target?.startsWith("src/drivers/") && driverKindOf(target) !== kind)
    .map((target) => `${source.path}: a ${kind} driver may not import ${target}`);
}

/** Of src/, the page sees the two clients and the types of QMP. */
export function checkPage(source: Source): Problem[] {
  if (!source.path.startsWith("web/")) return [];
  const problems: Problem[] = [];
  for (const imported of importsOf(source)) {
    const target = resolved(source, imported);
    if (target === null || target.startsWith("web/")) continue;
    if (target === "src/engine/client.ts" || target === "src/domain/client.ts") continue;
    if (target.startsWith("src/qmp/") && imported.typeOnly) continue;
    problems.push(`${source.path}: the page may not import ${target}`);
  }
  return problems;
}

/** Time and chance come from src/base/, or a seed replays nothing. */
const WORLD =
  /(?<![.\w$#])(?:Date\.now|new Date|Date\s*\(|Math\.random|performance|setTimeout|setInterval|setImmediate|requestAnimationFrame|crypto)\b/;

export function checkWorld(source: Source): Problem[] {
  if (!source.path.startsWith("src/") || source.path.startsWith("src/base/")) return [];
  return usesOf(source, WORLD, "time and chance are parameters");
}

/** The browser is reached where bytes or messages go in and out of it. */
const BROWSER =
  /(?<![.\w$#])(?:navigator|indexedDB|fetch|window|document|self|localStorage|sessionStorage|caches|location|XMLHttpRequest|Worker|SharedWorker|BroadcastChannel)\b(?!\s*[?]?:(?!:))/;

const BROWSER_PLACES =
  /^src\/(?:drivers\/protocol\/|domain\/connect-tab\.ts$|engine\/(?:(?:img-)?(?:client|worker)|browser-engine|tabs\/(?:browser|connect|run-candidate|worker))\.ts$)/;

export function checkBrowser(source: Source): Problem[] {
  if (!source.path.startsWith("src/") || BROWSER_PLACES.test(source.path)) return [];
  return usesOf(
    source,
    BROWSER,
    "browser globals belong to src/drivers/protocol/ and the engine's ends",
  );
}

/** Node is reached by its one protocol driver and by the engine's Node end. */
const NODE = /(?<![.\w$#])(?:process|Buffer|require|__dirname|__filename)\b(?!\s*[?]?:(?!:))/;
const NODE_PLACES = /^src\/(?:drivers\/protocol\/file(?:-io)?\.ts$|engine\/node[\w-]*\.ts$|cli\/)/;

/** Stands with the page and runs in its build. */
const BUILD_PLACES = /^web\/[\w-]+-plugin\.ts$/;

export function checkNode(source: Source): Problem[] {
  const { path } = source;
  if (!/^(?:src|web)\//.test(path) || NODE_PLACES.test(path) || BUILD_PLACES.test(path)) return [];
  const imports = importsOf(source)
    .filter(({ target }) => target.startsWith("node:"))
    .map(({ target }) => `${source.path}: imports ${target}, which no browser has`);
  return [...imports, ...usesOf(source, NODE, "no browser has it")];
}

/**
 * What the page and the worker load, directly or not, must not lead to code for Node.
 *
 * @param sources all of src/ and web/
 */
export function checkBundle(sources: readonly Source[]): Problem[] {
  const byPath = new Map(sources.map((source) => [source.path, source]));
  const entries = sources.filter(
    ({ path }) =>
      path.startsWith("web/") || /^src\/engine\/(?:img-)?(?:client|worker)\.ts$/.test(path),
  );
  const problems: Problem[] = [];
  const from = new Map<string, string>(entries.map(({ path }) => [path, path]));
  for (const [path, entry] of from) {
    if (NODE_PLACES.test(path)) problems.push(`${entry}: leads to ${path}, which is for Node`);
    const source = byPath.get(path);
    for (const imported of source ? importsOf(source) : []) {
      const target = imported.typeOnly ? null : resolved(source!, imported);
      if (target !== null && byPath.has(target) && !from.has(target)) from.set(target, entry);
    }
  }
  return problems;
}

/** Only BlockError is thrown in src/; what is for us goes through assert() in src/base/. */
export function checkThrows(source: Source): Problem[] {
  if (!source.path.startsWith("src/") || source.path.startsWith("src/base/")) return [];
  return usesOf(
    source,
    /\bthrow new (?:\w*\.)?(?:Type|Range|Syntax)?Error\b/,
    "throw BlockError, or assert()",
  );
}

/** No test is left alone in the run, and none waits for a person. */
export function checkTests(source: Source): Problem[] {
  if (!source.path.startsWith("test/")) return [];
  return usesOf(
    source,
    /\b(?:it|test|describe|suite|bench)(?:\.\w+)*\.only\b|\bdebugger\b/,
    "leaves the other tests out",
  );
}

/** To toMatchObject() a regular expression is an object without members, which everything is like. */
export function checkMatches(source: Source): Problem[] {
  if (!source.path.startsWith("test/")) return [];
  // What is blanked there is one.
  return usesOf(
    source,
    /\b(?:message|desc|errno|text|warning): {3,}[,}]/,
    "is held to nothing: expect.stringMatching()",
  );
}

/**
 * What a helper does when it is loaded it does for the first file of a worker alone (isolate in
 * vite.config.ts): its hooks are that file's, and what they take away is missing in the next ones.
 */
export function checkHelpers(source: Source): Problem[] {
  if (!source.path.startsWith("test/") || source.path.includes(".test.")) return [];
  return usesOf(
    source,
    /^(?:(?:export )?const \w+ = )?(?:testFolder|useFolders|(?:after|before)(?:All|Each))\(/m,
    "asks for a hook when it is loaded: let the test file ask",
  );
}

/**
 * Paths that a document names exist: links, and what stands in backquotes and starts with a folder
 * of the project.
 *
 * @param exists of a path from the top folder
 */
export function checkDocument(source: Source, exists: (path: string) => boolean): Problem[] {
  const problems: Problem[] = [];
  for (const [, link] of source.text.matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)) {
    if (/^[a-z]+:/.test(link!)) continue;
    const path = normalize(join(dirname(source.path), link!));
    if (!exists(path)) problems.push(`${source.path}: links to ${link}, which is not there`);
  }
  const quoted = /`((?:assembly|scripts|src|test|web|\.ci)\/[\w./@-]*)(?::\d+)?`/g;
  for (const [, path] of source.text.matchAll(quoted)) {
    if (!exists(path!)) problems.push(`${source.path}: names ${path}, which is not there`);
  }
  return problems;
}

/** The floors that a document draws, one row a floor: "| 2 | `block` | …". Ground first. */
export function floorsInDocument(text: string): string[][] {
  const rows = [...text.matchAll(/^\|\s*(\d+)\s*\|([^|]*)\|/gm)];
  return rows
    .sort(([, a], [, b]) => Number(a) - Number(b))
    .map(([, , cell]) => [...cell!.matchAll(/`(\w+)`/g)].map(([, name]) => name!));
}

function usesOf(source: Source, pattern: RegExp, reason: string): Problem[] {
  const code = withoutStrings(source.text);
  const problems: Problem[] = [];
  for (const [i, line] of code.split("\n").entries()) {
    const match = pattern.exec(line);
    if (match && !declares(code, match[0]))
      problems.push(`${source.path}:${i + 1}: ${match[0].trim()}: ${reason}`);
  }
  return problems;
}

/** Whether the name is one of the file's own: a variable or parameter called "window" is no window. */
function declares(code: string, name: string): boolean {
  if (!/^\w+$/.test(name)) return false;
  return new RegExp(
    `\\b(?:const|let|readonly|function|class)\\s+${name}\\b|[(,]\\s*${name}\\s*:`,
  ).test(code);
}

/** "src/base/errors.ts" -> "base"; null outside of src/. */
function folderOf(path: string): string | null {
  return /^src\/([^/]+)\//.exec(path)?.[1] ?? null;
}

function floorOf(folder: string): number {
  return FLOORS.findIndex((folders) => folders.includes(folder));
}

function driverKindOf(path: string): string | null {
  const kind = /^src\/drivers\/([^/]+)\//.exec(path)?.[1];
  return kind !== undefined && DRIVER_KINDS.includes(kind) ? kind : null;
}

/** What assembly/ is built into; not a source. */
function isKernelBinary(path: string): boolean {
  return path === "build/kernel.wasm";
}

/** The code with comments blanked out; lines stay where they are. */
export function withoutComments(text: string): string {
  return blank(text, false);
}

/** The code with comments and the contents of strings blanked out. */
export function withoutStrings(text: string): string {
  return blank(text, true);
}

/**
 * Tokens that may hide code-like text, at the first place where one can start:
 * comments, strings, template literals, and regular expressions after what an expression can follow.
 */
const HIDING = new RegExp(
  [
    /(?<comment>\/\/[^\n]*|\/\*[\s\S]*?\*\/)/,
    /(?<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')/,
    /(?<tick>`)/,
    /(?<lead>(?:^|[=(,:[!&|?{};+\n]|\breturn|\bcase)[ \t]*)(?<regex>\/(?![/*])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\[\n])+\/[a-z]*)/,
  ]
    .map(({ source }) => source)
    .join("|"),
  "g",
);

function blank(text: string, strings: boolean): string {
  let out = "";
  let at = 0;
  while (at < text.length) {
    HIDING.lastIndex = at;
    const match = HIDING.exec(text);
    if (match === null) break;
    const { comment, string, tick, lead, regex } = match.groups!;
    out += text.slice(at, match.index);
    at = match.index + match[0].length;
    if (comment !== undefined) out += spaces(comment);
    else if (string !== undefined) out += strings ? `"${spaces(string.slice(1, -1))}"` : string;
    else if (regex !== undefined) out += `${lead}${strings ? spaces(regex) : regex}`;
    else if (tick !== undefined) {
      const end = templateEnd(text, at);
      out += templateCode(text.slice(at - 1, end), strings);
      at = end;
    }
  }
  return out + text.slice(at);
}

/** @param at behind the opening tick @returns behind the closing one */
function templateEnd(text: string, at: number): number {
  let depth = 0;
  for (let i = at; i < text.length; i++) {
    if (text[i] === "\\") i++;
    else if (depth === 0 && text[i] === "`") return i + 1;
    else if (text.startsWith("${", i)) {
      depth++;
      i++;
    } else if (depth > 0 && text[i] === "`") i = templateEnd(text, i + 1) - 1;
    else if (depth > 0 && text[i] === "{") depth++;
    else if (depth > 0 && text[i] === "}") depth--;
  }
  return text.length;
}

/** Of a template literal, only what stands in ${…} is code. */
function templateCode(literal: string, strings: boolean): string {
  if (!strings) return literal;
  let out = "";
  let at = 0;
  for (;;) {
    const start = literal.indexOf("${", at);
    if (start < 0) return out + spaces(literal.slice(at));
    let depth = 1;
    let end = start + 2;
    for (; end < literal.length && depth > 0; end++) {
      if (literal[end] === "`") end = templateEnd(literal, end + 1) - 1;
      else if (literal[end] === "{") depth++;
      else if (literal[end] === "}") depth--;
    }
    out += `${spaces(literal.slice(at, start))}  ${blank(literal.slice(start + 2, end - 1), true)} `;
    at = end;
  }
}

function spaces(text: string): string {
  return text.replace(/[^\n]/g, " ");
}
