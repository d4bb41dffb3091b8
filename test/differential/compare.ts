/**
 * Two transcripts of one script: do they agree, but for what is known?
 *
 * Stale excuses count as disagreement: a reply that a script calls different and that is not, and a
 * script about something newer than the daemon that this daemon does all the same. That a rule of
 * the tables is of use is seen over all scripts: each comparison says which rules it needed.
 */

import { type Daemon, isBefore } from "./daemon.ts";
import { unifiedDiff } from "./diff.ts";
import { DIFFERENCES } from "./differences.ts";
import { withTheirNames } from "./names.ts";
import { NEWER } from "./newer.ts";
import { renumbered } from "./normal.ts";
import { applyRules, isAbout, type Rule } from "./rules.ts";
import type { ScriptOptions } from "./script.ts";
import { type Entry, inline, show, type Transcript, write } from "./transcript.ts";

export interface Side {
  readonly daemon: Pick<Daemon, "title" | "version">;
  readonly transcript: Transcript;
}

export interface Verdict {
  /** Lines for people; empty if the two agree. */
  readonly report: readonly string[];
  /** Rules without which they would not have agreed. */
  readonly needed: readonly Rule[];
}

/** All rules that hold between ours and this QEMU. */
export function rulesFor(daemon: Side["daemon"], own: readonly Rule[] = []): Rule[] {
  const newer = NEWER.filter(({ since }) => isBefore(daemon, since));
  const all = [...DIFFERENCES, ...own, ...newer];
  return all.filter(({ from }) => from === undefined || !isBefore(daemon, from));
}

export function compare(theirs: Side, ours: Side, options: ScriptOptions): Verdict {
  const parting = theirs.transcript.findIndex(({ kind }) => kind === "parting");
  if (parting < 0) return compareAll(theirs, ours, options);
  const [a, b] = [theirs, ours].map(({ daemon, transcript }) => {
    const end = transcript.findIndex(({ kind }) => kind === "parting");
    return { daemon, transcript: transcript.slice(0, end < 0 ? undefined : end) };
  });
  const verdict = compareAll(a!, b!, options);
  if (verdict.report.length > 0 || compareAll(theirs, ours, {}).report.length > 0) return verdict;
  const { about } = theirs.transcript[parting]!;
  return {
    ...verdict,
    report: [`From some point on all is said to differ (${about}), and is the same`],
  };
}

function compareAll(theirs: Side, ours: Side, options: ScriptOptions): Verdict {
  const own = options.differences ?? [];
  const rules = rulesFor(theirs.daemon, own);
  const report = differ(theirs, ours, rules);
  const { since, open } = options;
  if (open !== undefined) {
    if (report.length > 0) return { report: [], needed: [] };
    return { report: [`This is said to be open, and is not: ${open}`], needed: [] };
  }
  if (since !== undefined && isBefore(theirs.daemon, since.version)) {
    if (report.length > 0) return { report: [], needed: [] };
    const stale = `${since.what} is said to be newer than ${theirs.daemon.title}, which does the same`;
    return { report: [stale], needed: [] };
  }
  if (report.length > 0) return { report, needed: [] };
  const needed = rules.filter(
    (rule) =>
      [theirs, ours].some(({ transcript }) => isAbout(rule, transcript)) &&
      differ(
        theirs,
        ours,
        rules.filter((other) => other !== rule),
      ).length > 0,
  );
  const stale = [
    ...staleExcuses(theirs.transcript, ours.transcript),
    ...own
      .filter((rule) => rules.includes(rule) && !needed.includes(rule))
      .map(({ why }) => `There is no difference: ${why}`),
  ];
  return { report: stale, needed };
}

function differ(theirs: Side, ours: Side, rules: readonly Rule[]): string[] {
  const a = renumbered(applyRules(theirs.transcript, rules));
  const b = alike(renumbered(applyRules(ours.transcript, rules)), a);
  const [one, other] = [a, b].map((entries) => entries.map(excused));
  if (write(one!) === write(other!)) return [];
  return unifiedDiff(
    { title: theirs.daemon.title, lines: show(one!) },
    { title: ours.daemon.title, lines: show(other!) },
  );
}

/** Ours, with the names in errors that theirs has, where ours has these and others. */
function alike(ours: Transcript, theirs: Transcript): Transcript {
  const pairs = new Map(numbered(theirs).map(([key, entry]) => [key, entry]));
  return numbered(ours).map(([key, entry]) => {
    const other = pairs.get(key);
    return other ? { ...entry, body: withTheirNames(entry.body, other.body) } : entry;
  });
}

/** Each entry with a key: the how manieth of its sort under the how manieth request it is. */
function numbered(entries: Transcript): [string, Entry][] {
  let request = 0;
  const counts = new Map<string, number>();
  return entries.map((entry) => {
    if (entry.kind === "request") request++;
    const sort = `${request} ${entry.kind} ${entry.about}`;
    const count = (counts.get(sort) ?? 0) + 1;
    counts.set(sort, count);
    return [`${sort} ${count}`, entry];
  });
}

function excused(entry: Entry): Entry {
  return entry.differs === undefined ? entry : { ...entry, body: `differs: ${entry.differs}` };
}

function staleExcuses(theirs: Transcript, ours: Transcript): string[] {
  const fitting = alike(ours, theirs);
  return theirs.flatMap(({ differs, body, about }, i) =>
    differs !== undefined && inline(body) === inline(fitting[i]?.body ?? null)
      ? [`The reply to ${about} is said to differ (${differs}), and is the same: ${inline(body)}`]
      : [],
  );
}
