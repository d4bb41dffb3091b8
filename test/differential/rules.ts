/**
 * Differences that are known, as data. Two tables have them: differences.ts those on purpose,
 * newer.ts those between versions of QEMU. A rule takes something out of both transcripts. One that
 * takes out nothing in which they differ is stale, and fails the run.
 */

import type { Entry, Json, Transcript } from "./transcript.ts";

export interface Rule {
  /** What differs, and why. */
  readonly why: string;
  /** In which entries: those of a kind, or of one command, event or tool only. */
  readonly kind: Entry["kind"];
  readonly about?: string;
  /** Members that go, wherever they stand in it. */
  readonly members?: readonly string[];
  /** Only in an object with these members. */
  readonly within?: Readonly<Record<string, Json>>;
  /** Strings that go from lists. */
  readonly items?: readonly string[];
  /** The whole entry goes, if its body has these members. */
  readonly whole?: Readonly<Record<string, Json>>;
}

export function applyRules(transcript: Transcript, rules: readonly Rule[]): Transcript {
  return rules.reduce<Transcript>(
    (entries, rule) => entries.flatMap((e) => apply(e, rule)),
    transcript,
  );
}

function apply(entry: Entry, rule: Rule): Entry[] {
  if (entry.kind !== rule.kind) return [entry];
  if (rule.about !== undefined && entry.about !== rule.about) return [entry];
  if (rule.whole !== undefined && has(entry.body, rule.whole)) return [];
  return [{ ...entry, body: strip(entry.body, rule) }];
}

function strip(value: Json, rule: Rule): Json {
  if (Array.isArray(value)) {
    return value
      .filter((item) => typeof item !== "string" || !rule.items?.includes(item))
      .map((item) => strip(item, rule));
  }
  if (typeof value !== "object" || value === null) return value;
  const applies = rule.within === undefined || has(value, rule.within);
  const members = Object.entries(value)
    .filter(([name]) => !(applies && rule.members?.includes(name)))
    .map(([name, inner]): [string, Json] => [name, strip(inner, rule)]);
  return Object.fromEntries(members);
}

function has(value: Json, wanted: Readonly<Record<string, Json>>): boolean {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const members = value as { readonly [k: string]: Json };
  return Object.entries(wanted).every(
    ([name, inner]) => JSON.stringify(members[name]) === JSON.stringify(inner),
  );
}

/** Reasons of rules that nothing needed. */
export function unneeded(rules: readonly Rule[], needed: ReadonlySet<Rule>): string[] {
  return rules.filter((rule) => !needed.has(rule)).map(({ why }) => why);
}
