/** Runs kinds of operation with seed after seed, cuts each run in many ways, and judges what is left. */

import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { seededRandom } from "../../src/base/random.ts";
import { settleAll } from "../../src/base/settle.ts";
import { Shells } from "../shells.ts";
import { testWorld } from "../world.ts";
import { Judge, writeState } from "./judge.ts";
import type { Entry } from "./log.ts";
import { type Choice, choicesOf, StateMaker } from "./states.ts";
import { type Cut, type Kind, Trial } from "./trial.ts";

/** Most states of one trial: many short histories find more than one long one. */
const STATES_PER_TRIAL = 60;

export interface RunOptions {
  readonly kinds: readonly Kind[];
  /** So many for all kinds together; each gets its share. */
  readonly states: number;
  readonly seed: number;
  readonly onProgress?: (report: Report, kind: Kind) => void;
  /** For those who want to see that the harness would notice: another order of the log. */
  readonly tamper?: (log: readonly Entry[]) => readonly Entry[];
}

export interface Report {
  /** Made and judged. */
  states: number;
  /** Files that differ: what was checked once. */
  distinct: number;
  leaky: number;
  /** Checks of the real qemu-img. */
  checked: number;
  sampled: number;
  trials: number;
}

/** A state that must not be. */
export class CrashError extends Error {
  override readonly name = "CrashError";
  /** The folder with its files; "" if the run itself failed. */
  readonly kept: string;

  constructor(message: string, kept: string, cause?: unknown) {
    super(message, { cause });
    this.kept = kept;
  }
}

/** How many of the states of all kinds are for some of them. */
export function shareOf(some: readonly Kind[], all: readonly Kind[], states: number): number {
  const weigh = (kinds: readonly Kind[]) => kinds.reduce((sum, { share = 1 }) => sum + share, 0);
  return Math.ceil((states * weigh(some)) / weigh(all));
}

/** @throws CrashError with all that is needed to see it again */
export async function crash(options: RunOptions): Promise<Report> {
  const { kinds, states, seed, onProgress } = options;
  const report: Report = { states: 0, distinct: 0, leaky: 0, checked: 0, sampled: 0, trials: 0 };
  const memory = "/dev/shm";
  const folder = mkdtempSync(join(existsSync(memory) ? memory : tmpdir(), "blocktab-crash-"));
  const shells = new Shells(availableParallelism());
  try {
    for (const [i, kind] of kinds.entries()) {
      const goal = shareOf(kinds.slice(0, i + 1), kinds, states);
      for (let trial = 0; report.states < goal; trial++) {
        const most = Math.min(STATES_PER_TRIAL, goal - report.states);
        await runTrial(kind, seed + trial, most, { ...options, folder, shells, report });
        onProgress?.(report, kind);
      }
    }
    return report;
  } finally {
    await shells.end();
    rmSync(folder, { recursive: true, force: true });
  }
}

interface Place extends RunOptions {
  readonly folder: string;
  readonly shells: Shells;
  readonly report: Report;
}

async function runTrial(kind: Kind, seed: number, most: number, place: Place): Promise<void> {
  const { report, shells, folder, tamper } = place;
  const again = `npm run crash -- --only "${kind.name}" --seed ${seed} --states ${most}`;
  const trial = await Trial.start(seed, kind.isLogged);
  try {
    await kind.run(trial);
  } catch (error) {
    throw new CrashError(`${kind.name}: the run itself failed\nagain: ${again}`, "", error);
  }
  report.trials++;
  const { source } = trial;
  const recorded = source.log;
  const log = tamper ? tamper(recorded) : recorded;
  const chosen = choose([...choicesOf(log, seededRandom(seed))], most, seededRandom(seed + 1));
  const maker = new StateMaker(source.starts, log);
  const when = cutIn(recorded, log);
  const judge = new Judge(await testWorld({ seed }), trial, shells, folder);
  const left = chosen.values();
  // The first one that is wrong is told and kept, no other.
  let isOver = false;
  const judgeOneByOne = async () => {
    for (const choice of left) {
      const files = maker.make(choice);
      const problem = await judge.wrong(files, when(choice.cut));
      report.states++;
      if (isOver) return;
      if (!problem) continue;
      isOver = true;
      const kept = mkdtempSync(join(tmpdir(), "blocktab-crash-kept-"));
      writeState(kept, files);
      throw new CrashError(
        `${kind.name}, seed ${seed}: ${problem}\n${told(choice, log)}\nfiles: ${kept}\nagain: ${again}`,
        kept,
      );
    }
  };
  // While some wait for qemu-img, others are read here.
  await settleAll(Array.from({ length: 2 * availableParallelism() }, judgeOneByOne));
  report.distinct += judge.counts.distinct;
  report.leaky += judge.counts.leaky;
  report.checked += judge.counts.checked;
  report.sampled += judge.counts.sampled;
}

/** Where a cut of a log that was tampered with is in the true one. */
function cutIn(log: readonly Entry[], tampered: readonly Entry[]): (cut: number) => Cut {
  if (log === tampered) return (cut) => ({ done: cut, begun: cut });
  const places = new Map(log.map((entry, index) => [entry, index]));
  return (cut) => {
    const after = tampered.slice(cut).map((entry) => places.get(entry)!);
    const before = tampered.slice(0, cut).map((entry) => places.get(entry)!);
    return { done: Math.min(log.length, ...after), begun: Math.max(0, ...before) + 1 };
  };
}

/** So many of them, in the order of their cuts. */
function choose<T>(all: readonly T[], most: number, random: { below(n: number): number }): T[] {
  const indices = all.map((_, i) => i);
  for (let i = 0; i < Math.min(most, indices.length); i++) {
    const j = i + random.below(indices.length - i);
    [indices[i], indices[j]] = [indices[j]!, indices[i]!];
  }
  return indices
    .slice(0, most)
    .sort((a, b) => a - b)
    .map((i) => all[i]!);
}

/** The cut, and of each change in the open epoch whether it is there. */
function told({ cut, kept, torn, lengthFirst }: Choice, log: readonly Entry[]): string {
  const lines = [`cut at ${cut} of ${log.length}${lengthFirst ? ", lengths first" : ""}; there:`];
  for (const index of kept) {
    const entry = log[index]!;
    const what =
      entry.kind === "write"
        ? `write of ${entry.bytes.length} at ${entry.offset}`
        : entry.kind === "truncate"
          ? `truncation to ${entry.length}`
          : entry.kind;
    const lost = torn.get(index);
    lines.push(
      `  ${index} ${entry.file}: ${what}${lost ? `, without sectors ${lost.join(" ")}` : ""}`,
    );
  }
  return lines.join("\n");
}
