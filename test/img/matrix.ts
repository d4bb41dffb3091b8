/**
 * The kinds of qcow2 images that there are, as rows of a matrix, and a few of them in which every two
 * choices meet at least once.
 */

import type { Random } from "../../src/base/random.ts";

/** What there is to choose. Of each list the first is the usual. */
export const FACTORS = {
  version: ["v3", "v2"],
  cluster: [65536, 512, 4096, 16384, 2097152],
  refcountBits: [16, 1, 2, 4, 8, 32, 64],
  subclusters: [false, true],
  compression: ["none", "zlib", "zstd"],
  snapshots: [0, 2],
  bitmaps: [0, 2],
  dataFile: ["none", "plain", "raw"],
  lazy: [false, true],
  luks: [false, true],
} as const;

export type Row = { readonly [Factor in keyof typeof FACTORS]: (typeof FACTORS)[Factor][number] };

/** Why there can be no such image; null if there can. */
export function reasonAgainst(row: Row): string | null {
  const { version, cluster, refcountBits, subclusters, compression, snapshots } = row;
  if (version === "v2") {
    if (refcountBits !== 16) return "refcounts of version 2 have 16 bits";
    if (subclusters) return "version 2 has no subclusters";
    if (compression === "zstd") return "version 2 packs with zlib only";
    if (row.bitmaps > 0) return "version 2 keeps no bitmaps";
    if (row.dataFile !== "none") return "version 2 has no data files";
    if (row.lazy) return "version 2 has no lazy refcounts";
  }
  if (row.luks && compression !== "none") return "encrypted clusters are not packed";
  if (subclusters && cluster < 16384) return "subclusters need clusters of 16 KiB";
  if (row.dataFile !== "none") {
    if (compression !== "none") return "packed clusters need the image's own file";
    if (snapshots > 0) return "snapshots need the image's own file";
  }
  if (refcountBits === 1 && snapshots > 0) return "a shared cluster needs a refcount above 1";
  if (refcountBits === 1 && compression !== "none" && cluster > 512) {
    return "packed clusters share one: its refcount would be above 1";
  }
  if (refcountBits === 2 && snapshots > 0 && compression !== "none") {
    return "packed clusters of snapshots would have refcounts above 3";
  }
  return null;
}

export function nameOf(row: Row): string {
  const { version, cluster, refcountBits, subclusters, compression, snapshots } = row;
  return [
    version,
    `cluster ${cluster}`,
    `refcount ${refcountBits}`,
    subclusters && "subclusters",
    compression !== "none" && compression,
    snapshots > 0 && "snapshots",
    row.bitmaps > 0 && "bitmaps",
    row.dataFile !== "none" && `data file ${row.dataFile}`,
    row.lazy && "lazy",
    row.luks && "luks",
  ]
    .filter(Boolean)
    .join(", ");
}

/** What is chosen from where there is little time: the usual, and the ends. */
const FEW: { readonly [Factor in keyof typeof FACTORS]?: readonly unknown[] } = {
  cluster: [65536, 512, 16384],
  refcountBits: [16, 1, 4, 64],
};

/** Rows of few choices. */
export function fewRows(): Row[] {
  return allRows().filter((row) =>
    Object.entries(FEW).every(([factor, values]) =>
      values.includes(row[factor as keyof typeof FACTORS]),
    ),
  );
}

/** All that can be. */
export function allRows(): Row[] {
  let rows: Record<string, unknown>[] = [{}];
  for (const [factor, values] of Object.entries(FACTORS)) {
    rows = rows.flatMap((row) => values.map((value) => ({ ...row, [factor]: value })));
  }
  return (rows as unknown as Row[]).filter((row) => reasonAgainst(row) === null);
}

/** A few rows in which every two choices that go together meet. */
export function pairwise(rows: readonly Row[], random: Random): Row[] {
  const open = new Set(rows.flatMap(pairsOf));
  const chosen: Row[] = [];
  while (open.size > 0) {
    let best: Row | undefined;
    let most = 0;
    // Where several are as good, chance decides: other seeds see other rows.
    const from = random.below(rows.length);
    for (let i = 0; i < rows.length; i++) {
      const row = rows[(from + i) % rows.length]!;
      const gain = pairsOf(row).filter((pair) => open.has(pair)).length;
      if (gain > most) [best, most] = [row, gain];
    }
    chosen.push(best!);
    for (const pair of pairsOf(best!)) open.delete(pair);
  }
  return chosen;
}

function pairsOf(row: Row): string[] {
  const choices = Object.entries(row).map(([factor, value]) => `${factor}=${value}`);
  return choices.flatMap((one, i) => choices.slice(i + 1).map((other) => `${one} ${other}`));
}
