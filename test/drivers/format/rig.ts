/**
 * Real images for the tests of formats: made, checked and read by the real qemu-img and qemu-io.
 */

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import { SystemClock } from "../../../src/base/clock.ts";
import { type Random, seededRandom } from "../../../src/base/random.ts";
import type { HostZlib } from "../../../src/base/zlib.ts";
import type { BlockBackend } from "../../../src/block/backend.ts";
import type { World } from "../../../src/block/driver.ts";
import { Graph } from "../../../src/block/graph.ts";
import type { BlockNode } from "../../../src/block/node.ts";
import type { BlockdevOptions } from "../../../src/block/options.ts";
import { Perm } from "../../../src/block/permissions.ts";
import type { CreateOptions } from "../../../src/drivers/format/qcow2/create.ts";
import { qcow2Driver } from "../../../src/drivers/format/qcow2/index.ts";
import { rawDriver } from "../../../src/drivers/format/raw.ts";
import { fileDriver } from "../../../src/drivers/protocol/file.ts";
import { memoryDriver } from "../../../src/drivers/protocol/memory.ts";
import { testKernel } from "../../kernel/load.ts";
import { spawnQemuImg } from "../../qemu-img.ts";
import { runWell } from "../../spawn.ts";

/** Tests that need QEMU's tools are skipped, by name, where they are not installed. */
export const hasQemu = ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"].some(
  (folder) => existsSync(join(folder, "qemu-img")) && existsSync(join(folder, "qemu-io")),
);

/** A folder that is gone after the file's tests. */
export function testFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "blocktab-format-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export async function testWorld(seed = 1): Promise<World> {
  return {
    clock: new SystemClock(),
    random: seededRandom(seed),
    kernel: await testKernel(),
    trace: {},
  };
}

/** @param zlib the host's; pako packs without */
export async function testGraph(zlib?: HostZlib): Promise<Graph> {
  const drivers = [rawDriver(), qcow2Driver(), fileDriver(), memoryDriver()];
  const world = await testWorld();
  return new Graph(zlib ? { ...world, zlib } : world, drivers as never);
}

/** One disk, open for whatever the test does to it. */
export interface Disk {
  readonly graph: Graph;
  readonly node: BlockNode;
  readonly backend: BlockBackend;
  close(): Promise<void>;
}

export async function openDisk(graph: Graph, options: BlockdevOptions): Promise<Disk> {
  const node = await graph.add({ "node-name": "disk", ...options });
  const take = node.readOnly ? Perm.consistentRead : Perm.all;
  const backend = graph.openBackend(node, {
    name: "test",
    description: "the test",
    permissions: { take, share: Perm.all },
  });
  const close = async () => {
    await graph.closeBackend(backend);
    await graph.remove(node.name);
  };
  return { graph, node, backend, close };
}

/** Options for a qcow2 file and the files below it, top first; the last one has no backing file. */
export function chainOptions(
  folder: string,
  files: readonly string[],
  readOnly = false,
): BlockdevOptions {
  const [top, ...below] = files;
  const format = top!.endsWith(".raw") ? "raw" : "qcow2";
  return {
    driver: format,
    "read-only": readOnly,
    file: { driver: "file", filename: join(folder, top!) },
    ...(format === "qcow2" && {
      backing: below.length > 0 ? chainOptions(folder, below, true) : null,
    }),
  };
}

/** The whole disk, in pieces of odd sizes. */
export async function readAll(disk: Disk, piece = 1_000_003): Promise<Uint8Array> {
  const all = new Uint8Array(disk.backend.length);
  for (let at = 0; at < all.length; at += piece) {
    await disk.backend.read(all.subarray(at, at + piece), at);
  }
  return all;
}

export function qemuImg(folder: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnQemuImg(args, folder);
  if (status === 0) return stdout;
  const told = `qemu-img ${args.join(" ")}: ${stderr}`;
  throw Object.assign(new Error(told), { status, stdout, stderr });
}

/** Runs qemu-io commands on an image; its errors are errors. */
export function qemuIo(folder: string, image: string, ...commands: string[]): string {
  const args = ["-f", "qcow2", ...commands.flatMap((command) => ["-c", command]), image];
  const out = runWell("qemu-io", args, { cwd: folder });
  if (/failed|error/i.test(out)) throw new Error(`qemu-io: ${out}`);
  return out;
}

/** What QEMU reads of an image. */
export function qemuRaw(folder: string, image: string, imageOptions?: string): Uint8Array {
  const out = join(folder, "oracle.raw");
  const source = imageOptions ? ["--image-opts", imageOptions] : ["-f", "qcow2", image];
  qemuImg(folder, "convert", ...source, "-O", "raw", out);
  const bytes = new Uint8Array(readFileSync(out));
  rmSync(out);
  return bytes;
}

/** qemu-img check's verdict: 0 clean, 2 corrupt, 3 leaks. */
export function qemuCheck(folder: string, image: string): { status: number; text: string } {
  try {
    return { status: 0, text: qemuImg(folder, "check", "-f", "qcow2", image) };
  } catch (error) {
    const { status, stdout, stderr } = error as { status: number; stdout: string; stderr: string };
    return { status, text: `${stdout}${stderr}` };
  }
}

/** -1, or where two disks differ first; the shorter one goes on with zeroes. */
export function firstDifference(a: Uint8Array, b: Uint8Array): number {
  if (Buffer.compare(a, b) === 0) return -1;
  const end = Math.max(a.length, b.length);
  for (let i = 0; i < end; i++) if ((a[i] ?? 0) !== (b[i] ?? 0)) return i;
  return -1;
}

/** Data with all that a disk has: zeroes, text that packs well, noise that does not. */
export function mixedData(random: Random, bytes: number): Uint8Array<ArrayBuffer> {
  const data = new Uint8Array(bytes);
  for (let at = 0; at < bytes; ) {
    const run = Math.min(bytes - at, 512 * (1 + random.below(160)));
    const kind = random.below(3);
    const piece = data.subarray(at, at + run);
    if (kind === 1) piece.fill(1 + random.below(255));
    if (kind === 2) random.fill(piece);
    at += run;
  }
  return data;
}

/** Makes a new image with our own engine, in a file of its own. */
export async function createImage(
  folder: string,
  name: string,
  options: Omit<CreateOptions, "size"> & { size: number },
): Promise<void> {
  const graph = await testGraph();
  const { world } = graph;
  const filename = join(folder, name);
  await fileDriver().create!({ world, options: { filename, size: 0 } });
  const store = await openDisk(graph, { driver: "file", filename });
  try {
    await qcow2Driver().create!({ world, file: store.backend.edge, options });
  } finally {
    await store.close();
  }
}

export function writeRaw(folder: string, name: string, bytes: Uint8Array): void {
  writeFileSync(join(folder, name), bytes);
}
