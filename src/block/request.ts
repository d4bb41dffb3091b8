/**
 * What every request of src/block/io.ts has in common: where it goes, what range it holds, what it may
 * do, and the buffers that it borrows.
 */

import { alignDown, alignUp, MiB } from "../base/bytes.ts";
import { assert, BlockError, type ErrorPlace } from "../base/errors.ts";
import type { BlockChild } from "./child.ts";
import type { Mapping, RequestOptions } from "./driver.ts";
import type { IoKind } from "./io-stats.ts";
import type { BlockNode } from "./node.ts";
import type { Passage } from "./write-gate.ts";

/** Most bytes that one request copies from layer to layer in one piece. */
export const COPY_BYTES = 1 * MiB;

/** The child of a filter; also where a format keeps its own bytes. */
export function fileOf(node: BlockNode): BlockChild {
  const file = node.children.get("file");
  assert(file !== undefined, `node '${node.name}' has a file`);
  return file;
}

export function getLength(node: BlockNode): number {
  return node.state.getLength?.() ?? getLength(fileOf(node).node);
}

export async function mapOf(
  node: BlockNode,
  offset: number,
  bytes: number,
  options: RequestOptions,
): Promise<Mapping> {
  assert(node.state.map, `driver '${node.driver.name}' maps`);
  const mapping = await node.state.map(offset, bytes, passDown(options));
  assert(mapping.bytes > 0 && mapping.bytes <= bytes, "a mapping is within what was asked for");
  return mapping;
}

export function childOf(node: BlockNode, role: "file" | "data-file" | "backing"): BlockChild {
  const child = node.children.get(role);
  assert(child !== undefined, `node '${node.name}' has a ${role} child`);
  return child;
}

/** What a request to one node means for its children: only that it can be called off. */
export function passDown(options: RequestOptions): RequestOptions {
  return options.signal ? { signal: options.signal } : NO_OPTIONS;
}
const NO_OPTIONS: RequestOptions = {};

/** The part of a range that is made of whole clusters; the end of the disk counts as a boundary. */
export function wholeClusters(
  node: BlockNode,
  offset: number,
  bytes: number,
): { body: number; bodyBytes: number } {
  const { clusterSize, requestAlignment } = node.state.limits;
  const granule = Math.max(clusterSize, requestAlignment);
  const end = offset + bytes;
  const body = alignUp(offset, granule);
  const bodyEnd = end >= getLength(node) ? end : alignDown(end, granule);
  return { body, bodyBytes: Math.max(0, bodyEnd - body) };
}

/** Runs a change: alone on the clusters it touches, or shared where a store has none. */
export function changing<T>(
  node: BlockNode,
  offset: number,
  bytes: number,
  options: RequestOptions,
  kind: IoKind | null,
  work: () => Promise<T>,
  ended?: () => void,
): Promise<T> {
  const { clusterSize, requestAlignment } = node.state.limits;
  const alone = node.state.allocate !== undefined || requestAlignment > 1;
  const granule = Math.max(clusterSize, requestAlignment) || 1;
  return tracked(node, offset, bytes, { granule, alone }, options, kind, work, ended);
}

/** Runs a change that a reader sees: changing(), and the node's dirty bitmaps are told of it. */
export function writing<T>(
  node: BlockNode,
  offset: number,
  bytes: number,
  options: RequestOptions,
  kind: "wr" | "unmap",
  work: () => Promise<T>,
): Promise<T> {
  node.noteWrite(offset + bytes);
  const { gate } = node;
  const told = () => record(node, offset, bytes, options, kind);
  if (!gate || options.unchanged) return changing(node, offset, bytes, options, kind, work, told);
  let passage: Passage | null = null;
  const gated = async () => {
    passage = gate.enter(offset, bytes);
    await gate.open(passage, options.signal);
    return work();
  };
  return changing(node, offset, bytes, options, kind, gated, () => {
    told();
    if (passage) gate.leave(passage); // Not before: in between nobody would know of the write.
  });
}

