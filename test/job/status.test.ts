/** The two tables, and that a job keeps to them. */

import { expect, it } from "vitest";
import { VirtualClock } from "../../src/base/virtual-clock.ts";
import { Job } from "../../src/job/job.ts";
import { JobList } from "../../src/job/list.ts";
import {
  isCompleted,
  JOB_VERBS,
  type JobStatus,
  mayApply,
  mayMove,
  STATUSES,
} from "../../src/job/status.ts";

// The picture is the test: a changed edge is a changed picture in the diff.
it("#6 moves are QEMU's JobSTT", () => {
  expect(draw(STATUSES, mayMove)).toBe(`
            U C R P Y S W D X E N
undefined   . x . . . . . . . . .
created     . . x . . . . . x . x
running     . . . x x . x . x . .
paused      . . x . . . . . . . .
ready       . . . . . x x . x . .
standby     . . . . x . . . . . .
waiting     . . . . . . . x x . .
pending     . . . . . . . . x x .
aborting    . . . . . . . . x x .
concluded   . . . . . . . . . . x
null        . . . . . . . . . . .
`);
});

it("#7 verbs are QEMU's JobVerbTable", () => {
  expect(draw(JOB_VERBS, mayApply)).toBe(`
            U C R P Y S W D X E N
cancel      . x x x x x x x . . .
pause       . x x x x x . . . . .
resume      . x x x x x . . . . .
set-speed   . x x x x x . . . . .
complete    . . . . x x . . . . .
finalize    . . . . . . . x . . .
dismiss     . . . . . . . . . x .
change      . x x x x x . . . . .
`);
});

it("a job is completed from waiting on", () => {
  expect(STATUSES.filter(isCompleted).join(" ")).toBe("waiting pending aborting concluded null");
});

// How a job gets to each status; nobody can do anything to one that is still undefined.
const PATHS: Record<Exclude<JobStatus, "undefined">, readonly JobStatus[]> = {
  created: [],
  running: ["running"],
  paused: ["running", "paused"],
  ready: ["running", "ready"],
  standby: ["running", "ready", "standby"],
  waiting: ["running", "waiting"],
  pending: ["running", "waiting", "pending"],
  aborting: ["running", "aborting"],
  concluded: ["running", "aborting", "concluded"],
  null: ["null"],
};
for (const [from, path] of Object.entries(PATHS)) {
  it(`#6 a job that is ${from} makes the table's moves and no other, and tells of them`, () => {
    for (const to of STATUSES) {
      const told: JobStatus[] = [];
      const probe = new Probe(told);
      for (const status of path) probe.walk(status);
      told.length = 0;
      if (mayMove(from as JobStatus, to)) {
        probe.walk(to);
        expect([probe.status, told]).toEqual([to, from === to ? [] : [to]]);
      } else {
        expect(() => probe.walk(to), `${from} to ${to}`).toThrow(`may go from ${from} to ${to}`);
        expect([probe.status, told]).toEqual([from, []]);
      }
    }
  });
}

/** A job that anybody can move. */
class Probe extends Job {
  constructor(told: JobStatus[]) {
    super({
      id: "probe",
      clock: new VirtualClock(),
      list: new JobList({ onBug() {}, onStatus: ({ status }) => told.push(status) }),
      driver: { type: "test", run: async () => {} },
    });
  }

  walk(to: JobStatus): void {
    this.move(to);
  }
}

function draw<Row extends string>(
  rows: readonly Row[],
  holds: (row: Row, column: JobStatus) => boolean,
): string {
  const lines = rows.map((row) => {
    const marks = STATUSES.map((column) => (holds(row, column) ? "x" : "."));
    return `${row.padEnd(12)}${marks.join(" ")}`;
  });
  return `\n${" ".repeat(12)}U C R P Y S W D X E N\n${lines.join("\n")}\n`;
}
