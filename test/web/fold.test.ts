import { expect, test } from "vitest";
import { fold, type Input, isActive, isMoving, NOTHING, type Snapshot } from "../../web/fold.ts";
import type { BlockJobInfo, JobInfo, JobStatus, QmpEvent } from "../../web/wire.ts";

const STREAM_ID = "pull-vda-libvirt-1-format";

const LEN = 1000;

test("a job that goes well is one line of snapshots", () => {
  let now = after(NOTHING, status("created"), status("running"));
  expect(stream(now)).toMatchObject({ status: "running" });
  expect(isMoving(stream(now))).toBe(true);

  now = after(now, reply({ status: "running", offset: 400 }));
  expect(stream(now)).toMatchObject({ offset: 400, len: LEN, ioStatus: "ok" });

  now = after(now, status("waiting"), status("pending"), completed(LEN), status("concluded"));
  expect(stream(now)).toMatchObject({ status: "concluded", outcome: "completed", offset: LEN });
  expect(isActive(stream(now))).toBe(false);
});

test("a job that the engine has forgotten before its events are through stays as it ended", () => {
  const running = after(NOTHING, status("created"), status("running"));
  const gone: Input = { kind: "jobs", jobs: [], blockJobs: [], nowMs: 0 };
  let now = running;
  for (const event of [status("waiting"), status("pending"), completed(LEN)]) {
    now = after(now, event, gone);
  }
  now = after(now, status("concluded"), gone, status("null"), gone);
  // A speed: what it counts is bytes.
  expect(stream(now)).toMatchObject({ outcome: "completed", offset: LEN, speed: 0 });
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
  expect(stream(now)).toMatchObject({ status: "paused", meter: [] });
  expect(isMoving(stream(now))).toBe(false);
  expect(isActive(stream(now))).toBe(true);
});

test("an error that stops the job says why until the job is resumed", () => {
  const stopped = after(NOTHING, status("running"), ioError("stop"), status("paused"));
  expect(stream(stopped)?.stopped).toEqual({
    operation: "read",
    reason: "the server is gone",
    errno: "EIO",
  });
  const again = after(stopped, {
    ...ioError("stop"),
    data: { ...ioError("stop").data, errno: "ESTALE" },
  } as QmpEvent);
  expect(stream(again)?.stopped).toEqual(stream(stopped)?.stopped);
  expect(stream(after(stopped, reply({ status: "paused", "io-status": "failed" })))).toMatchObject({
    ioStatus: "failed",
    stopped: { reason: "the server is gone" },
  });
  expect(stream(after(stopped, status("running")))).not.toHaveProperty("stopped");
});

test("a job that ends before any reply told of it has the limit that its end tells", () => {
  const end: QmpEvent = {
    event: "BLOCK_JOB_COMPLETED",
    data: { ...lengths(LEN), speed: 8 },
    timestamp,
  };
  expect(stream(after(NOTHING, status("running"), end))).toMatchObject({ speed: 8 });
});

test("an error that is only reported stops nothing", () => {
  expect(stream(after(NOTHING, status("running"), ioError("report")))).not.toHaveProperty(
    "stopped",
  );
});

test("a failed job keeps its words, a cancelled one has none", () => {
  const failed = after(NOTHING, status("running"), status("aborting"), completed(10, "broken"));
  expect(stream(failed)).toMatchObject({ outcome: "failed", error: "broken" });

  const cancelled = after(
    NOTHING,
    status("running"),
    status("aborting"),
    reply({ status: "aborting", error: "Operation canceled" }),
    { event: "BLOCK_JOB_CANCELLED", data: lengths(10), timestamp } satisfies QmpEvent,
    status("concluded"),
    reply({ status: "concluded", error: "Operation canceled", offset: 10 }),
  );
  expect(stream(cancelled)).toMatchObject({ outcome: "cancelled", offset: 10 });
  expect(stream(cancelled)).not.toHaveProperty("error");
});

test("a dismissed job stays on the page as it ended, until the next one is created", () => {
  const ended = after(NOTHING, status("running"), completed(LEN), status("concluded"));
  const dismissed = after(ended, status("null"), reply());
  expect(stream(dismissed)).toMatchObject({ status: "concluded", outcome: "completed" });
  const next = after(dismissed, status("created"));
  expect(stream(next)).toMatchObject({ status: "created", offset: 0 });
  expect(stream(next)).not.toHaveProperty("outcome");
});

test("every job has an entry of its own, and those that tell little of themselves, too", () => {
  const create = (status: JobStatus): QmpEvent => ({
    event: "JOB_STATUS_CHANGE",
    data: { id: "create0", status },
    timestamp,
  });
  const created = { id: "create0", type: "create", "current-progress": 0, "total-progress": 1 };
  const both = after(NOTHING, status("running"), create("created"), create("running"));
  expect([...both.jobs.keys()]).toEqual([STREAM_ID, "create0"]);
  const failed = fold(both, {
    kind: "jobs",
    jobs: [{ ...created, status: "concluded", error: "no room" }],
    blockJobs: [],
    nowMs: 0,
  });
  expect(failed.jobs.get("create0")).toMatchObject({ outcome: "failed", error: "no room", len: 1 });
  // The stream was at work and is gone: an end that nobody told of is not made up.
  expect(stream(failed)).toBeUndefined();
  expect(after(failed, create("null")).jobs.get("create0")).toMatchObject({ outcome: "failed" });
  expect(fold(failed, { kind: "forget", id: "create0" }).jobs.size).toBe(0);
  expect(after(both, create("null")).jobs.has("create0")).toBe(false);
});

test("a job that is ready is told apart from one that stands by", () => {
  const ready = after(NOTHING, status("running"), status("ready"));
  expect(isMoving(stream(ready))).toBe(true);
  expect(stream(after(ready, status("standby")))).toMatchObject({ status: "standby", meter: [] });
});

/** The page's own job. */
function stream(snapshot: Snapshot) {
  return snapshot.jobs.get(STREAM_ID);
}

const timestamp = { seconds: 0, microseconds: 0 };

function after(snapshot: Snapshot, ...inputs: (QmpEvent | Input)[]): Snapshot {
  return inputs.reduce<Snapshot>(
    (now, input) => fold(now, "kind" in input ? input : { kind: "event", event: input }),
    snapshot,
  );
}

function status(status: JobStatus): QmpEvent {
  return { event: "JOB_STATUS_CHANGE", data: { id: STREAM_ID, status }, timestamp };
}

function completed(offset: number, error?: string): QmpEvent {
  const data = { ...lengths(offset), ...(error !== undefined && { error }) };
  return { event: "BLOCK_JOB_COMPLETED", data, timestamp };
}

function ioError(action: "stop" | "report"): QmpEvent {
  const reason = { reason: "the server is gone", errno: "EIO" };
  const data = { device: STREAM_ID, operation: "read", action, ...reason } as const;
  return { event: "BLOCK_JOB_ERROR", data, timestamp };
}

function lengths(offset: number) {
  return { type: "stream", device: STREAM_ID, len: LEN, offset, speed: 0 };
}

/** The reply of query-block-jobs with our job in it, or with none. */
function reply(job?: Partial<BlockJobInfo>, nowMs = 0): Input {
  const blockJobs = job === undefined ? [] : [info(job)];
  return { kind: "jobs", jobs: blockJobs.map(plain), blockJobs, nowMs };
}

/** The same job as query-jobs tells of it. */
function plain({ device, type, status, offset, len, error }: BlockJobInfo): JobInfo {
  return {
    id: device,
    type,
    status,
    "current-progress": offset,
    "total-progress": len,
    ...(error !== undefined && { error }),
  };
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
