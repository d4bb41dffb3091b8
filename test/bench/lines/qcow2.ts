/**
 * qcow2 next to QEMU's own tools, on the same files: how often the store is flushed, how fast packed
 * clusters are written and read, and how long a check of a large image's tables takes.
 *
 * What is flushed is counted in logs of the kind that Linux's dm-log-writes makes: theirs by QEMU's
 * blklogwrites below qemu-io, ours by our blklogwrites below our engine. The two do the same writes,
 * flushes, and a close. Packing and checking are two command lines next to each other, start included.
 */

import { execFile, execFileSync } from "node:child_process";
import { copyFileSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { ROOT } from "../../../scripts/setup.mjs";
import { KiB, MiB } from "../../../src/base/bytes.ts";
import { SystemClock } from "../../../src/base/clock.ts";
import { type Random, seededRandom } from "../../../src/base/random.ts";
import { Graph } from "../../../src/block/graph.ts";
import { Perm } from "../../../src/block/permissions.ts";
import { blklogwrites } from "../../../src/drivers/filter/blklogwrites.ts";
import { qcow2Driver } from "../../../src/drivers/format/qcow2/index.ts";
import { fileDriver } from "../../../src/drivers/protocol/file.ts";
import { loadKernel } from "../../../src/kernel/kernel.ts";
import { readLog } from "../../drivers/filter/write-log.ts";
import type { Lab } from "../lab.ts";
import type { Line } from "../line.ts";

const WRITES = 500;
const WRITE_BYTES = 4 * KiB;
const DISK_BYTES = 256 * MiB;
const SEED = 5;
/** So much that the start of either takes no part in it. */
const PACKED_BYTES = 256 * MiB;
const OURS = [process.execPath, join(ROOT, "bin", "blocktab.mjs"), "img"] as const;

export const QCOW2_LINES: readonly Line[] = [
  flushLine("plain", "into new clusters, and one flush at the end", false, false),
  flushLine("snapshot", "over an internal snapshot, and one flush at the end", true, false),
  flushLine("each", "into new clusters, each followed by a flush", false, true),
  ...(["zlib", "zstd"] as const).flatMap((packing) => [
    packLine(packing, true),
    packLine(packing, false),
  ]),
  checkLine(),
];

function flushLine(name: string, what: string, hasSnapshot: boolean, each: boolean): Line {
  return {
    name: `qcow2-flushes-${name}`,
    unit: "store flushes",
    reference:
      `qemu-io instead of our engine, counted by blklogwrites below either: ${WRITES} writes of 4 KiB ` +
      `at random over ${DISK_BYTES / MiB} MiB ${what}`,
    aim: { atMost: 1 },
    runs: 1,
    async prepare(lab) {
      const start = await newImage(lab, hasSnapshot);
      const counts: Record<string, Counts> = {};
      const run = async (whose: "ours" | "theirs") => {
        const files = { image: `${start}.${whose}`, log: `${start}.${whose}.log` };
        copyFileSync(start, files.image);
        writeFileSync(files.log, "");
        await (whose === "ours" ? writeOurs : writeTheirs)(files, each);
        const counted = countsOf(files.log);
        for (const file of Object.values(files)) rmSync(file);
        counts[whose] = counted;
        return counted.flushes;
      };
      return {
        warmUp: false,
        ours: () => run("ours"),
        theirs: () => run("theirs"),
        note: () =>
          `Writes to the store: ours ${counts["ours"]?.writes}, theirs ${counts["theirs"]?.writes}`,
        done: async () => rmSync(start),
      };
    },
  };
}

interface Counts {
  readonly flushes: number;
  readonly writes: number;
}

function countsOf(log: string): Counts {
  const { entries } = readLog(new Uint8Array(readFileSync(log)));
  const flushes = entries.filter(({ isFlush }) => isFlush).length;
  return { flushes, writes: entries.filter(({ data }) => data !== null).length };
}

async function newImage(lab: Lab, hasSnapshot: boolean): Promise<string> {
  const path = lab.file("flushes.qcow2");
  execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", path, `${DISK_BYTES}`]);
  if (!hasSnapshot) return path;
  execFileSync("qemu-io", ["-f", "qcow2", "-c", `write -q -P 1 0 ${DISK_BYTES}`, path]);
  execFileSync("qemu-img", ["snapshot", "-c", "kept", path]);
  return path;
}

function places(random: Random): number[] {
  const count = DISK_BYTES / WRITE_BYTES;
  return Array.from({ length: WRITES }, () => WRITE_BYTES * random.below(count));
}

interface Files {
  readonly image: string;
  readonly log: string;
}

async function writeOurs({ image, log }: Files, each: boolean): Promise<void> {
  const kernel = await loadKernel(readFileSync(join(ROOT, "build", "kernel.wasm")));
  const world = { clock: new SystemClock(), random: seededRandom(SEED), kernel, trace: {} };
  const graph = new Graph(world, [fileDriver(), qcow2Driver(), blklogwrites]);
  const node = await graph.add({
    driver: "qcow2",
    "node-name": "disk",
    file: {
      driver: "blklogwrites",
      file: { driver: "file", filename: image },
      log: { driver: "file", filename: log },
      "log-sector-size": 512,
    },
  });
  const permissions = { take: Perm.all, share: Perm.all };
  const disk = graph.openBackend(node, { name: "bench", description: "the bench", permissions });
  const data = new Uint8Array(WRITE_BYTES).fill(9);
  for (const place of places(seededRandom(SEED))) {
    await disk.write(data, place);
    if (each) await disk.flush();
  }
  await disk.flush();
  await graph.closeBackend(disk);
  await graph.remove("disk");
}

async function writeTheirs({ image, log }: Files, each: boolean): Promise<void> {
  const options =
    "driver=qcow2,file.driver=blklogwrites,file.log-sector-size=512," +
    `file.file.driver=file,file.file.filename=${image},file.log.driver=file,file.log.filename=${log}`;
  const commands = places(seededRandom(SEED)).flatMap((place) => [
    `write -q -P 9 ${place} ${WRITE_BYTES}`,
    ...(each ? ["flush"] : []),
  ]);
  const words = [...commands, "flush"].flatMap((command) => ["-c", command]);
  await promisify(execFile)("qemu-io", ["-t", "writeback", "--image-opts", ...words, options]);
}

function packLine(packing: "zlib" | "zstd", isWrite: boolean): Line {
  const what = isWrite ? "packs a raw file" : "unpacks an image that qemu-img packed";
  return {
    name: `qcow2-${packing}-${isWrite ? "write" : "read"}`,
    unit: "MiB/s",
    reference:
      `qemu-img convert instead of blocktab img convert: ${what}, ${PACKED_BYTES / MiB} MiB that pack ` +
      `to about half, with ${packing}; both with all processors and as many threads as they like`,
    aim: null,
    runs: 3,
    async prepare(lab) {
      const raw = lab.file("pack.raw");
      const packed = lab.file("pack.qcow2");
      const target = lab.file("packed.out");
      writeFileSync(raw, halfNoise(seededRandom(SEED)));
      const pack = ["-c", "-f", "raw", "-O", "qcow2", "-o", `compression_type=${packing}`];
      execFileSync("qemu-img", ["convert", ...pack, raw, packed]);
      const words = isWrite ? [...pack, raw] : ["-f", "qcow2", "-O", "raw", packed];
      const run = async (program: readonly string[]) => {
        rmSync(target, { force: true });
        const ms = await timed([...program, "convert", ...words, target]);
        return PACKED_BYTES / MiB / (ms / 1000);
      };
      return {
        warmUp: true,
        ours: () => run(OURS),
        theirs: () => run(["qemu-img"]),
        async done() {
          for (const file of [raw, packed, target]) rmSync(file, { force: true });
        },
      };
    },
  };
}

/** In every 64 bytes half are noise, half are the same. */
function halfNoise(random: Random): Uint8Array {
  const data = new Uint8Array(PACKED_BYTES);
  random.fill(data);
  for (let at = 0; at < data.length; at += 64) data.fill(at & 255, at, at + 32);
  return data;
}

function checkLine(): Line {
  return {
    name: "qcow2-check-1t",
    unit: "s",
    reference:
      "qemu-img check instead of blocktab img check, of an image of 1 TiB whose every cluster is " +
      "allocated: 160 MiB of tables, and holes where data would be",
    aim: null,
    runs: 3,
    async prepare(lab) {
      const path = lab.file("large.qcow2");
      const words = ["create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", path, "1T"];
      execFileSync("qemu-img", words);
      const run = async (program: readonly string[]) =>
        (await timed([...program, "check", "-f", "qcow2", path])) / 1000;
      return {
        warmUp: true,
        ours: () => run(OURS),
        theirs: () => run(["qemu-img"]),
        done: async () => rmSync(path),
      };
    },
  };
}

/** In milliseconds. */
async function timed([program = "", ...words]: readonly string[]): Promise<number> {
  const startMs = performance.now();
  await promisify(execFile)(program, words);
  return performance.now() - startMs;
}
