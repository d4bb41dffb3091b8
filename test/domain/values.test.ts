/** libvirt's numbers, and the rules by which figures are told. */

import { describe, expect, it } from "vitest";
import {
  BANDWIDTH_BYTES_MAX,
  fromBytesPerSecond,
  toBytesPerSecond,
} from "../../src/domain/bandwidth.ts";
import { checked, definitionSchema } from "../../src/domain/definition.ts";
import {
  BLOCK_JOB_STATUS,
  BLOCK_JOB_TYPE,
  DOMAIN_STATE,
  EVENT_ID,
  JOB_KINDS,
  JOB_OPERATION,
  JOB_STATES,
  JOB_TYPE,
  type JobKind,
  LIFECYCLE,
} from "../../src/domain/enums.ts";
import { DOMAIN_ERRORS, DomainError } from "../../src/domain/errors.ts";
import * as flags from "../../src/domain/flags.ts";
import { type EngineFigures, NO_JOB, progressOf } from "../../src/domain/info.ts";
import { parseBandwidth, percentage } from "../../src/domain/virsh.ts";

const code = (work: () => unknown): string => {
  try {
    work();
  } catch (error) {
    if (error instanceof DomainError) return error.code;
    throw error;
  }
  return "none";
};

it("A01 has libvirt's numbers, and a zeroed info says that there is no job", () => {
  expect(Object.values(BLOCK_JOB_TYPE)).toEqual([0, 1, 2, 3, 4, 5]);
  expect(BLOCK_JOB_TYPE).toMatchObject({ UNKNOWN: 0, PULL: 1, COPY: 2, COMMIT: 3 });
  expect(BLOCK_JOB_TYPE).toMatchObject({ ACTIVE_COMMIT: 4, BACKUP: 5 });
  expect(BLOCK_JOB_STATUS).toEqual({ COMPLETED: 0, FAILED: 1, CANCELED: 2, READY: 3 });
  expect(EVENT_ID).toMatchObject({ BLOCK_JOB: 8, BLOCK_JOB_2: 16, JOB_COMPLETED: 21 });
  expect(JOB_TYPE).toMatchObject({ NONE: 0, BOUNDED: 1, UNBOUNDED: 2, COMPLETED: 3 });
  expect(JOB_TYPE).toMatchObject({ FAILED: 4, CANCELLED: 5 });
  expect(NO_JOB).toEqual({ type: BLOCK_JOB_TYPE.UNKNOWN, bandwidth: 0, cur: 0, end: 0 });
  expect(JOB_KINDS).toMatchObject({ pull: 1, copy: 2, commit: 3, "active-commit": 4, backup: 5 });
  // The first four states are the public statuses.
  expect([JOB_STATES.completed, JOB_STATES.failed, JOB_STATES.cancelled, JOB_STATES.ready]).toEqual(
    [0, 1, 2, 3],
  );
  expect(Object.values(JOB_STATES)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  expect(DOMAIN_ERRORS).toEqual({
    INTERNAL_ERROR: 1,
    NO_SUPPORT: 3,
    INVALID_ARG: 8,
    OPERATION_FAILED: 9,
    XML_ERROR: 27,
    DOM_EXIST: 28,
    NO_DOMAIN: 42,
    OPERATION_INVALID: 55,
    CONFIG_UNSUPPORTED: 67,
    OPERATION_TIMEOUT: 68,
    ARGUMENT_UNSUPPORTED: 74,
    OPERATION_ABORTED: 78,
    OVERFLOW: 82,
    BLOCK_COPY_ACTIVE: 83,
    OPERATION_UNSUPPORTED: 84,
    INVALID_DOMAIN_CHECKPOINT: 102,
    NO_DOMAIN_CHECKPOINT: 103,
    NO_DOMAIN_BACKUP: 104,
    CHECKPOINT_INCONSISTENT: 109,
  });
  expect(new DomainError("OVERFLOW", "too much")).toMatchObject({ code: "OVERFLOW", number: 82 });
  expect([LIFECYCLE.STARTED, LIFECYCLE.STOPPED, LIFECYCLE.CRASHED]).toEqual([2, 5, 8]);
  expect([DOMAIN_STATE.RUNNING, DOMAIN_STATE.SHUTOFF, JOB_OPERATION.BACKUP]).toEqual([1, 5, 9]);
});

it("A01 has libvirt's flags", () => {
  const bits = (table: Readonly<Record<string, number>>) =>
    Object.values(table).map((flag) => Math.log2(flag));
  expect(bits(flags.BLOCK_JOB_ABORT)).toEqual([0, 1]);
  expect(bits(flags.BLOCK_JOB_INFO)).toEqual([0]);
  expect(bits(flags.BLOCK_JOB_SPEED)).toEqual([0]);
  expect(bits(flags.BLOCK_PULL)).toEqual([6]);
  expect(bits(flags.BLOCK_REBASE)).toEqual([0, 1, 2, 3, 4, 5, 6]);
  expect(bits(flags.BLOCK_COPY)).toEqual([0, 1, 2, 3]);
  expect(bits(flags.BLOCK_COMMIT)).toEqual([0, 1, 2, 3, 4]);
  expect(bits(flags.BACKUP_BEGIN)).toEqual([0]);
  expect(bits(flags.JOB_STATS)).toEqual([0, 1]);
  expect(bits(flags.CHECKPOINT_CREATE)).toEqual([0, 1, 2]);
  expect(bits(flags.CHECKPOINT_XML)).toEqual([0, 1, 2]);
  expect(bits(flags.CHECKPOINT_DELETE)).toEqual([0, 1, 2]);
  expect(bits(flags.CHECKPOINT_LIST)).toEqual([0, 0, 1, 2, 3]);
  expect(bits(flags.SNAPSHOT_CREATE)).toEqual([4, 5, 7]);
  expect(flags.BLOCK_PULL.BANDWIDTH_BYTES).toBe(flags.BLOCK_REBASE.BANDWIDTH_BYTES);
});

describe("A05 translates an engine's figures row by row", () => {
  const rows: readonly [string, JobKind, EngineFigures | null, number, number][] = [
    ["not listed", "pull", null, 0, 1],
    ["not listed, two phases", "copy", null, 0, 1],
    ["0/0, not ready yet", "copy", { offset: 0, len: 0, ready: false }, 0, 1],
    ["0/0, ready", "active-commit", { offset: 0, len: 0, ready: true }, 1, 1],
    ["0/0 of a pull stays", "pull", { offset: 0, len: 0, ready: false }, 0, 0],
    ["0/0 of a commit stays", "commit", { offset: 0, len: 0, ready: false }, 0, 0],
    ["all done, not ready", "copy", { offset: 4096, len: 4096, ready: false }, 4095, 4096],
    ["all done, ready", "copy", { offset: 4096, len: 4096, ready: true }, 4096, 4096],
    ["all done, a pull", "pull", { offset: 4096, len: 4096, ready: false }, 4096, 4096],
    ["on the way", "pull", { offset: 10, len: 4096, ready: false }, 10, 4096],
    ["never beyond the end", "pull", { offset: 5000, len: 4096, ready: false }, 4096, 4096],
  ];
  it.each(rows)("%s", (_, kind, figures, cur, end) => {
    expect(progressOf(kind, figures)).toEqual({ cur, end });
  });
});

it("A06 takes MiB/s or bytes/s, and rounds up what it tells", () => {
  expect(toBytesPerSecond(2, false)).toBe(toBytesPerSecond(2_097_152, true));
  expect(fromBytesPerSecond(1_048_577, false)).toBe(2);
  expect(fromBytesPerSecond(1_048_577, true)).toBe(1_048_577);
  expect(toBytesPerSecond(0, false)).toBe(0);
  expect(fromBytesPerSecond(0, false)).toBe(0);
});

it("A07 refuses bandwidths beyond what can be told", () => {
  expect(toBytesPerSecond(BANDWIDTH_BYTES_MAX, true)).toBe(2 ** 52);
  expect(code(() => toBytesPerSecond(BANDWIDTH_BYTES_MAX + 1, true))).toBe("OVERFLOW");
  expect(code(() => toBytesPerSecond(2 ** 43, false))).toBe("OVERFLOW");
  expect(code(() => toBytesPerSecond(Number.MAX_VALUE, false))).toBe("OVERFLOW");
  for (const bad of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    expect(code(() => toBytesPerSecond(bad, false))).toBe("INVALID_ARG");
  }
});

it("A08 refuses flags that it does not know, and what is no flags", () => {
  for (const bad of [4, -1, 0.5, Number.NaN, 2 ** 31]) {
    expect(code(() => flags.checkFlags("a", bad, flags.BLOCK_JOB_ABORT))).toBe("INVALID_ARG");
  }
  expect(code(() => flags.checkFlags("a", 3, flags.BLOCK_JOB_ABORT))).toBe("none");
  expect(code(() => flags.checkFlags("a", 0))).toBe("none");
});

it("says in words which names it takes", () => {
  const disks = (target: string) => [{ target, source: { driver: "memory", name: "a" } }];
  const define = (name: string, target: string) =>
    checked(definitionSchema, { name, disks: disks(target) }, "XML_ERROR");
  expect(() => define("on monday", "vda")).toThrow(
    "Parameter 'name' expects a name of 1 to 100 letters, digits, '_', '.', '+' and '-', " +
      "beginning with none of '.+-'; got \"on monday\"",
  );
  expect(() => define("demo", "disk0")).toThrow(
    "expects a device name such as 'vda' or 'sdb'; got \"disk0\"",
  );
});

it("C03 shows 99.99 at most until all is done", () => {
  expect(percentage({ cur: 0, end: 1 })).toBe(0);
  expect(percentage({ cur: 999_999_999, end: 1_000_000_000 })).toBe(99.99);
  expect(percentage({ cur: 1, end: 3 })).toBe(33.33);
  expect(percentage({ cur: 2, end: 3 })).toBe(66.66);
  expect(percentage({ cur: 3, end: 3 })).toBe(100);
  expect(percentage({ cur: 0, end: 0 })).toBe(100);
});

it("C04 reads bandwidths as virsh does", () => {
  expect(parseBandwidth("10", false)).toBe(10);
  expect(parseBandwidth("10M", false)).toBe(10);
  expect(parseBandwidth("10MB", false)).toBe(9);
  expect(parseBandwidth("10M", true)).toBe(10 * 1024 * 1024);
  expect(parseBandwidth("10MB", true)).toBe(10_000_000);
  expect(parseBandwidth("1GiB", false)).toBe(1024);
  expect(parseBandwidth("512K", false)).toBe(0);
  for (const bad of ["", "M", "-1", "1.5M", "10X", "10 M B"]) {
    expect(code(() => parseBandwidth(bad, false))).toBe("INVALID_ARG");
  }
});
