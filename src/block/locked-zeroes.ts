/**
 * Zero writes of one layer, for requests that hold their range already (see locked.ts).
 *
 *     request             ├──────────────────────┤
 *     clusters    ┌─────────┬─────────┬─────────┬─────────┐
 *                     head                          tail
 *
 * Whole clusters become zeroes by entries of a table alone. So does a head or tail whose cluster reads as zeroes
 * already where the request does not reach: it needs no data, and takes no room (QEMU: qcow2_co_pwrite_zeroes()).
 */

import { alignDown, alignUp, KiB } from "../base/bytes.ts";
import { BlockError, throwIfAborted } from "../base/errors.ts";
import type { RequestOptions } from "./driver.ts";
import { writeLocked } from "./locked.ts";
import type { BlockNode } from "./node.ts";
import { getLength, mapOf, wholeClusters } from "./request.ts";
import { chainStatus } from "./status.ts";

const ZEROES = new Uint8Array(256 * KiB);

interface Range {
  readonly start: number;
  readonly end: number;
}

/** The caller holds the clusters of the range alone. */
export async function writeZeroesLocked(
  node: BlockNode,
  offset: number,
  bytes: number,
  options: RequestOptions,
): Promise<void> {
  const wanted = { start: offset, end: offset + bytes };
  const { body, bodyBytes } = wholeClusters(node, offset, bytes);
  const whole = { start: body, end: body + bodyBytes };
  const isWhole = bodyBytes === bytes || !canGrow(node);
  const { start, end } = isWhole ? whole : await entriesFor(node, wanted, options);
  const cheaply = () => cheapZeroes(node, start, end - start, options);
  if (options.noFallback) {
    if (start <= offset && end >= wanted.end && (await cheaply())) return;
    throw new BlockError("ENOTSUP", `Node '${node.name}' has no quick way to write these zeroes`);
  }
  if (end <= start || !node.state.pwriteZeroes) {
    return writeZeroBuffers(node, offset, bytes, options);
  }
  if (start > offset) await writeZeroBuffers(node, offset, start - offset, options);
  const done = (await cheaply()) ? end : Math.max(start, offset);
  if (done < wanted.end) await writeZeroBuffers(node, done, wanted.end - done, options);
}

function canGrow({ state }: BlockNode): boolean {
  return !!state.map && !!state.pwriteZeroes && !state.limits.hasSubclusters;
}

/** The clusters of which entries are enough; none if the end is not behind the start. */
async function entriesFor(node: BlockNode, wanted: Range, options: RequestOptions): Promise<Range> {
  const { clusterSize, requestAlignment } = node.state.limits;
  const granule = Math.max(clusterSize, requestAlignment);
  const start = alignDown(wanted.start, granule);
  // The end of the disk counts as a boundary.
  const end = Math.min(alignUp(wanted.end, granule), Math.max(getLength(node), wanted.end));
  const tail = alignDown(wanted.end - 1, granule);
  const isFit = async (cluster: Range) =>
    (wanted.start <= cluster.start && cluster.end <= wanted.end) ||
    (await isZeroBeside(node, cluster, wanted, options));
  if (tail === start) return (await isFit({ start, end })) ? { start, end } : { start, end: start };
  return {
    start: (await isFit({ start, end: start + granule })) ? start : start + granule,
    end: (await isFit({ start: tail, end })) ? end : tail,
  };
}

/** Whether the cluster holds no data, and reads as zeroes where it is not in the range. */
async function isZeroBeside(
  node: BlockNode,
  cluster: Range,
  range: Range,
  options: RequestOptions,
): Promise<boolean> {
  const backing = node.children.get("backing");
  for (let at = cluster.start; at < cluster.end; ) {
    const { kind, bytes } = await mapOf(node, at, cluster.end - at, options);
    if (kind === "data" || kind === "encoded") return false;
    const run = { start: at, end: at + bytes };
    if (kind === "unallocated" && backing) {
      const before = { ...run, end: Math.min(run.end, range.start) };
      const after = { ...run, start: Math.max(run.start, range.end) };
      if (!(await isZero(backing.node, before)) || !(await isZero(backing.node, after))) {
        return false;
      }
    }
    at = run.end;
  }
  return true;
}

/** Of a chain; nothing is zero, too. */
async function isZero(top: BlockNode, { start, end }: Range): Promise<boolean> {
  for (let at = start; at < end; ) {
    const { bytes, zero } = await chainStatus(top, null, at, end - at);
    if (!zero) return false;
    at += bytes;
  }
  return true;
}

/** False if the driver has no way of its own for these zeroes. */
async function cheapZeroes(
  node: BlockNode,
  offset: number,
  bytes: number,
  options: RequestOptions,
): Promise<boolean> {
  if (!node.state.pwriteZeroes) return false;
  try {
    await node.state.pwriteZeroes(offset, bytes, options);
    return true;
  } catch (error) {
    if (error instanceof BlockError && error.errno === "ENOTSUP") return false;
    throw error;
  }
}

/** Zeroes as data, whatever else there is for them. */
export async function writeZeroBuffers(
  node: BlockNode,
  offset: number,
  bytes: number,
  options: RequestOptions,
): Promise<void> {
  for (let done = 0; done < bytes; ) {
    throwIfAborted(options.signal);
    const piece = Math.min(bytes - done, ZEROES.length);
    await writeLocked(node, ZEROES.subarray(0, piece), offset + done, options);
    done += piece;
  }
}
