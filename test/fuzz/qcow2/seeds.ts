/** Images that the real qemu-img has made, of which the fuzzer takes one now and then. */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { seededRandom } from "../../../src/base/random.ts";
import { runWell } from "../../spawn.ts";

export interface Seed {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** What is told to qemu-img about each; `%` is the image's name. */
const RECIPES: readonly (readonly [string, ...string[][]])[] = [
  ["packed, 4 KiB", ["convert", "-c", "-O", "qcow2", "-o", "cluster_size=4k", "raw", "%"]],
  [
    "zstd",
    ["convert", "-c", "-O", "qcow2", "-o", "cluster_size=4k,compression_type=zstd", "raw", "%"],
  ],
  [
    "extended L2, snapshots",
    ["convert", "-O", "qcow2", "-o", "cluster_size=16k,extended_l2=on", "raw", "%"],
    ["snapshot", "-c", "one", "%"],
    ["snapshot", "-c", "two", "%"],
  ],
  [
    "v2, snapshot",
    ["convert", "-O", "qcow2", "-o", "cluster_size=1k,compat=0.10", "raw", "%"],
    ["snapshot", "-c", "one", "%"],
  ],
  [
    "1-bit refcounts",
    ["convert", "-O", "qcow2", "-o", "cluster_size=512,refcount_bits=1", "raw", "%"],
  ],
  [
    "64-bit refcounts",
    ["convert", "-O", "qcow2", "-o", "cluster_size=2k,refcount_bits=64", "raw", "%"],
  ],
  [
    "bitmaps",
    ["convert", "-O", "qcow2", "-o", "cluster_size=4k", "raw", "%"],
    ["bitmap", "--add", "-g", "4k", "%", "b0"],
    ["bitmap", "--add", "--disable", "%", "b1"],
  ],
  ["preallocated", ["create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", "%", "1M"]],
  ["lazy refcounts", ["create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", "%", "1G"]],
];

/** None where there is no qemu-img. */
export function qemuSeeds(): Seed[] {
  const folder = mkdtempSync(join(tmpdir(), "blocktab-fuzz-"));
  try {
    const raw = new Uint8Array(160 * 1024);
    const random = seededRandom(3);
    for (let at = 0; at < raw.length; at += 8192) {
      const piece = raw.subarray(at, at + 8192);
      if (random.below(3) > 0) piece.fill(random.below(256));
      if (random.below(3) === 0) random.fill(piece.subarray(0, 3000));
    }
    writeFileSync(join(folder, "raw"), raw);
    return RECIPES.map(([name, ...commands]) => {
      for (const command of commands) {
        const args = command.map((arg) => (arg === "%" ? "image" : arg));
        runWell("qemu-img", args, { cwd: folder });
      }
      const bytes = new Uint8Array(readFileSync(join(folder, "image")));
      rmSync(join(folder, "image"));
      return { name: `qemu-img: ${name}`, bytes };
    });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
