/**
 * The harness finds what is planted: ours is meddled with on its way to the harness's ears, or its
 * images before the harness looks at them, and the real daemon is not.
 */

import { open } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { Message } from "./daemon.ts";
import { unifiedDiff } from "./diff.ts";
import { DIFFERENCES } from "./differences.ts";
import { ImageStock } from "./images.ts";
import { readRecordings } from "./record.ts";
import type { Meddling } from "./run.ts";
import { AREAS } from "./scripts/index.ts";
import { judge } from "./suite.ts";

const stock = new ImageStock();
afterAll(() => stock.end());

/** Meddles with nothing but the message that is meant. */
function changed(
  isMeant: (message: Message) => boolean,
  change: (m: Message) => Message[],
): Meddling {
  return { hear: (message) => (isMeant(message) ? change(message) : [message]) };
}

function isStatus({ event, data }: Message, status: string): boolean {
  return event === "JOB_STATUS_CHANGE" && (data as Message)["status"] === status;
}

/** Holds the first event back until the second has come. */
function swapped(first: string, second: string): Meddling {
  let held: Message | null = null;
  return {
    hear(message) {
      if (isStatus(message, first)) held = message;
      else if (held && isStatus(message, second)) return [message, held];
      else return [message];
      return [];
    },
  };
}

const SCRIPT = "a job that is held at each of its ends";

/** The report on a script of the life cycle against what is on record. */
async function reportOn(name: string, meddling: Meddling): Promise<string[]> {
  const script = AREAS.find(({ title }) => title === "life cycle")!.scripts.find(
    (one) => one.name === name,
  )!;
  const recording = readRecordings("life cycle").get(name)!;
  const { verdicts } = await judge(script, [], stock, recording, meddling);
  return [...verdicts[0]!.report];
}

describe("what is planted is found:", () => {
  it("nothing, where nothing is", async () => {
    expect(await reportOn(SCRIPT, {})).toEqual([]);
  });

  it("two events that have changed places", async () => {
    const report = await reportOn(SCRIPT, swapped("waiting", "pending"));
    expect(report).toContain('- <- JOB_STATUS_CHANGE {"id": "s", "status": "waiting"}');
    expect(report).toContain('+ <- JOB_STATUS_CHANGE {"id": "s", "status": "waiting"}');
    expect(report.filter((line) => /^[-+] /.test(line))).toHaveLength(2);
  });

  it("an event that is missing, and one that is too many", async () => {
    const pending = (message: Message) => message["event"] === "BLOCK_JOB_COMPLETED";
    const gone = await reportOn(
      SCRIPT,
      changed(pending, () => []),
    );
    expect(gone.filter((line) => /^[-+] /.test(line))[0]).toMatch(/^- <- BLOCK_JOB_COMPLETED/);
    const twice = await reportOn(
      SCRIPT,
      changed(pending, (message) => [message, message]),
    );
    expect(twice.filter((line) => /^[-+] /.test(line))[0]).toMatch(/^\+ <- BLOCK_JOB_COMPLETED/);
  });

  it("an error of another class, and one that does not name what QEMU names", async () => {
    const script = "verbs for a job that is not there";
    const isError = (message: Message) => "error" in message;
    const withError = (error: object) => (message: Message) => [
      { ...message, error: { ...(message["error"] as object), ...error } },
    ];
    const other = await reportOn(script, changed(isError, withError({ class: "DeviceNotFound" })));
    expect(other.join("\n")).toMatch(/\+ <- .*"class": "DeviceNotFound"/);
    const nameless = await reportOn(script, changed(isError, withError({ desc: "No" })));
    expect(nameless.join("\n")).toMatch(/- <- .*"naming": \["nope"\].*\n\+ <- .*"naming": \[\]/);
  });

  it("a member of a reply that is missing, one too many, and another value", async () => {
    const isList = (message: Message) =>
      Array.isArray(message["return"]) && message["return"].length > 0;
    const withJob = (change: (job: Message) => Message) => (message: Message) => [
      { ...message, return: (message["return"] as Message[]).map(change) },
    ];
    const dropped = ({ type, ...job }: Message) => job;
    for (const [change, mark] of [
      [dropped, '-            "type": "stream"'],
      [(job) => ({ ...job, more: 1 }), '+            "more": 1'],
      [(job) => ({ ...job, type: "mirror" }), '+            "type": "mirror"'],
    ] as [(job: Message) => Message, string][]) {
      expect(await reportOn(SCRIPT, changed(isList, withJob(change)))).toContain(mark);
    }
  });

  it("one byte of an image", async () => {
    const report = await reportOn(SCRIPT, { images: (folder) => flip(join(folder, "top.qcow2")) });
    expect(report.filter((line) => /^[-+] /.test(line)).join("\n")).toMatch(
      /^-\s+"sha256": "\w+"\n\+\s+"sha256": "\w+"$/,
    );
  });

  it("a daemon that does not end well", async () => {
    const isLast = (message: Message) => isStatus(message, "null");
    const report = await reportOn(
      SCRIPT,
      changed(isLast, () => []),
    );
    expect(report.join("\n")).toContain("!! no event JOB_STATUS_CHANGE");
  }, 90_000);
});

it("a unified diff shows what is around a difference, and no more", () => {
  const lines = Array.from({ length: 40 }, (_, i) => `line ${i}`);
  const b = { title: "b", lines: lines.with(20, "another") };
  expect(unifiedDiff({ title: "a", lines }, { title: "b", lines })).toEqual([]);
  expect(unifiedDiff({ title: "a", lines }, b)).toEqual([
    "--- a",
    "+++ b",
    "@@ line 17 of the first, 17 of the second @@",
    ...[16, 17, 18, 19].map((i) => `  line ${i}`),
    "- line 20",
    "+ another",
    ...[21, 22, 23, 24].map((i) => `  line ${i}`),
  ]);
});

it("gives a reason for every difference on purpose", () => {
  for (const { why } of DIFFERENCES) expect(why.length).toBeGreaterThan(8);
});

/** Changes a byte in the first data cluster of a qcow2: its content, not its tables. */
async function flip(path: string): Promise<void> {
  const file = await open(path, "r+");
  try {
    const table = Buffer.alloc(8);
    await file.read(table, 0, 8, 40);
    await file.read(table, 0, 8, Number(table.readBigUInt64BE()));
    const l2 = Number(table.readBigUInt64BE() & 0x00ff_ffff_ffff_fe00n);
    await file.read(table, 0, 8, l2);
    const cluster = Number(table.readBigUInt64BE() & 0x00ff_ffff_ffff_fe00n);
    await file.write(Buffer.from([0xee]), 0, 1, cluster);
  } finally {
    await file.close();
  }
}
