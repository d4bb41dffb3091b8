/**
 * Mistakes that a writer of qcow2 could make, one for each rule at the head of
 * src/drivers/format/qcow2/epoch.ts: what it has recorded is put into the order in which such a writer
 * would have done it. The harness must find each of them, or it finds nothing.
 *
 * A phase is what is between two flushes of one file. The format tells what its writes are about, so a
 * phase that links is known from one that counts:
 *
 *     data, "refblock_update" …, FLUSH    step A
 *     "l2_update" …, FLUSH                step B
 */

import type { Entry } from "./log.ts";

type Phase = readonly Entry[];

export interface Mistake {
  readonly name: string;
  /** Of epoch.ts: the rule that it breaks. */
  readonly rule: string;
  /** The kind of operation that shows it. */
  readonly kind: string;
  make(log: readonly Entry[]): Entry[];
}

export const MISTAKES: readonly Mistake[] = [
  {
    name: "flushes mean nothing",
    rule: "all",
    kind: "writes over snapshots",
    make: (log) => log.filter(({ kind }) => kind !== "flush-begin"),
  },
  {
    name: "flushes mean nothing, in the log of blklogwrites",
    rule: "all",
    kind: "blklogwrites: writes over snapshots",
    make: (log) => log.filter(({ kind }) => kind !== "flush-begin"),
  },
  {
    name: "entries are written in the same breath as what they lead to",
    rule: "1, no flush between A and B",
    kind: "random allocation, clusters of 4096",
    make: (log) => eachPair(log, countsThenLinks, (a, b) => [unflushed(a), b]),
  },
  {
    name: "references appear before their refcounts go up",
    rule: "2, B before A",
    kind: "random allocation, clusters of 4096",
    make: (log) => eachPair(log, countsThenLinks, (a, b) => [b, a]),
  },
  {
    name: "refcounts go down, and clusters are used again, before the last reference is gone",
    rule: "3, the next A before B",
    kind: "discard and reuse",
    make: (log) =>
      eachPair(
        log,
        (b, a) => links(b) && counts(a),
        (b, a) => [a, b],
      ),
  },
  {
    name: "an entry is written whose data comes later",
    rule: "4, data after B",
    kind: "sequential allocation, clusters of 4096",
    make: (log) =>
      eachPair(log, countsThenLinks, (a, b) => {
        const data = dataOf(a);
        return [a.filter((entry) => !data.includes(entry)), b, data];
      }),
  },
  {
    name: "a page counts as written though it is not in the file",
    rule: "5, refcounts are lost",
    kind: "random allocation, clusters of 4096",
    make: (log) =>
      eachPair(log, countsThenLinks, (a, b) => [
        a.filter((entry) => !updatesOf(a).includes(entry)),
        b,
      ]),
  },
  {
    name: "a guest's flush without news in the tables does not flush its data",
    rule: "6, A always flushes",
    kind: "sequential allocation, clusters of 65536",
    make: (log) =>
      phasesOf(log).flatMap((phase) => (counts(phase) || links(phase) ? phase : unflushed(phase))),
  },
  {
    name: "the refcount table leads to blocks that are not there yet",
    rule: "step 0",
    kind: "new refcount blocks",
    make: (log) =>
      eachPair(
        log,
        (_block, table) => has(table, "reftable_update"),
        (block, table) => [unflushed(block), table],
      ),
  },
  {
    name: "the header switches to what is not there yet",
    rule: "one write switches, after a flush (rebuild.ts)",
    kind: "snapshot create",
    make: (log) =>
      eachPair(
        log,
        (_built, header) => switches(header),
        (built, header) => [header, built],
      ),
  },
];

function phasesOf(log: readonly Entry[]): Phase[] {
  const phases: Entry[][] = [[]];
  for (const entry of log) {
    phases.at(-1)!.push(entry);
    if (entry.kind === "flush") phases.push([]);
  }
  return phases;
}

/** Puts other phases into the place of each pair that is meant. */
function eachPair(
  log: readonly Entry[],
  isMeant: (first: Phase, second: Phase) => boolean,
  change: (first: Phase, second: Phase) => readonly Phase[],
): Entry[] {
  const phases = phasesOf(log);
  const changed: Entry[] = [];
  for (let i = 0; i < phases.length; i++) {
    const [first, second] = [phases[i]!, phases[i + 1]];
    if (second && isMeant(first, second)) {
      changed.push(...change(first, second).flat());
      i++;
    } else changed.push(...first);
  }
  return changed;
}

const has = (phase: Phase, ...steps: string[]) =>
  phase.some((entry) => entry.kind === "step" && steps.includes(entry.step));
const counts = (phase: Phase) => has(phase, "refblock_update", "reftable_update");
const links = (phase: Phase) => has(phase, "l2_update", "l1_update") && !counts(phase);
const countsThenLinks = (a: Phase, b: Phase) => counts(a) && links(b);
const switches = (phase: Phase) =>
  phase.some((entry) => entry.kind === "write" && entry.offset < 104);

/** Its flush keeps nothing. */
const unflushed = (phase: Phase) => phase.filter(({ kind }) => kind !== "flush-begin");

const isUpdate = (entry: Entry) => entry.kind === "step" && entry.step.endsWith("_update");

/** Writes before the tables' turn. */
function dataOf(phase: Phase): Entry[] {
  const tables = phase.findIndex(isUpdate);
  return phase.slice(0, tables).filter(({ kind }) => kind === "write");
}

function updatesOf(phase: Phase): Entry[] {
  return phase.slice(phase.findIndex(isUpdate)).filter(({ kind }) => kind === "write");
}
