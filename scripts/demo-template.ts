/**
 * The demo's template: a qcow2 of 384 MiB that blocktab's own engine writes, with every kind of
 * cluster that a stream has to tell apart.
 *
 *     MiB     0     1        65       97      161      177      193        321    353    384
 *             │text │ random │ (hole) │packed │ zeroes │ zeroes │ (hole) │random│(hole)│
 *                                              kept     freed
 *
 * Kept in a folder of .blocktab/ whose name is made from this file's own bytes: when the recipe
 * changes, so does the name, and the image is made anew.
 */

import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { MiB } from "../src/base/bytes.ts";
import { SystemClock } from "../src/base/clock.ts";
import { type Random, seededRandom } from "../src/base/random.ts";
import type { BlockBackend } from "../src/block/backend.ts";
import { Graph } from "../src/block/graph.ts";
import { Perm } from "../src/block/permissions.ts";
import { qcow2Driver } from "../src/drivers/format/qcow2/index.ts";
import { fileDriver } from "../src/drivers/protocol/file.ts";
import { loadKernel } from "../src/kernel/kernel.ts";
import { ROOT } from "./setup.mjs";

const NAME = "demo.qcow2";
const VIRTUAL_SIZE = 384 * MiB;
const CLUSTER = 65536;
const SECTOR = 512;
/** Any number will do, as long as it stays: the same template for everybody. */
const SEED = 42;

type Filling = (buf: Uint8Array, offset: number, random: Random) => void;

/** What is written where, in MiB; the rest are holes. */
const RECIPE: readonly {
  readonly from: number;
  readonly to: number;
  /** "zero": written over data; the clusters stay in reserve. "free": they are given back. */
  readonly how: "write" | "compress" | "zero" | "free";
  readonly fill?: Filling;
}[] = [
  { from: 0, to: 1, how: "write", fill: fillText },
  { from: 1, to: 65, how: "write", fill: fillRandom },
  { from: 97, to: 161, how: "compress", fill: fillText },
  { from: 161, to: 177, how: "zero", fill: fillText },
  { from: 177, to: 193, how: "free", fill: fillText },
  { from: 321, to: 353, how: "write", fill: fillRandom },
];

/** @returns the image's path; made if it is not there yet */
export async function ensureDemoTemplate(): Promise<string> {
  const cache = join(ROOT, ".blocktab");
  const recipe = createHash("sha256").update(readFileSync(fileURLToPath(import.meta.url)));
  const folder = join(cache, `template-${recipe.digest("hex").slice(0, 12)}`);
  if (existsSync(folder)) return join(folder, NAME);
  process.stderr.write("Making the demo template …\n");
  mkdirSync(cache, { recursive: true });
  for (const old of readdirSync(cache)) {
    if (old.startsWith("template-")) rmSync(join(cache, old), { recursive: true });
  }
  // Under another name until it is whole, so that a run that is stopped leaves nothing half done.
  const unfinished = mkdtempSync(join(cache, "template-part-"));
  await makeDemoTemplate(join(unfinished, NAME));
  renameSync(unfinished, folder);
  return join(folder, NAME);
}

/** @param path of the new image; what is there is overwritten */
export async function makeDemoTemplate(path: string): Promise<void> {
  const world = {
    clock: new SystemClock(),
    random: seededRandom(SEED),
    kernel: await loadKernel(readFileSync(join(ROOT, "build", "kernel.wasm"))),
    trace: {},
  };
  const file = fileDriver();
  const qcow2 = qcow2Driver();
  const graph = new Graph(world, [file, qcow2]);

  await file.create?.({ world, options: { filename: path, size: 0 } });
  const store = await graph.add({ driver: "file", "node-name": "file", filename: path });
  const maker = open(graph, "file");
  await qcow2.create?.({
    world,
    options: { size: VIRTUAL_SIZE, "cluster-size": CLUSTER },
    file: maker.edge,
  });
  await graph.closeBackend(maker);

  await graph.add({ driver: "qcow2", "node-name": "disk", file: store.name });
  const disk = open(graph, "disk");
  for (const part of RECIPE) await write(disk, part, world.random);
  await disk.flush();
  await graph.closeBackend(disk);
  await graph.remove("disk");
  await graph.remove("file");
}

function open(graph: Graph, node: string): BlockBackend {
  return graph.openBackend(graph.get(node), {
    name: "",
    description: "the maker of the demo template",
    permissions: { take: Perm.consistentRead | Perm.write | Perm.resize, share: Perm.none },
  });
}

async function write(
  disk: BlockBackend,
  { from, to, how, fill }: (typeof RECIPE)[number],
  random: Random,
): Promise<void> {
  const step = how === "compress" ? CLUSTER : MiB;
  const buf = new Uint8Array(step);
  for (let offset = from * MiB; offset < to * MiB; offset += step) {
    fill?.(buf, offset, random);
    if (how === "compress") await disk.writeCompressed(buf, offset);
    else await disk.write(buf, offset);
  }
  if (how === "zero") await disk.writeZeroes(from * MiB, (to - from) * MiB);
  if (how === "free") await disk.writeZeroes(from * MiB, (to - from) * MiB, { mayUnmap: true });
}

/** Every sector says where it is, for whoever looks at it in the page's sector view. */
function fillText(buf: Uint8Array, offset: number): void {
  const encoder = new TextEncoder();
  for (let at = 0; at < buf.length; at += SECTOR) {
    const text = `blocktab demo template, sector ${(offset + at) / SECTOR}.\n`;
    encoder.encodeInto(text.repeat(12), buf.subarray(at, at + SECTOR));
  }
}

function fillRandom(buf: Uint8Array, _offset: number, random: Random): void {
  random.fill(buf);
}
