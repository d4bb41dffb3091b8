/**
 * What the bench measures, line by line, and how: ours and the reference side by side.
 *
 *     warm-up    ours theirs
 *     run 1      ours theirs    ──▶ ratio      The machine changes from minute to minute, so only
 *     run 2      theirs ours    ──▶ ratio      what was measured in one moment is divided, and the
 *     …                                        ratio's median, least and greatest are quoted
 *
 * They take turns in going first: what the first one leaves behind is the second one's burden.
 */

import type { Lab } from "./lab.ts";

/** One line of the table. */
export interface Line {
  readonly name: string;
  /** Of `ours` and `theirs`. */
  readonly unit: string;
  /** What the ratio is to, in full. */
  readonly reference: string;
  /** null: there is none, the number is to be watched. */
  readonly aim: Aim | null;
  /** Runs when nobody says how many. */
  readonly runs: number;
  /** Set-up that takes no part in the time. */
  prepare(lab: Lab): Promise<Sides>;
}

export type Aim = { readonly atLeast: number } | { readonly atMost: number };

export interface Sides {
  /** Measures once, in the line's unit. */
  ours(): Promise<number>;
  theirs(): Promise<number>;
  /** Ours to theirs, where a plain division will not do. */
  ratio?(ours: number, theirs: number): number;
  /** Whether the first run is thrown away. */
  readonly warmUp: boolean;
  /** What a reader should know of these runs. */
  note?(): string;
  done?(): Promise<void>;
}

export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** An entry of the JSON file. `median`, `min` and `max` are the ratio's; `ratio` is the median. */
export interface Result extends Spread {
  readonly name: string;
  readonly ratio: number;
  /** Of the ratio, in words. */
  readonly unit: string;
  readonly reference: string;
  readonly aim: Aim | null;
  readonly aimMet: boolean;
  readonly note?: string;
  readonly runs: number;
  /** The two sides in the unit that they were measured in. */
  readonly measured: { readonly unit: string; readonly ours: Spread; readonly theirs: Spread };
}

/** @param onRun told before each run, 0 for the warm-up */
export async function measure(
  line: Line,
  sides: Sides,
  runs: number,
  onRun: (run: number) => void,
): Promise<Result> {
  const ours: number[] = [];
  const theirs: number[] = [];
  for (let run = sides.warmUp ? 0 : 1; run <= runs; run++) {
    onRun(run);
    const pair = { ours: 0, theirs: 0 };
    const order = ["ours", "theirs"] as const;
    for (const side of run % 2 === 0 && run > 0 ? order.toReversed() : order) {
      pair[side] = await sides[side]();
    }
    if (run === 0) continue;
    ours.push(pair.ours);
    theirs.push(pair.theirs);
  }
  const divide = sides.ratio ?? ((a, b) => a / b);
  const ratios = spread(ours.map((value, i) => divide(value, theirs[i]!)));
  const note = sides.note?.();
  return {
    name: line.name,
    ratio: ratios.median,
    ...ratios,
    unit: `times the reference's ${line.unit}`,
    reference: line.reference,
    aim: line.aim,
    aimMet: isMet(line.aim, ratios.median),
    ...(note !== undefined && { note }),
    runs,
    measured: { unit: line.unit, ours: spread(ours), theirs: spread(theirs) },
  };
}

/** @param values at least one */
export function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  const median =
    sorted.length % 2 === 1
      ? sorted[Math.floor(middle)]!
      : (sorted[middle - 1]! + sorted[middle]!) / 2;
  return { median, min: sorted[0]!, max: sorted.at(-1)! };
}

function isMet(aim: Aim | null, ratio: number): boolean {
  if (aim === null) return true;
  return "atLeast" in aim ? ratio >= aim.atLeast : ratio <= aim.atMost;
}
