/**
 * Do two disks read the same? (QEMU: img_compare() in qemu-img.c; the same places are told of.)
 *
 *     a   ##..00##          status first: what both know to be zero is not read
 *     b   ##..####0000      what only one has data for is read there, and must be zero
 *                 ├──┤      the longer one's rest must read as zeroes
 *
 * Strictly compared they are also of one length, and every run has one kind of status in both.
 */

import { alignDown, alignUp, MiB, SECTOR_BYTES } from "../base/bytes.ts";
import { BlockError, throwIfAborted } from "../base/errors.ts";
import { TimeSlice } from "../base/time-slice.ts";
import type { BlockBackend } from "../block/backend.ts";
import * as io from "../block/io.ts";
import { withBuffer } from "../block/request.ts";
import { type ChainStatus, chainStatus } from "../block/status.ts";

const BUFFER_BYTES = 2 * MiB;

export interface Comparison {
  readonly a: BlockBackend;
  readonly b: BlockBackend;
  readonly strict: boolean;
  readonly progress: (done: number, total: number) => Promise<void>;
  /** The lengths differ, and that is no difference here. */
  readonly onLengths: () => Promise<void>;
  readonly signal?: AbortSignal;
}

export type Side = "a" | "b";

export type Verdict =
  | { readonly kind: "same" }
  /** Strictly: of different lengths. */
  | { readonly kind: "length" }
  | { readonly kind: "status" | "content"; readonly offset: number }
  /** Nobody knows. */
  | {
      readonly kind: "status-failed" | "read-failed";
      readonly side: Side;
      readonly offset: number;
      readonly error: BlockError;
    };

export async function compareDisks(comparison: Comparison): Promise<Verdict> {
  const { a, b, strict, progress, onLengths, signal } = comparison;
  const [aLength, bLength] = [lengthOf(a), lengthOf(b)];
  if (strict && aLength !== bLength) return { kind: "length" };
  const slice = new TimeSlice(a.node.world.clock, signal);
  const [common, total] = [Math.min(aLength, bLength), Math.max(aLength, bLength)];

  return judged(async () => {
    for (let at = 0; at < common; ) {
      throwIfAborted(signal);
      if (slice.isOver) await slice.rest();
      const left = await statusOf(a, "a", at, aLength - at, strict);
      const right = await statusOf(b, "b", at, bLength - at, strict);
      if (strict && kindOf(left) !== kindOf(right)) return { kind: "status", offset: at };
      let bytes = Math.min(left.bytes, right.bytes, common - at);
      if (!(left.zero && right.zero)) {
        const isOneSided = left.isAllocated !== right.isAllocated;
        if (isOneSided || left.isAllocated) bytes = Math.min(bytes, BUFFER_BYTES);
        const found = isOneSided
          ? await (left.isAllocated ? nonzero(a, "a", at, bytes) : nonzero(b, "b", at, bytes))
          : left.isAllocated
            ? await difference(a, b, at, bytes)
            : -1;
        if (found >= 0) return { kind: "content", offset: found };
      }
      at += bytes;
      await progress(at, total);
    }
    if (aLength !== bLength) {
      await onLengths();
      const [longer, side] = aLength > bLength ? [a, "a" as const] : [b, "b" as const];
      for (let at = common; at < total; ) {
        throwIfAborted(signal);
        if (slice.isOver) await slice.rest();
        const status = await statusOf(longer, side, at, total - at, false);
        let { bytes } = status;
        if (status.isAllocated && !status.zero) {
          bytes = Math.min(bytes, BUFFER_BYTES);
          const found = await nonzero(longer, side, at, bytes);
          if (found >= 0) return { kind: "content", offset: found };
        }
        at += bytes;
        await progress(at, total);
      }
    }
    return { kind: "same" };
  });
}

/** Whole sectors, as all of a disk is counted in. */
function lengthOf(disk: BlockBackend): number {
  return alignUp(disk.length, SECTOR_BYTES);
}

/** What went wrong, and with which disk: what a verdict is made of. */
class Failure extends Error {
  readonly verdict: Verdict;

  constructor(verdict: Verdict) {
    super(verdict.kind);
    this.verdict = verdict;
  }
}

async function judged(work: () => Promise<Verdict>): Promise<Verdict> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Failure) return error.verdict;
    throw error;
  }
}

async function failing<T>(
  kind: "status-failed" | "read-failed",
  side: Side,
  offset: number,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof BlockError) || error.errno === "ECANCELED") throw error;
    throw new Failure({ kind, side, offset, error });
  }
}

interface Status extends ChainStatus {
  readonly isAllocated: boolean;
  /** There is a place to point at. */
  readonly isPlaced: boolean;
  /** It reaches to the end of the disk: QEMU counts that as another kind of status. */
  readonly isLast: boolean;
}

async function statusOf(
  disk: BlockBackend,
  side: Side,
  offset: number,
  bytes: number,
  strict: boolean,
): Promise<Status> {
  const there = disk.length - offset;
  if (there <= 0) {
    return { bytes, node: null, zero: true, isAllocated: false, isPlaced: false, isLast: true };
  }
  const status = await failing("status-failed", side, offset, async () => {
    const run = await chainStatus(disk.node, null, offset, Math.min(bytes, there));
    if (!strict || run.node === null || offset >= io.getLength(run.node)) {
      return { ...run, isPlaced: false };
    }
    const own = await io.blockStatus(run.node, offset, run.bytes);
    return { ...run, bytes: own.bytes, isPlaced: own.offset !== undefined };
  });
  // The rest of a last sector goes with what is there of it.
  const run = status.bytes >= there ? bytes : status.bytes;
  const isLast = status.bytes >= there;
  return { ...status, bytes: run, isAllocated: status.node !== null, isLast };
}

function kindOf({ isAllocated, zero, isPlaced, isLast }: Status): string {
  return `${isAllocated} ${zero} ${isPlaced} ${isLast}`;
}

async function readPadded(
  disk: BlockBackend,
  side: Side,
  buf: Uint8Array,
  offset: number,
): Promise<void> {
  const there = Math.max(0, Math.min(buf.length, disk.length - offset));
  buf.fill(0, there);
  if (there === 0) return;
  await failing("read-failed", side, offset, () => disk.read(buf.subarray(0, there), offset));
}

/** The offset of the first sector that is not zero, or -1. */
async function nonzero(
  disk: BlockBackend,
  side: Side,
  offset: number,
  bytes: number,
): Promise<number> {
  const { kernel } = disk.node.world;
  return withBuffer(disk.node, bytes, async (buf) => {
    await readPadded(disk, side, buf, offset);
    // In the wasm module: the whole, which is quick, and where it is not zero, sector by sector.
    if (kernel.isZero(buf)) return -1;
    const { bytes: run, zero } = kernel.zeroRun(buf, SECTOR_BYTES);
    return offset + (zero ? run : 0);
  });
}

/** The offset of the first sector that differs, or -1. */
async function difference(
  a: BlockBackend,
  b: BlockBackend,
  offset: number,
  bytes: number,
): Promise<number> {
  const { kernel } = a.node.world;
  return withBuffer(a.node, bytes, (left) =>
    withBuffer(b.node, bytes, async (right) => {
      await readPadded(a, "a", left, offset);
      await readPadded(b, "b", right, offset);
      const at = kernel.firstDifference(left, right);
      return at < 0 ? -1 : offset + alignDown(at, SECTOR_BYTES);
    }),
  );
}
