/**
 * Differences that are known, as data. Two tables have them: differences.ts those on purpose,
 * newer.ts those between versions of QEMU. A rule takes something out of both transcripts. One that
 * takes out nothing in which they differ is stale, and fails the run.
 */

import type { Entry, Json, Transcript } from "./transcript.ts";

export interface Rule {
  /** What differs, and why. */
  readonly why: string;
  /** The first version of QEMU that differs, where older ones do not. */
  readonly from?: string;
  /** In which entries: those of a kind, or of one command, event or tool only. */
  readonly kind: Entry["kind"];
  readonly about?: string;
  /** Members that go, wherever they stand in it. */
  readonly members?: readonly string[];
  /** Only in an object with these members. */
  readonly within?: Readonly<Record<string, Json>>;
  /** Strings that go from lists. */
  readonly items?: readonly string[];
  /** From lists under `members`, only what has no such member goes; an empty list goes, too. */
  readonly itemsWithout?: string;
  /** Pairs of "paused", "running" or "standby", "ready" of one job, one right after the other, go. */
  readonly pauses?: true;
  /** Such entries, one right after the other, may come in any order. */
  readonly anyOrder?: true;
  /** The whole entry goes, if its body has these members; true: whatever it says. */
  readonly whole?: Readonly<Record<string, Json>> | true;
}

export function applyRules(transcript: Transcript, rules: readonly Rule[]): Transcript {
  return rules.reduce<Transcript>(
    (entries, rule) =>
      rule.pauses
        ? withoutPauses(entries)
        : rule.anyOrder
          ? inOrder(entries, rule)
          : entries.flatMap((entry) => apply(entry, rule)),
    transcript,
  );
}

/** Whether there is an entry that the rule may change. */
export function isAbout(rule: Rule, transcript: Transcript): boolean {
  return transcript.some((entry) => isMeant(entry, rule));
}

function isMeant(entry: Entry, { kind, about }: Rule): boolean {
  return entry.kind === kind && (about === undefined || entry.about === about);
}

function apply(entry: Entry, rule: Rule): Entry[] {
  if (!isMeant(entry, rule)) return [entry];
  if (rule.whole === true) return [];
  if (rule.whole !== undefined && has(entry.body, rule.whole)) return [];
  return [{ ...entry, body: strip(entry.body, rule) }];
}

function withoutPauses(entries: Transcript): Transcript {
  const out: Entry[] = [];
  for (const entry of entries) {
    const last = out.at(-1);
    if (last && isPause(last, entry)) out.pop();
    else out.push(entry);
  }
  return out;
}

/** Runs of entries that the rule is about, in the order of their text. */
function inOrder(entries: Transcript, rule: Rule): Transcript {
  const out: Entry[] = [];
  for (const entry of entries) {
    let at = out.length;
    if (isMeant(entry, rule)) {
      const text = JSON.stringify(entry.body);
      while (at > 0 && isMeant(out[at - 1]!, rule) && JSON.stringify(out[at - 1]!.body) > text)
        at--;
    }
    out.splice(at, 0, entry);
  }
  return out;
}

const RESUMED: Readonly<Record<string, string>> = { paused: "running", standby: "ready" };

function isPause(before: Entry, after: Entry): boolean {
  if (before.about !== "JOB_STATUS_CHANGE" || after.about !== "JOB_STATUS_CHANGE") return false;
  const [first, second] = [before.body, after.body] as { id: string; status: string }[];
  return first!.id === second!.id && RESUMED[first!.status] === second!.status;
}

function strip(value: Json, rule: Rule): Json {
  if (Array.isArray(value)) {
    return value
      .filter((item) => typeof item !== "string" || !rule.items?.includes(item))
      .map((item) => strip(item, rule));
  }
  if (typeof value !== "object" || value === null) return value;
  const applies = rule.within === undefined || has(value, rule.within);
  const members = Object.entries(value).flatMap(([name, inner]): [string, Json][] => {
    if (!(applies && rule.members?.includes(name))) return [[name, strip(inner, rule)]];
    const kept = itemsWith(rule.itemsWithout, inner);
    return kept.length > 0 ? [[name, kept]] : [];
  });
  return Object.fromEntries(members);
}

function itemsWith(member: string | undefined, list: Json): readonly Json[] {
  if (member === undefined || !Array.isArray(list)) return [];
  return list.filter((item) => typeof item === "object" && item !== null && member in item);
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
