/**
 * What a crash can leave. A recording is cut at each flush; the files then are
 *
 *     all that was flushed before  +  a subset of the writes since  (the open epoch)
 *     └───────── certain ────────┘    └─ some of them torn at 512-byte sectors ─┘
 *
 * and each file is as long as its last write or truncation that is there makes it, or, as file systems
 * do that write lengths before data, as long as it was going to be. Of up to FEW writes all subsets
 * are made; of more none, all, each beginning up to some write, and random ones.
 */

import type { Random } from "../../src/base/random.ts";
import { Content, type Entry, type Files } from "./log.ts";

const SECTOR_BYTES = 512;
const FEW = 4;
const MANY = 12;
const RANDOM_SUBSETS = 6;
const TORN_PERCENT = 15;
const LENGTH_FIRST_PERCENT = 15;

/** Which state: enough to make it again. */
export interface Choice {
  /** So many entries of the log have begun. */
  readonly cut: number;
  /** Of the open epoch, by their places in the log: these are there. */
  readonly kept: readonly number[];
  /** Of those: the sectors of them that are not, counted from their first one. */
  readonly torn: ReadonlyMap<number, readonly number[]>;
  /** Lengths went ahead of data. */
  readonly lengthFirst: boolean;
}

/** All choices for a recording, in the order of their cuts. */
export function* choicesOf(log: readonly Entry[], random: Random): Generator<Choice> {
  for (const cut of cutsOf(log)) {
    const open = openEntries(log, cut);
    for (const kept of subsetsOf(open, random)) {
      const torn = tornOf(log, kept, random);
      yield { cut, kept, torn, lengthFirst: random.below(100) < LENGTH_FIRST_PERCENT };
    }
  }
}

/** Just before each flush is over, and at the end. */
function cutsOf(log: readonly Entry[]): number[] {
  const cuts: number[] = [];
  for (const [index, { kind }] of log.entries()) if (kind === "flush") cuts.push(index);
  if (log.at(-1)?.kind !== "flush") cuts.push(log.length);
  return cuts;
}

/** Changes before the cut that no flush has made certain. */
export function openEntries(log: readonly Entry[], cut: number): number[] {
  const certain = certainEnds(log, cut);
  const open: number[] = [];
  for (let index = 0; index < cut; index++) {
    const { kind, file } = log[index]!;
    const changes = kind === "write" || kind === "truncate";
    if (changes && index >= (certain.get(file) ?? 0)) open.push(index);
  }
  return open;
}

/** Per file: what stands before this place in the log is certain. */
function certainEnds(log: readonly Entry[], cut: number): Map<string, number> {
  const begun = new Map<string, number>();
  const ends = new Map<string, number>();
  for (let index = 0; index < cut; index++) {
    const entry = log[index]!;
    if (entry.kind === "flush-begin") begun.set(`${entry.file} ${entry.flush}`, index);
    if (entry.kind !== "flush") continue;
    const end = begun.get(`${entry.file} ${entry.flush}`) ?? 0;
    ends.set(entry.file, Math.max(end, ends.get(entry.file) ?? 0));
  }
  return ends;
}

function* subsetsOf(open: readonly number[], random: Random): Generator<readonly number[]> {
  if (open.length <= FEW) {
    for (let bits = 0; bits < 2 ** open.length; bits++) {
      yield open.filter((_, i) => (bits >> i) & 1);
    }
    return;
  }
  yield [];
  yield open;
  for (let i = 0; i < RANDOM_SUBSETS; i++) {
    if (i === 0) yield open.slice(0, 1 + random.below(open.length - 1));
    else {
      const share = 1 + random.below(9);
      yield open.filter(() => random.below(10) < share);
    }
  }
}

function tornOf(log: readonly Entry[], kept: readonly number[], random: Random) {
  const torn = new Map<number, readonly number[]>();
  for (const index of kept) {
    if (random.below(100) >= TORN_PERCENT) continue;
    const lost = lostSectors(log[index]!, random);
    if (lost.length > 0) torn.set(index, lost);
  }
  return torn;
}

/** At least one sector of a torn write is lost, and at least one is not. */
function lostSectors(entry: Entry, random: Random): number[] {
  if (entry.kind !== "write") return [];
  const count = sectorsOf(entry);
  if (count < 2) return [];
  const lost: number[] = [];
  for (let sector = 0; sector < count; sector++) if (random.below(2)) lost.push(sector);
  if (lost.length === 0) lost.push(random.below(count));
  else if (lost.length === count) lost.splice(random.below(count), 1);
  return lost;
}

