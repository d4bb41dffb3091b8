/**
 * Small requests all over a qcow2, one after the other, next to qemu-io on a copy of the same file: the
 * same places in the same order, through the host's cache, and one flush at the end.
 *
 * Theirs is one process with all requests on its command line; what the same process takes to start, open
 * and close is taken off. Ours is our engine in the bench's own process, from the first request to the
 * end of the flush; the run that is thrown away has warmed it up.
 */

import { execFile, execFileSync } from "node:child_process";
import { copyFileSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { ROOT } from "../../../scripts/setup.mjs";
import { KiB, MiB } from "../../../src/base/bytes.ts";
import { SystemClock } from "../../../src/base/clock.ts";
import { seededRandom } from "../../../src/base/random.ts";
import { Graph } from "../../../src/block/graph.ts";
import { Perm } from "../../../src/block/permissions.ts";
import { qcow2Driver } from "../../../src/drivers/format/qcow2/index.ts";
import { fileDriver } from "../../../src/drivers/protocol/file.ts";
import { loadKernel } from "../../../src/kernel/kernel.ts";
import type { Line } from "../line.ts";

const REQUESTS = 20_000;
const REQUEST_BYTES = 4 * KiB;
const DISK_BYTES = 256 * MiB;
const SEED = 11;

type Kind = "read" | "write";

export const RANDOM_IO_LINES: readonly Line[] = [
  randomLine("qcow2-random-read", "read", "of data that the host has in its cache", true),
  randomLine("qcow2-random-write", "write", "over data, and one flush", true),
  randomLine("qcow2-random-write-new", "write", "into an empty disk, and one flush", false),
];

function randomLine(name: string, kind: Kind, what: string, isFull: boolean): Line {
  return {
    name,
    unit: "requests/s",
    reference:
      `qemu-io instead of our engine on Node: ${REQUESTS} ${kind}s of 4 KiB at random over ` +
      `${DISK_BYTES / MiB} MiB, one after the other, ${what}`,
    aim: null,
    runs: 3,
    async prepare(lab) {
      const start = lab.file(`${name}.qcow2`);
      execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", start, `${DISK_BYTES}`]);
      if (isFull) {
        const fill = `write -q -P 1 0 ${DISK_BYTES}`;
        execFileSync("qemu-io", ["-f", "qcow2", "-c", fill, start]);
      }
      const run = async (work: (image: string) => Promise<number>) => {
        const image = `${start}.copy`;
        // Writes the copy out, and has all of it in the cache.
        copyFileSync(start, image);
        execFileSync("sync", [image]);
        try {
          return REQUESTS / ((await work(image)) / 1000);
        } finally {
          rmSync(image);
        }
      };
      return {
        warmUp: true,
        ours: () => run((image) => doOurs(image, kind)),
        theirs: () => run((image) => doTheirs(image, kind)),
        done: async () => rmSync(start),
      };
    },
  };
}

function places(): number[] {
  const random = seededRandom(SEED);
  const count = DISK_BYTES / REQUEST_BYTES;
  return Array.from({ length: REQUESTS }, () => REQUEST_BYTES * random.below(count));
}

/** In milliseconds. */
async function doOurs(image: string, kind: Kind): Promise<number> {
  const kernel = await loadKernel(readFileSync(join(ROOT, "build", "kernel.wasm")));
  const world = { clock: new SystemClock(), random: seededRandom(SEED), kernel, trace: {} };
  const graph = new Graph(world, [fileDriver(), qcow2Driver()]);
  const node = await graph.add({
    driver: "qcow2",
    "node-name": "disk",
    "read-only": kind === "read",
    file: { driver: "file", filename: image },
  });
  const permissions = { take: kind === "read" ? Perm.consistentRead : Perm.all, share: Perm.all };
  const disk = graph.openBackend(node, { name: "bench", description: "the bench", permissions });
  const buf = new Uint8Array(REQUEST_BYTES).fill(9);
  const all = places();
  const startMs = performance.now();
  for (const place of all) await disk[kind](buf, place);
  await disk.flush();
  const ms = performance.now() - startMs;
  await graph.closeBackend(disk);
  await graph.remove("disk");
  return ms;
}

async function doTheirs(image: string, kind: Kind): Promise<number> {
  const access = kind === "read" ? ["-r"] : [];
  const run = async (commands: readonly string[]) => {
    const words = commands.flatMap((command) => ["-c", command]);
    const startMs = performance.now();
    await promisify(execFile)("qemu-io", [
      ...access,
      "-t",
      "writeback",
      "-f",
      "qcow2",
      ...words,
      image,
    ]);
    return performance.now() - startMs;
  };
  const startedMs = await run(["flush"]);
  const requests = places().map((place) => `${kind} -q ${place} ${REQUEST_BYTES}`);
  return (await run([...requests, "flush"])) - startedMs;
}