/** What writing() is to a filter that leaves the work to its child. */
export async function recorded(
  node: BlockNode,
  offset: number,
  bytes: number,
  options: RequestOptions,
  kind: "wr" | "unmap",
  work: () => Promise<void>,
): Promise<void> {
  node.noteWrite(offset + bytes);
  try {
    await counted(node, bytes, kind, work);
  } finally {
    record(node, offset, bytes, options, kind);
  }
}

/**
 * Tells the bitmaps at the end of a request, whatever came of it: a failed write may have written a
 * part, and one that was under way when a bitmap was added counts as written after that.
 */
function record(
  node: BlockNode,
  offset: number,
  bytes: number,
  options: RequestOptions,
  kind: "wr" | "unmap",
): void {
  const { stats } = node;
  if (kind === "wr") stats.highestWrite = Math.max(stats.highestWrite, offset + bytes);
  if (!options.unchanged) node.bitmaps.record(offset, bytes, options.unrecorded);
}

/** Adds a request to the node's figures. */
export async function counted(
  { stats }: BlockNode,
  bytes: number,
  kind: IoKind,
  work: () => Promise<void>,
): Promise<void> {
  const begunMs = stats.begin();
  try {
    await work();
  } catch (error) {
    stats.failed(kind, begunMs);
    throw error;
  }
  stats.done(kind, bytes, begunMs);
}

/** What a request holds of its range. */
export interface Hold {
  /** It holds the range in multiples of this. */
  readonly granule: number;
  readonly alone: boolean;
}

/** Of readers. */
export const SHARED: Hold = { granule: 1, alone: false };

/**
 * Counts a request in and out of its node, and holds its range.
 *
 * @param kind null: it is not in the figures
 * @param ended called when the work has ended in any way, before anybody can take the range
 */
export async function tracked<T>(
  node: BlockNode,
  offset: number,
  bytes: number,
  { granule, alone }: Hold,
  options: RequestOptions,
  kind: IoKind | null,
  work: () => Promise<T>,
  ended?: () => void,
): Promise<T> {
  const { stats } = node;
  const begunMs = kind === null ? 0 : stats.begin();
  const start = alignDown(offset, granule);
  // A change of the length holds all there is, up to infinity.
  const end = granule === 1 ? offset + bytes : alignUp(offset + bytes, granule);
  node.enter();
  try {
    const range =
      node.ranges.tryAcquire(start, end - start, alone) ??
      (await node.ranges.acquire(start, end - start, alone, options.signal));
    let result: T;
    try {
      result = await work();
    } finally {
      ended?.();
      node.ranges.release(range);
    }
    if (kind !== null) stats.done(kind, bytes, begunMs);
    return result;
  } catch (error) {
    if (kind !== null) stats.failed(kind, begunMs);
    throw error;
  } finally {
    node.leave();
  }
}

/** Lends a buffer, inside wasm memory while there is room, so that kernels need no copy of it. */
export async function withBuffer<T>(
  node: BlockNode,
  bytes: number,
  work: (buf: Uint8Array) => Promise<T>,
): Promise<T> {
  const { kernel } = node.world;
  const inside = kernel.allocate(bytes);
  try {
    return await work(inside ?? new Uint8Array(bytes));
  } finally {
    if (inside) kernel.free(inside);
  }
}

export function checkWritable(node: BlockNode, offset: number, bytes: number): void {
  if (node.readOnly) throw readOnlyError(node);
  if (node.driver.kind === "filter" || node.state.limits.growable) return;
  const length = getLength(node);
  if (offset + bytes > length) {
    throw new BlockError(
      "EINVAL",
      `Node '${node.name}' ends at ${length}; cannot write ${bytes} bytes at ${offset}`,
    );
  }
}

export function readOnlyError(node: BlockNode): BlockError {
  return new BlockError("EROFS", `Node '${node.name}' is read-only`);
}

/** Errors of `work` say where they happened: a job's policy and its event need to know. */
export async function placed<T>(place: ErrorPlace, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof BlockError) || error.at) throw error;
    throw new BlockError(error.errno, error.message, {
      class: error.class,
      at: place,
      cause: error,
    });
  }
}