function sectorsOf(entry: Entry): number {
  // A truncation is done or not.
  if (entry.kind !== "write") return 1;
  const { offset, bytes } = entry;
  const first = Math.floor(offset / SECTOR_BYTES);
  return Math.ceil((offset + bytes.length) / SECTOR_BYTES) - first;
}

/** One of one file, cut anywhere: for tests that ask one image one thing. */
export function crashState(
  start: Uint8Array,
  log: readonly Entry[],
  cut: number,
  random: Random,
): Uint8Array<ArrayBuffer> {
  const share = random.below(5);
  const kept = openEntries(log, cut).filter(() => share === 4 || random.below(4) < share);
  const torn = tornOf(log, kept, random);
  return stateOf(start, log, { cut, kept, torn, lengthFirst: false });
}

/** All of one file at all cuts: each sector of the open epoch is there or is not. */
export function* everyState(
  start: Uint8Array,
  log: readonly Entry[],
): Generator<Uint8Array<ArrayBuffer>> {
  for (const cut of cutsOf(log)) {
    const sectors = openEntries(log, cut).flatMap((index) =>
      Array.from({ length: sectorsOf(log[index]!) }, (_, sector) => ({ index, sector })),
    );
    if (sectors.length > MANY) throw new Error(`2^${sectors.length} states are too many`);
    for (let bits = 0; bits < 2 ** sectors.length; bits++) {
      const there = sectors.filter((_, i) => (bits >> i) & 1);
      const kept = [...new Set(there.map(({ index }) => index))];
      const lost = sectors.filter((sector) => !there.includes(sector));
      const lostOf = (index: number) =>
        lost.filter((one) => one.index === index).map(({ sector }) => sector);
      const torn = new Map(kept.map((index) => [index, lostOf(index)]));
      yield stateOf(start, log, { cut, kept, torn, lengthFirst: false });
    }
  }
}

function stateOf(start: Uint8Array, log: readonly Entry[], choice: Choice) {
  const [file = ""] = log.map(({ file }) => file);
  const maker = new StateMaker(new Map([[file, start.slice()]]), log);
  return maker.make(choice).get(file)!;
}

/** Makes states one after another; cheap where their cuts only go up. */
export class StateMaker {
  readonly #log: readonly Entry[];
  readonly #certain: Map<string, Content>;
  readonly #ends = new Map<string, number>();
  #cut = 0;

  constructor(starts: Files, log: readonly Entry[]) {
    this.#log = log;
    this.#certain = new Map([...starts].map(([name, bytes]) => [name, new Content(bytes)]));
  }

  /** @param choice with a cut not below that of the choice before */
  make({ cut, kept, torn, lengthFirst }: Choice): Files {
    this.#advance(cut);
    const files = new Map<string, Content>();
    for (const [name, { bytes }] of this.#certain) files.set(name, new Content(bytes.slice()));
    for (const index of kept) {
      const entry = this.#log[index]!;
      const content = files.get(entry.file)!;
      const lost = torn.get(index);
      if (entry.kind === "write" && lost) tear(content, entry, lost);
      else content.apply(entry);
    }
    if (lengthFirst) this.#lengthen(files, cut);
    return new Map([...files].map(([name, { bytes }]) => [name, bytes]));
  }

  #advance(cut: number): void {
    if (cut < this.#cut) throw new Error("states are made in the order of their cuts");
    this.#cut = cut;
    for (const [file, end] of certainEnds(this.#log, cut)) {
      const from = this.#ends.get(file) ?? 0;
      for (let index = from; index < end; index++) {
        const entry = this.#log[index]!;
        if (entry.file === file) this.#certain.get(file)!.apply(entry);
      }
      this.#ends.set(file, Math.max(from, end));
    }
  }

  /** As long as all writes of the open epoch would have made them; what is missing is zeroes. */
  #lengthen(files: ReadonlyMap<string, Content>, cut: number): void {
    for (const index of openEntries(this.#log, cut)) {
      const entry = this.#log[index]!;
      if (entry.kind !== "write") continue;
      const content = files.get(entry.file)!;
      content.resize(Math.max(content.bytes.length, entry.offset + entry.bytes.length));
    }
  }
}

function tear(content: Content, entry: Entry & { kind: "write" }, lost: readonly number[]): void {
  const gone = new Set(lost);
  const first = Math.floor(entry.offset / SECTOR_BYTES);
  const end = entry.offset + entry.bytes.length;
  for (let sector = 0; sector < sectorsOf(entry); sector++) {
    if (gone.has(sector)) continue;
    const from = Math.max(entry.offset, (first + sector) * SECTOR_BYTES);
    const to = Math.min(end, (first + sector + 1) * SECTOR_BYTES);
    const bytes = entry.bytes.subarray(from - entry.offset, to - entry.offset);
    content.apply({ ...entry, offset: from, bytes });
  }
}
