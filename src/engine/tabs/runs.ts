/** Sets of writes' numbers, which come in runs. */

/** Both are in it. */
export type Run = readonly [first: number, last: number];

export const ALL: readonly Run[] = [[1, Number.MAX_SAFE_INTEGER]];

export function has(runs: readonly Run[], n: number): boolean {
  return runs.some(([first, last]) => first <= n && n <= last);
}

/** What is in either; no two of its runs meet. */
export function union(a: readonly Run[], b: readonly Run[]): readonly Run[] {
  const joined: [number, number][] = [];
  for (const [first, last] of [...a, ...b].sort((one, other) => one[0] - other[0])) {
    const before = joined.at(-1);
    if (before && first <= before[1] + 1) before[1] = Math.max(before[1], last);
    else joined.push([first, last]);
  }
  return joined;
}
