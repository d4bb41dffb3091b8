import { expect, it } from "vitest";
import {
  isCompleted,
  JOB_VERBS,
  type JobStatus,
  mayApply,
  mayMove,
  STATUSES,
} from "../../src/job/status.ts";

// The picture is the test: a changed edge is a changed picture in the diff.
it("moves are QEMU's JobSTT", () => {
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

it("verbs are QEMU's JobVerbTable", () => {
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
