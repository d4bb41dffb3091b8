/**
 * Error sentences are our own, but they name the same things: every node, job, file, parameter or
 * value that QEMU's sentence puts between quotes, and that the script had said before, must stand in
 * ours.
 */

import type { Json } from "./transcript.ts";

const QUOTED = /'([^']+)'|"([^"]+)"/g;

/** Adds all member names and all values in a request to `said`. */
export function collectNames(value: unknown, said: Set<string>): void {
  if (typeof value === "string" || typeof value === "number") said.add(String(value));
  else if (Array.isArray(value)) for (const item of value) collectNames(item, said);
  else if (typeof value === "object" && value !== null) {
    for (const [name, inner] of Object.entries(value)) {
      said.add(name);
      collectNames(inner, said);
    }
  }
}

/**
 * What a sentence names of what was said.
 *
 * @param isTheirs takes only what stands between quotes; else whatever stands in it counts
 */
export function mentioned(
  sentence: string,
  said: ReadonlySet<string>,
  isTheirs: boolean,
): readonly string[] {
  const names = isTheirs
    ? [...sentence.matchAll(QUOTED)].map(([, single, double]) => single ?? double!)
    : [...said].filter((name) => sentence.includes(name));
  return [...new Set(names)].filter((name) => said.has(name)).sort();
}

/**
 * `ours` with the names of `theirs` wherever ours has all of them: what we name beyond that is no
 * difference.
 */
export function withTheirNames(ours: Json, theirs: Json): Json {
  if (Array.isArray(ours) && Array.isArray(theirs)) {
    return ours.map((item, i) => (i < theirs.length ? withTheirNames(item, theirs[i]!) : item));
  }
  if (!isObject(ours) || !isObject(theirs)) return ours;
  const [own, wanted] = [namesOf(ours), namesOf(theirs)];
  if (own && wanted) return wanted.every((name) => own.includes(name)) ? theirs : ours;
  const members = Object.entries(ours).map(([name, inner]): [string, Json] => [
    name,
    name in theirs ? withTheirNames(inner, theirs[name]!) : inner,
  ]);
  return Object.fromEntries(members);
}

function namesOf(value: { readonly [k: string]: Json }): readonly Json[] | null {
  const names = value["naming"];
  return Object.keys(value).length === 1 && Array.isArray(names) ? names : null;
}

function isObject(value: Json): value is { readonly [k: string]: Json } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
