/** The kernels and their twins in TypeScript, on the same bytes in wasm memory. */

import { KiB, MiB, writeU32 } from "../../../src/base/bytes.ts";
import type { ClusterRun, Kernel } from "../../../src/kernel/kernel.ts";
import * as twins from "../../kernel/twins.ts";
import { sharedKernel } from "./engine.ts";

/** Long enough for a clock of 0.1 ms, short enough that both sides see the same machine. */
const SAMPLE_MS = 30;
/** More than caches hold, but what wasm memory has room for; walked several times for 64 MiB. */
const ZERO_BYTES = 16 * MiB;
const ZERO_TOTAL_BYTES = 64 * MiB;
const TABLE_BYTES = 64 * KiB;
const CLUSTER_BITS = 16;
const CLUSTER_BYTES = 2 ** CLUSTER_BITS;

export type Scan =
  | "zero-64k"
  | "zero-1m"
  | "l2-long"
  | "l2-short"
  | "l2-extended-long"
  | "l2-extended-short";

export interface ScanArgument {
  readonly scan: Scan;
  readonly side: "kernel" | "twin";
}

interface Work {
  /** One walk over all. @returns a sum that both sides must agree on */
  readonly walk: () => number;
  /** How much one walk covers: bytes, or L2 entries. */
  readonly amount: number;
  readonly free: () => void;
}

/** @returns bytes (or entries) per ms, and the sum of what was found */
export async function kernelScan(
  argument: ScanArgument,
): Promise<{ perMs: number; found: number }> {
  const work = prepare(await sharedKernel(), argument);
  const found = work.walk();
  let walks = 0;
  const startMs = performance.now();
  let ms = 0;
  for (; ms < SAMPLE_MS; ms = performance.now() - startMs) {
    if (work.walk() !== found) throw new Error("Two walks over the same bytes differ");
    walks++;
  }
  work.free();
  return { perMs: (work.amount * walks) / ms, found };
}

function prepare(kernel: Kernel, { scan, side }: ScanArgument): Work {
  const isTwin = side === "twin";
  switch (scan) {
    case "zero-64k":
      return zeroWork(kernel, isTwin, 64 * KiB);
    case "zero-1m":
      return zeroWork(kernel, isTwin, 1 * MiB);
    case "l2-long":
      return tableWork(kernel, isTwin, TABLE_BYTES / 8);
    case "l2-short":
      return tableWork(kernel, isTwin, 3);
    case "l2-extended-long":
      return extendedWork(kernel, isTwin, TABLE_BYTES / 16);
    case "l2-extended-short":
      return extendedWork(kernel, isTwin, 3);
  }
}

function zeroWork(kernel: Kernel, isTwin: boolean, pieceBytes: number): Work {
  const buf = kernel.allocate(ZERO_BYTES)!;
  buf.fill(0);
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < ZERO_TOTAL_BYTES; at += pieceBytes) {
    const start = at % ZERO_BYTES;
    pieces.push(buf.subarray(start, start + pieceBytes));
  }
  const isZero = isTwin ? twins.isZero : (piece: Uint8Array) => kernel.isZero(piece);
  const walk = () => {
    let zeroes = 0;
    for (const piece of pieces) if (isZero(piece)) zeroes++;
    return zeroes;
  };
  return { walk, amount: ZERO_TOTAL_BYTES, free: () => kernel.free(buf) };
}

/** @param runEntries entries whose clusters lie side by side, then the file has a gap */
function tableWork(kernel: Kernel, isTwin: boolean, runEntries: number): Work {
  const table = kernel.allocate(TABLE_BYTES)!;
  const entries = TABLE_BYTES / 8;
  for (let i = 0; i < entries; i++) writeEntry(table, i * 8, i, runEntries);
  const run = isTwin
    ? (i: number) => twins.l2Run(table, i, entries - i, CLUSTER_BITS, false)
    : (i: number) => kernel.l2Run(table, i, entries - i, CLUSTER_BITS, false);
  return { walk: () => walkRuns(run, entries), amount: entries, free: () => kernel.free(table) };
}

function extendedWork(kernel: Kernel, isTwin: boolean, runEntries: number): Work {
  const table = kernel.allocate(TABLE_BYTES)!;
  const entries = TABLE_BYTES / 16;
  for (let i = 0; i < entries; i++) {
    writeEntry(table, i * 16, i, runEntries);
    writeU32(table, i * 16 + 8, 0);
    writeU32(table, i * 16 + 12, 0xffff_ffff);
  }
  const all = entries * 32;
  const scan: Kernel["l2RunExtended"] = isTwin
    ? twins.l2RunExtended
    : (...place) => kernel.l2RunExtended(...place);
  const run = (at: number) =>
    scan(table, Math.floor(at / 32), at % 32, all - at, CLUSTER_BITS, false);
  return { walk: () => walkRuns(run, all), amount: entries, free: () => kernel.free(table) };
}

function writeEntry(table: Uint8Array, at: number, index: number, runEntries: number): void {
  const cluster = 16 + index + Math.floor(index / runEntries);
  const offset = cluster * CLUSTER_BYTES;
  writeU32(table, at, 2 ** 31 + Math.floor(offset / 2 ** 32));
  writeU32(table, at + 4, offset % 2 ** 32);
}

function walkRuns(run: (at: number) => ClusterRun, all: number): number {
  let runs = 0;
  for (let at = 0; at < all; runs++) {
    const { count, kind, copied } = run(at);
    if (kind !== "normal" || !copied) throw new Error(`Found ${kind} where all is normal`);
    at += count;
  }
  return runs;
}
