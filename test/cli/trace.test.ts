/** What can be watched, and how it is asked for. */

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ensureCli, ensureWasm } from "../../scripts/setup.mjs";
import {
  matchPoints,
  POINT_NAMES,
  switchTrace,
  TRACE_POINTS,
  type Trace,
  type TraceValue,
  traceText,
} from "../../src/base/trace.ts";
import { VirtualClock } from "../../src/base/virtual-clock.ts";
import { TraceLog } from "../../src/cli/trace.ts";
import { connectLocally, createNodeEngine } from "../../src/engine/node.ts";
import { kernelBytes } from "../kernel/load.ts";
import { BLOCKTAB, Running } from "./running.ts";

const MiB = 1024 * 1024;
const folder = mkdtempSync(join(tmpdir(), "blocktab-trace-"));
afterAll(() => rmSync(folder, { recursive: true }));

beforeAll(async () => {
  await ensureWasm();
  await ensureCli();
});

it("emits every point that it declares, with all that it declares to tell", async () => {
  const trace: Trace = {};
  const told = new Map<string, readonly TraceValue[]>();
  switchTrace(trace, POINT_NAMES, (point, values) => told.set(point, values));
  const engine = await createNodeEngine({ kernelBytes: await kernelBytes(), trace });
  const client = await connectLocally(engine);
  const path = join(folder, "nbd.sock");
  await engine.execute("nbd-server-start", { addr: { type: "unix", data: { path } } });
  for (const name of ["base", "mid", "top", "copy", "backup"]) {
    await client.execute("blockdev-add", { driver: "memory", "node-name": name, size: MiB });
  }
  for (const [name, file, backing] of [
    ["b", "base", null],
    ["m", "mid", "b"],
    ["t", "top", "m"],
  ] as const) {
    const options = { driver: "qcow2", file, size: MiB } as const;
    await client.execute("blockdev-create", { "job-id": "c", options });
    await client.waitForJob("c", "concluded");
    await client.execute("job-dismiss", { id: "c" });
    await client.execute("blockdev-add", { driver: "qcow2", "node-name": name, file, backing });
  }
  const io = (node: string, ...commands: string[]) => {
    const words = commands.flatMap((command) => ["-c", command]);
    return runIo([...words, "-f", "raw", `nbd+unix:///${node}?socket=${path}`]);
  };
  const exportNode = (node: string, writable: boolean) =>
    engine.execute("block-export-add", { type: "nbd", id: node, "node-name": node, writable });
  for (const node of ["b", "m"]) {
    await exportNode(node, true);
    await io(node, "write -P 1 0 512k", "flush", "discard 0 64k", "write -z 64k 64k");
    await client.execute("block-export-del", { id: node, mode: "hard" });
  }
  const job = async (start: Promise<unknown>) => {
    await start;
    await client.waitForJob("j", "concluded").catch(() => {});
    await client.execute("job-dismiss", { id: "j" });
  };
  const common = { "job-id": "j", "auto-dismiss": false } as const;
  await job(
    client.execute("blockdev-backup", { ...common, device: "t", target: "backup", sync: "full" }),
  );
  await client.execute("blockdev-mirror", { ...common, device: "t", target: "copy", sync: "full" });
  await client.waitForJob("j", "ready");
  await job(client.execute("block-job-cancel", { device: "j" }));
  await job(client.execute("block-commit", { ...common, device: "t", "top-node": "m" }));
  await job(client.execute("block-stream", { ...common, device: "t" }));
  await client.execute("blockdev-add", {
    driver: "blkdebug",
    "node-name": "bad",
    image: { driver: "memory", size: MiB },
    "inject-error": [{ event: "none", iotype: "write" }],
  });
  await exportNode("bad", true);
  await io("bad", "write 0 512");
  await engine.close();

  expect(POINT_NAMES.filter((name) => !told.has(name))).toEqual([]);
  for (const [point, values] of told) {
    expect(values, point).toHaveLength(TRACE_POINTS[point as keyof typeof TRACE_POINTS].length);
    expect(values, point).not.toContain(undefined);
  }
});

