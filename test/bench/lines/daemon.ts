/**
 * The daemon on Node next to QEMU's own: the same file, the same clients, both over unix sockets.
 * Nothing of it needs a browser.
 */

import { execFile } from "node:child_process";
import { copyFileSync, rmSync } from "node:fs";
import { promisify } from "node:util";
import { KiB, MiB } from "../../../src/base/bytes.ts";
import { BenchDaemon, type Whose } from "../daemon.ts";
import type { Lab } from "../lab.ts";
import type { Line } from "../line.ts";

const SIZE = 128 * MiB;
const REQUEST_BYTES = 4 * KiB;
const FORMATS = ["raw", "qcow2"] as const;
type Format = (typeof FORMATS)[number];

interface Load {
  readonly name: string;
  readonly what: string;
  readonly isWrite: boolean;
  readonly depth: number;
  /** From one request to the next; past the end it goes on at the start. */
  readonly step: number;
  readonly requests: number;
}

/** An odd number of requests, so it comes to every one before it comes to one again. */
const JUMP = 12_347 * REQUEST_BYTES;

const LOADS: readonly Load[] = [
  load("read-seq-qd1", "reads, one after the other in order", false, 1, REQUEST_BYTES),
  load("write-seq-qd1", "writes, one after the other in order", true, 1, REQUEST_BYTES),
  load("read-jump-qd1", "reads, one at a time, here and there", false, 1, JUMP),
  load("read-jump-qd16", "reads, 16 at a time, here and there", false, 16, JUMP),
  load("read-jump-qd32", "reads, 32 at a time, here and there", false, 32, JUMP),
  load("write-jump-qd1", "writes, one at a time, here and there", true, 1, JUMP),
  load("write-jump-qd16", "writes, 16 at a time, here and there", true, 16, JUMP),
  load("write-jump-qd32", "writes, 32 at a time, here and there", true, 32, JUMP),
];

const QMP_CALLS = 2000;
const QMP_NODES = 20;

export const DAEMON_LINES: readonly Line[] = [
  ...FORMATS.flatMap((format) => LOADS.map((one) => loadLine(format, one))),
  ...FORMATS.map(copyLine),
  qmpLine("query-version", 0),
  qmpLine("query-named-block-nodes", QMP_NODES),
];

function load(name: string, what: string, isWrite: boolean, depth: number, step: number): Load {
  return { name, what, isWrite, depth, step, requests: depth === 1 ? 4096 : 16_384 };
}

function loadLine(format: Format, load: Load): Line {
  const { name, what, isWrite, depth, step, requests } = load;
  return {
    name: `nbd-${name}-${format}`,
    unit: "requests/s",
    reference:
      `qemu-storage-daemon instead of blocktab daemon, each on a ${format} file of ${SIZE / MiB} MiB ` +
      `with the same random data; qemu-img bench over NBD on a unix socket does 4 KiB ${what}`,
    aim: null,
    runs: 5,
    prepare: (lab) =>
      bothDaemons(lab, format, async ({ uri }) => {
        const words = ["-c", `${requests}`, "-d", `${depth}`, "-s", `${REQUEST_BYTES}`];
        const write = isWrite ? ["-w", "--pattern=165"] : [];
        const all = ["bench", "-f", "raw", ...words, "-S", `${step}`, ...write, uri];
        const said = (await promisify(execFile)("qemu-img", all)).stdout;
        const seconds = /completed in ([\d.]+) seconds/.exec(said)?.[1];
        if (seconds === undefined) throw new Error(`qemu-img bench says: ${said}`);
        return requests / Number(seconds);
      }),
  };
}

function copyLine(format: Format): Line {
  return {
    name: `nbd-copy-${format}`,
    unit: "MiB/s",
    reference:
      `qemu-storage-daemon instead of blocktab daemon, each on a ${format} file of ${SIZE / MiB} MiB ` +
      "with the same random data; nbdcopy reads all of it over a unix socket",
    aim: null,
    runs: 5,
    prepare: (lab) =>
      bothDaemons(lab, format, async ({ uri }) => {
        const startMs = performance.now();
        await promisify(execFile)("nbdcopy", [uri, "null:"]);
        return SIZE / MiB / ((performance.now() - startMs) / 1000);
      }),
  };
}

function qmpLine(command: string, nodes: number): Line {
  return {
    name: `qmp-${command}`,
    unit: "calls/s",
    reference:
      `qemu-storage-daemon instead of blocktab daemon; ${QMP_CALLS} ${command}, one after the other, ` +
      `over a unix socket${nodes > 0 ? `, with ${nodes} nodes` : ""}`,
    aim: null,
    runs: 5,
    async prepare(lab) {
      const daemons = await started();
      for (const daemon of Object.values(daemons)) await addNodes(daemon, nodes, lab);
      const measure = async (whose: Whose) => {
        const startMs = performance.now();
        for (let i = 0; i < QMP_CALLS; i++) await daemons[whose].execute(command);
        return QMP_CALLS / ((performance.now() - startMs) / 1000);
      };
      return {
        warmUp: true,
        ours: () => measure("ours"),
        theirs: () => measure("theirs"),
        done: () => stopped(daemons),
      };
    },
  };
}

/** Pairs of a file and a format, over one empty file that nobody writes to. */
async function addNodes(daemon: BenchDaemon, nodes: number, lab: Lab): Promise<void> {
  const filename = await lab.image("empty.raw", { format: "raw", virtualSize: MiB, dataBytes: 0 });
  for (let i = 0; i < nodes / 2; i++) {
    const file = { driver: "file", "node-name": `f${i}`, filename };
    await daemon.execute("blockdev-add", { ...file, "read-only": true });
    const raw = { driver: "raw", "node-name": `n${i}`, file: `f${i}` };
    await daemon.execute("blockdev-add", { ...raw, "read-only": true });
  }
}

/** Each with a copy of its own of the same disk. */
async function bothDaemons(
  lab: Lab,
  format: Format,
  measure: (daemon: BenchDaemon) => Promise<number>,
) {
  const recipe = { format, virtualSize: SIZE, dataBytes: SIZE };
  const original = await lab.image(`daemon.${format}`, recipe);
  const daemons = await started();
  const files: string[] = [];
  for (const [whose, daemon] of Object.entries(daemons)) {
    const file = `${original}.${whose}`;
    copyFileSync(original, file);
    files.push(file);
    await daemon.exportFile(format, file);
  }
  return {
    warmUp: true,
    ours: () => measure(daemons.ours),
    theirs: () => measure(daemons.theirs),
    async done() {
      await stopped(daemons);
      for (const file of files) rmSync(file);
    },
  };
}

async function started(): Promise<Record<Whose, BenchDaemon>> {
  return {
    ours: await BenchDaemon.start("ours"),
    theirs: await BenchDaemon.start("theirs"),
  };
}

async function stopped(daemons: Record<Whose, BenchDaemon>): Promise<void> {
  await Promise.all(Object.values(daemons).map((daemon) => daemon.stop()));
}
