import { expect, test } from "vitest";
import { fold, type Input, isActive, isMoving, NOTHING, type Snapshot } from "../../web/fold.ts";
import type { BlockJobInfo, JobStatus, QmpEvent } from "../../web/wire.ts";

const LEN = 1000;

test("a job that goes well is one line of snapshots", () => {
  let now = after(NOTHING, status("created"), status("running"));
  expect(now.job).toMatchObject({ status: "running" });
  expect(isMoving(now.job)).toBe(true);

  now = after(now, reply({ status: "running", offset: 400 }));
  expect(now.job).toMatchObject({ offset: 400, len: LEN, ioStatus: "ok" });

  now = after(now, status("waiting"), status("pending"), completed(LEN), status("concluded"));
  expect(now.job).toMatchObject({ status: "concluded", outcome: "completed", offset: LEN });
  expect(isActive(now.job)).toBe(false);
});

test("a pause is not moving and forgets the rate", () => {
  const now = after(
    NOTHING,
    status("running"),
    reply({ status: "running", offset: 100 }, 0),
    reply({ status: "running", offset: 200 }, 1000),
    status("paused"),
    reply({ status: "paused", offset: 200 }, 2000),
  );
  expect(now.job).toMatchObject({ status: "paused", meter: [] });
  expect(isMoving(now.job)).toBe(false);
  expect(isActive(now.job)).toBe(true);
});

test("an error that stops the job says why until the job is resumed", () => {
  const stopped = after(NOTHING, status("running"), ioError("stop"), status("paused"));
  expect(stopped.job?.stopped).toEqual({
    operation: "read",
    reason: "the server is gone",
    errno: "EIO",
  });
  const again = after(stopped, {
    ...ioError("stop"),
    data: { ...ioError("stop").data, errno: "ESTALE" },
  } as QmpEvent);
  expect(again.job?.stopped).toEqual(stopped.job?.stopped);
  expect(after(stopped, reply({ status: "paused", "io-status": "failed" })).job).toMatchObject({
    ioStatus: "failed",
    stopped: { reason: "the server is gone" },
  });
  expect(after(stopped, status("running")).job).not.toHaveProperty("stopped");
});

test("an error that is only reported stops nothing", () => {
  expect(after(NOTHING, status("running"), ioError("report")).job).not.toHaveProperty("stopped");
});

test("a failed job keeps its words, a cancelled one has none", () => {
  const failed = after(NOTHING, status("running"), status("aborting"), completed(10, "broken"));
  expect(failed.job).toMatchObject({ outcome: "failed", error: "broken" });

  const cancelled = after(
    NOTHING,
    status("running"),
    status("aborting"),
    reply({ status: "aborting", error: "Operation canceled" }),
    { event: "BLOCK_JOB_CANCELLED", data: lengths(10), timestamp } satisfies QmpEvent,
    status("concluded"),
    reply({ status: "concluded", error: "Operation canceled", offset: 10 }),
  );
  expect(cancelled.job).toMatchObject({ outcome: "cancelled", offset: 10 });
  expect(cancelled.job).not.toHaveProperty("error");
});

test("a dismissed job stays on the page as it ended, until the next one is created", () => {
  const ended = after(NOTHING, status("running"), completed(LEN), status("concluded"));
  const dismissed = after(ended, status("null"), reply());
  expect(dismissed.job).toMatchObject({ status: "concluded", outcome: "completed" });
  const next = after(dismissed, status("created"));
  expect(next.job).toMatchObject({ status: "created", offset: 0 });
  expect(next.job).not.toHaveProperty("outcome");
});

test("jobs of other names are nobody's progress", () => {
  const create: QmpEvent = {
    event: "JOB_STATUS_CHANGE",
    data: { id: "create0", status: "running" },
    timestamp,
  };
  expect(after(NOTHING, create)).toEqual(NOTHING);
  const other = { ...info({ status: "running" }), device: "mirror0" };
  expect(fold(NOTHING, { kind: "jobs", jobs: [other], nowMs: 0 }).job).toBeUndefined();
});

const timestamp = { seconds: 0, microseconds: 0 };

function after(snapshot: Snapshot, ...inputs: (QmpEvent | Input)[]): Snapshot {
  return inputs.reduce<Snapshot>(
    (now, input) => fold(now, "kind" in input ? input : { kind: "event", event: input }),
    snapshot,
  );
}

function status(status: JobStatus): QmpEvent {
  return { event: "JOB_STATUS_CHANGE", data: { id: "stream0", status }, timestamp };
}

function completed(offset: number, error?: string): QmpEvent {
  const data = { ...lengths(offset), ...(error !== undefined && { error }) };
  return { event: "BLOCK_JOB_COMPLETED", data, timestamp };
}

function ioError(action: "stop" | "report"): QmpEvent {
  const reason = { reason: "the server is gone", errno: "EIO" };
  const data = { device: "stream0", operation: "read", action, ...reason } as const;
  return { event: "BLOCK_JOB_ERROR", data, timestamp };
}

function lengths(offset: number) {
  return { type: "stream", device: "stream0", len: LEN, offset, speed: 0 };
}

/** The reply of query-block-jobs with our job in it, or with none. */
function reply(job?: Partial<BlockJobInfo>, nowMs = 0): Input {
  return { kind: "jobs", jobs: job === undefined ? [] : [info(job)], nowMs };
}

function info(job: Partial<BlockJobInfo>): BlockJobInfo {
  return {
    ...lengths(0),
    busy: true,
    paused: false,
    "io-status": "ok",
    ready: false,
    status: "running",
    "auto-finalize": true,
    "auto-dismiss": false,
    ...job,
  };
}