describe("patterns", () => {
  it("stand for all points that they fit, and for no other", () => {
    expect(matchPoints("job_*")).toEqual([
      "job_state_transition",
      "job_apply_verb",
      "job_completed",
    ]);
    expect(matchPoints("bdrv_clos?")).toEqual(["bdrv_close"]);
    expect(matchPoints("*")).toEqual(POINT_NAMES);
    expect(matchPoints("bdrv")).toEqual([]);
    expect(matchPoints("(*")).toEqual([]);
  });

  it("add up in their order, and switch off with a '-'", () => {
    const notes: string[] = [];
    const log = new TraceLog(new VirtualClock(), (text) => notes.push(text));
    log.add("job_*");
    log.add("enable=-job_apply_verb");
    log.add("nonsense");
    expect(Object.keys(log.trace).sort()).toEqual(["job_completed", "job_state_transition"]);
    expect(notes).toEqual([expect.stringContaining("'nonsense'")]);
    log.close();
    expect(log.trace).toEqual({});
  });

  it("come from a file, one a line", () => {
    const events = join(folder, "events");
    writeFileSync(events, "# jobs\njob_*   # all\n\n-job_completed\n");
    const log = new TraceLog(new VirtualClock(), () => {});
    log.add(`events=${events}`);
    expect(Object.keys(log.trace).sort()).toEqual(["job_apply_verb", "job_state_transition"]);
  });

  it("are refused with what is not known, or cannot be opened", () => {
    const log = new TraceLog(new VirtualClock(), () => {});
    expect(() => log.add("job_*,nonsense=1")).toThrow(/'nonsense'/);
    expect(() => log.add("events=/nonsense/events")).toThrow(/'\/nonsense\/events'/);
    expect(() => log.add("file=/nonsense/log")).toThrow(/'\/nonsense\/log'/);
  });
});

it("keeps what it tells in one line, whatever is in it", () => {
  expect(traceText("job_state_transition", ["a\nb", "created", "running"])).toBe(
    'job_state_transition job "a\\nb" from "created" to "running"',
  );
});

describe("blocktab daemon --trace", () => {
  const STDIO = ["--chardev", "stdio,id=c", "--monitor", "c"];
  const LINE = /^\d+@\d+\.\d{6}:(\w+) (.*)$/;

  it("writes to stderr, with the process' number and the time", async () => {
    const { talk, child, ended } = new Running(BLOCKTAB, ["-T", "handle_qmp*", ...STDIO], folder);
    await talk.negotiate();
    talk.send({ execute: "quit" });
    const { status, stderr } = await ended;
    const lines = stderr.trimEnd().split("\n");
    expect(status).toBe(0);
    expect(lines).toHaveLength(2);
    expect(lines[1]).toMatch(LINE);
    expect(lines[1]).toContain(`${child.pid}@`);
    expect(lines[1]).toContain("handle_qmp_command");
    expect(lines[1]).toContain("quit");
  });

  it("writes to a file", async () => {
    const args = ["-T", "enable=monitor_*,file=trace.log", "--trace=-monitor_protocol*", ...STDIO];
    const { talk, ended } = new Running(BLOCKTAB, args, folder);
    await talk.negotiate();
    talk.send({ execute: "quit" });
    expect(await ended).toEqual({ status: 0, signal: null, stderr: "" });
    const lines = readFileSync(join(folder, "trace.log"), "utf8").trimEnd().split("\n");
    for (const line of lines) expect(line).toMatch(LINE);
    expect(lines.length).toBeGreaterThanOrEqual(3);
  });

  it("lists the points, also into a pipe that is slow", async () => {
    const { stdout, status } = spawnSync(BLOCKTAB[0]!, [...BLOCKTAB.slice(1), "-T", "help"]);
    expect(status).toBe(0);
    expect(stdout.toString().trimEnd().split("\n")).toEqual(POINT_NAMES);
  });
});

/** qemu-io, without holding up the engine in this process. */
async function runIo(args: string[]): Promise<number | null> {
  const io = new Running(["qemu-io"], args, folder);
  return (await io.ended).status;
}
