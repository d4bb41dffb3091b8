/**
 * What a job may do and what may be asked of it, written down once more, from QEMU's job.c
 * (JobSTT, JobVerbTable) and not from src/job/status.ts: a mistake there must not excuse itself.
 */

/** Rows: from; columns: to. */
const MOVES = `
       created running paused ready standby waiting pending aborting concluded null
  undefined  1    .      .      .      .      .       .       .         .       .
  created    .    1      .      .      .      .       .       1         .       1
  running    .    .      1      1      .      1       .       1         .       .
  paused     .    1      .      .      .      .       .       .         .       .
  ready      .    .      .      .      1      1       .       1         .       .
  standby    .    .      .      1      .      .       .       .         .       .
  waiting    .    .      .      .      .      .       1       1         .       .
  pending    .    .      .      .      .      .       .       1         1       .
  aborting   .    .      .      .      .      .       .       .         1       .
  concluded  .    .      .      .      .      .       .       .         .       1
  null       .    .      .      .      .      .       .       .         .       .`;

const VERBS = `
       created running paused ready standby waiting pending aborting concluded null
  cancel     1    1      1      1      1      1       1       .         .       .
  pause      1    1      1      1      1      .       .       .         .       .
  resume     1    1      1      1      1      .       .       .         .       .
  set-speed  1    1      1      1      1      .       .       .         .       .
  change     1    1      1      1      1      .       .       .         .       .
  complete   .    .      .      1      1      .       .       .         .       .
  finalize   .    .      .      .      .      .       1       .         .       .
  dismiss    .    .      .      .      .      .       .       .         1       .`;

const moves = cells(MOVES);
const verbs = cells(VERBS);

/** A move that is told: the silent one from aborting to aborting is none. */
export function mayMove(from: string, to: string): boolean {
  return moves.has(`${from} ${to}`);
}

export function mayVerb(verb: string, status: string): boolean {
  return verbs.has(`${verb} ${status}`);
}

function cells(table: string): ReadonlySet<string> {
  const [head, ...rows] = table.trim().split("\n");
  const columns = head!.trim().split(/ +/);
  return new Set(
    rows.flatMap((row) => {
      const [name, ...marks] = row.trim().split(/ +/);
      return columns.filter((_, i) => marks[i] === "1").map((column) => `${name} ${column}`);
    }),
  );
}
