/**
 * The wasm module as it is: what it exports, how its memory is laid out, how it comes to life.
 *
 *     0          64 KiB         +2 MiB         +2 MiB                            memory's end
 *     ├── unused ──┼── scratch 0 ──┼── scratch 1 ──┼──────────── arena ────────────────┤
 *
 * The memory's size is in asconfig.json alone (initialMemory = maximumMemory, in pages of 64 KiB).
 * It is reserved up front and never grows: growing would detach every view that a store is reading
 * into, and a read into a detached view returns 0 bytes without a word.
 */

import { KiB, MiB } from "../base/bytes.ts";
import { assert, BlockError } from "../base/errors.ts";

/** Address 0 and its neighbourhood stay unused, and whatever the compiler puts at memoryBase. */
export const SCRATCH_START = 64 * KiB;
/** One argument's share: no smaller than the largest cluster, and so the largest table. */
export const SCRATCH_BYTES = 2 * MiB;
export const SCRATCH_COUNT = 2;
export const ARENA_START = SCRATCH_START + SCRATCH_COUNT * SCRATCH_BYTES;

/** The exports of assembly/index.ts, where each is described. Booleans travel as 0 and 1. */
export interface KernelExports {
  readonly memory: WebAssembly.Memory;
  isZero(address: number, bytes: number): number;
  zeroRun(address: number, bytes: number, granule: number): number;
  firstDifference(a: number, b: number, bytes: number): number;
  copy(target: number, source: number, bytes: number): void;
  gather: MoveClusters;
  scatter: MoveClusters;
  l2Run(
    table: number,
    index: number,
    limit: number,
    clusterBits: number,
    externalData: number,
  ): number;
  l2RunExtended(
    table: number,
    index: number,
    subcluster: number,
    limit: number,
    clusterBits: number,
    externalData: number,
  ): number;
  refcountNextFree(block: number, order: number, start: number, end: number): number;
  refcountNextUsed(block: number, order: number, start: number, end: number): number;
  refcountGet(block: number, order: number, index: number): number;
  refcountAdd(block: number, order: number, index: number, count: number, delta: number): number;
  bitmapNextSet(map: number, start: number, end: number): number;
  bitmapNextClear(map: number, start: number, end: number): number;
  bitmapSet(map: number, start: number, count: number): void;
  bitmapClear(map: number, start: number, count: number): void;
  bitmapCount(map: number, start: number, count: number): number;
  bitmapMerge(target: number, source: number, bytes: number): void;
  xtsSectors(
    data: number,
    tweak: number,
    rounds: number,
    address: number,
    sectors: number,
    low: number,
    high: number,
    decrypt: number,
  ): void;
}

type MoveClusters = (
  target: number,
  source: number,
  list: number,
  count: number,
  clusterBytes: number,
) => void;

/**
 * Compiles, if need be, and starts the module.
 *
 * @throws BlockError ENOTSUP if the bytes are no module that this machine runs (SIMD is needed),
 *   ENOMEM if its memory cannot be had
 */
export async function instantiate(
  bytesOrModule: BufferSource | WebAssembly.Module,
): Promise<KernelExports> {
  let instance: WebAssembly.Instance;
  try {
    const module =
      bytesOrModule instanceof WebAssembly.Module
        ? bytesOrModule
        : await WebAssembly.compile(bytesOrModule);
    instance = await WebAssembly.instantiate(module, {});
  } catch (error) {
    throw translate(error);
  }
  const exports = instance.exports as unknown as KernelExports;
  assert(exports.memory instanceof WebAssembly.Memory, "the kernel exports its memory");
  assert(
    exports.memory.buffer.byteLength > ARENA_START,
    "the kernel's memory has room for scratch and an arena",
  );
  return exports;
}

function translate(error: unknown): unknown {
  if (error instanceof WebAssembly.CompileError) {
    return new BlockError(
      "ENOTSUP",
      "Loading the kernel failed: not a WebAssembly module that runs here; " +
        "it takes a browser with WebAssembly SIMD (Chrome 91, Firefox 89, Safari 16.4)",
      { cause: error },
    );
  }
  if (error instanceof RangeError) {
    return new BlockError("ENOMEM", "Loading the kernel failed: no memory for its buffers", {
      cause: error,
    });
  }
  return error;
}
