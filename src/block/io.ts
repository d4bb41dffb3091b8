/**
 * The one module that does block I/O: what drivers promise and are promised (src/block/driver.ts)
 * becomes reads and writes of any offset and length here.
 *
 *   read    ask the state where the bytes are, fetch each run from there, zeroes past the end
 *   write   get room, fill what the new clusters take over (copy-on-write), write, make reachable
 *   copyUp  what shows through from below, written into this layer (copy-on-read)
 *
 * Each request counts itself in and out of its node and holds its range in node.ranges: reads
 * share, changes of a format's clusters are alone (QEMU: block/io.c).
 */

import { alignDown, alignUp, KiB, MiB } from "../base/bytes.ts";
import { assert, BlockError, type ErrorPlace, throwIfAborted } from "../base/errors.ts";
import { settleAll } from "../base/settle.ts";
import type { BlockChild } from "./child.ts";
import type { Allocation, BlockState, Mapping, RequestOptions } from "./driver.ts";
import type { BlockNode } from "./node.ts";
import { type BlockStatus, chainStatus } from "./status.ts";

/** Most runs of one request that are fetched at the same time. */
const PARALLEL_RUNS = 16;
/** Most bytes that one request copies from layer to layer in one piece. */
const COPY_BYTES = 1 * MiB;
/** Up to here head, data and tail of a write go out as one write. */
const MERGE_BYTES = 128 * KiB;

const ZEROES = new Uint8Array(256 * KiB);

/** The child of a filter; also where a format keeps its own bytes. */
export function fileOf(node: BlockNode): BlockChild {
  const file = node.children.get("file");
  assert(file !== undefined, `node '${node.name}' has a file`);
  return file;
}

export function getLength(node: BlockNode): number {
  return node.state.getLength?.() ?? getLength(fileOf(node).node);
}

export async function read(
  node: BlockNode,
  buf: Uint8Array,
  offset: number,
  options: RequestOptions,
): Promise<void> {
  if (buf.length === 0) return;
  const { state } = node;
  if (node.driver.kind === "filter" && !state.pread) {
    return read(fileOf(node).node, buf, offset, options);
  }
  if (options.copyOnRead && state.allocate && !node.readOnly) {
    return changing(node, offset, buf.length, options, () =>
      copyUpLocked(node, offset, buf.length, options, buf),
    );
  }
  return tracked(node, offset, buf.length, false, options, () =>
    readLocked(node, buf, offset, options),
  );
}

/** The caller holds the range, or a wider one. */
async function readLocked(
  node: BlockNode,
  buf: Uint8Array,
  offset: number,
  options: RequestOptions,
): Promise<void> {
  const inside = Math.max(0, Math.min(buf.length, getLength(node) - offset));
  if (inside < buf.length) buf.fill(0, inside);
  if (inside === 0) return;
  const wanted = buf.subarray(0, inside);
  const { state } = node;
  if (state.pread) return readAligned(state, wanted, offset, options);

  let done = 0;
  let running: Promise<void>[] = [];
  while (done < inside) {
    let mapping: Mapping;
    try {
      mapping = await mapOf(node, offset + done, inside - done, options);
    } catch (error) {
      await settleAll(running);
      throw error;
    }
    const piece = wanted.subarray(done, done + mapping.bytes);
    const work = readRun(node, mapping, piece, offset + done, options);
    done += mapping.bytes;
    if (done === inside && running.length === 0) return work;
    // settleAll() tells of its failure, which may come while the next run is still looked up.
    work.catch(() => {});
    running.push(work);
    if (running.length === PARALLEL_RUNS) {
      await settleAll(running);
      running = [];
    }
  }
  await settleAll(running);
}

async function readRun(
  node: BlockNode,
  mapping: Mapping,
  piece: Uint8Array,
  offset: number,
  options: RequestOptions,
): Promise<void> {
  switch (mapping.kind) {
    case "data":
      return childOf(node, mapping.role).read(piece, mapping.offset, passDown(options));
    case "encoded":
      assert(node.state.readEncoded, "a driver that maps encoded runs can read them");
      return node.state.readEncoded(piece, offset, passDown(options));
    case "zero":
      piece.fill(0);
      return;
    case "unallocated": {
      const backing = node.children.get("backing");
      if (backing) return backing.read(piece, offset, passDown(options));
      piece.fill(0);
    }
  }
}

async function readAligned(
  state: BlockState,
  buf: Uint8Array,
  offset: number,
  options: RequestOptions,
): Promise<void> {
  assert(state.pread, "a store can be read");
  const granule = state.limits.requestAlignment;
  const start = alignDown(offset, granule);
  const end = alignUp(offset + buf.length, granule);
  if (start === offset && end === offset + buf.length) return state.pread(buf, offset, options);
  const bounce = new Uint8Array(end - start);
  await state.pread(bounce, start, options);
  buf.set(bounce.subarray(offset - start, offset - start + buf.length));
}

/**
 * Writes the whole buffer or throws; what was written before a failure stays.
 *
 * @throws BlockError EROFS on a read-only node, EINVAL past the end of what cannot grow
 */
export async function write(
  node: BlockNode,
  buf: Uint8Array,
  offset: number,
  options: RequestOptions,
): Promise<void> {
  if (buf.length === 0) return;
  checkWritable(node, offset, buf.length);
  const { state } = node;
  if (node.driver.kind === "filter" && !state.pwrite) {
    return write(fileOf(node).node, buf, offset, options);
  }
  return changing(node, offset, buf.length, options, () => writeLocked(node, buf, offset, options));
}

/** The caller holds the clusters of the range alone. */
async function writeLocked(
  node: BlockNode,
  buf: Uint8Array,
  offset: number,
  options: RequestOptions,
): Promise<void> {
  const { state } = node;
  if (state.pwrite) return writeAligned(state, buf, offset, options);
  assert(state.allocate, `driver '${node.driver.name}' can be written`);
  for (let done = 0; done < buf.length; ) {
    const room = await state.allocate(offset + done, buf.length - done, options);
    assert(room.bytes > 0 && room.bytes <= buf.length - done, "room is within what was asked for");
    try {
      await fillRoom(node, room, buf.subarray(done, done + room.bytes), offset + done, options);
    } catch (error) {
      await room.abort();
      throw error;
    }
    await room.commit();
    done += room.bytes;
  }
}

/** Writes head, data and tail of one allocation. */
async function fillRoom(
  node: BlockNode,
  room: Allocation,
  data: Uint8Array,
  offset: number,
  options: RequestOptions,
): Promise<void> {
  const child = childOf(node, room.role);
  const down = passDown(options);
  const { headBytes, tailBytes } = room;
  if (headBytes === 0 && tailBytes === 0) return child.write(data, room.offset, down);

  const whole = headBytes + data.length + tailBytes;
  if (whole <= MERGE_BYTES) {
    return withBuffer(node, whole, async (bounce) => {
      const tail = headBytes + data.length;
      await readLocked(node, bounce.subarray(0, headBytes), offset - headBytes, down);
      await readLocked(node, bounce.subarray(tail), offset + data.length, down);
      bounce.set(data, headBytes);
      await child.write(bounce, room.offset - headBytes, down);
    });
  }
  await takeOver(node, offset - headBytes, headBytes, child, room.offset - headBytes, down);
  await child.write(data, room.offset, down);
  const end = offset + data.length;
  await takeOver(node, end, tailBytes, child, room.offset + data.length, down);
}

/** Copies what the disk reads as now to where it will be. */
async function takeOver(
  node: BlockNode,
  offset: number,
  bytes: number,
  target: BlockChild,
  targetOffset: number,
  options: RequestOptions,
): Promise<void> {
  for (let done = 0; done < bytes; ) {
    const piece = Math.min(bytes - done, COPY_BYTES);
    await withBuffer(node, piece, async (buf) => {
      await readLocked(node, buf, offset + done, options);
      await target.write(buf, targetOffset + done, options);
    });
    done += piece;
  }
}

async function writeAligned(
  state: BlockState,
  buf: Uint8Array,
  offset: number,
  options: RequestOptions,
): Promise<void> {
  assert(state.pwrite && state.pread && state.getLength, "a writable store can be read as well");
  const granule = state.limits.requestAlignment;
  const start = alignDown(offset, granule);
  const end = alignUp(offset + buf.length, granule);
  if (start === offset && end === offset + buf.length) return state.pwrite(buf, offset, options);
  const bounce = new Uint8Array(end - start);
  const readable = Math.min(bounce.length, Math.max(0, state.getLength() - start));
  if (readable > 0) await state.pread(bounce.subarray(0, readable), start, options);
  bounce.set(buf, offset - start);
  await state.pwrite(bounce, start, options);
}

/** Makes the range read as zeroes, without writing them where the driver has a cheaper way. */
export async function writeZeroes(
  node: BlockNode,
  offset: number,
  bytes: number,
  options: RequestOptions,
): Promise<void> {
  if (bytes === 0) return;
  checkWritable(node, offset, bytes);
  const { state } = node;
  if (node.driver.kind === "filter" && !state.pwriteZeroes && !state.pwrite) {
    return writeZeroes(fileOf(node).node, offset, bytes, options);
  }
  return changing(node, offset, bytes, options, () =>
    writeZeroesLocked(node, offset, bytes, options),
  );
}

/** The caller holds the clusters of the range alone. */
async function writeZeroesLocked(
  node: BlockNode,
  offset: number,
  bytes: number,
  options: RequestOptions,
): Promise<void> {
  const { body, bodyBytes } = wholeClusters(node, offset, bytes);
  const end = offset + bytes;
  if (bodyBytes > 0 && (await cheapZeroes(node, body, bodyBytes, options))) {
    await writeZeroBuffers(node, offset, body - offset, options);
    await writeZeroBuffers(node, body + bodyBytes, end - body - bodyBytes, options);
  } else {
    await writeZeroBuffers(node, offset, bytes, options);
  }
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

async function writeZeroBuffers(
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

/** Tells the layer that nobody needs the range any more; it may read as anything afterwards. */
export async function discard(
  node: BlockNode,
  offset: number,
  bytes: number,
  options: RequestOptions,
): Promise<void> {
  if (bytes === 0) return;
  checkWritable(node, offset, bytes);
  const { state } = node;
  if (node.driver.kind === "filter" && !state.pdiscard) {
    return discard(fileOf(node).node, offset, bytes, options);
  }
  const { body, bodyBytes } = wholeClusters(node, offset, bytes);
  if (!state.pdiscard || bodyBytes === 0) return;
  const pdiscard = state.pdiscard.bind(state);
  return changing(node, body, bodyBytes, options, () => pdiscard(body, bodyBytes, options));
}

/** One whole cluster, packed (QEMU: BDRV_REQ_WRITE_COMPRESSED). @throws BlockError ENOTSUP */
export async function writeCompressed(
  node: BlockNode,
  buf: Uint8Array,
  offset: number,
): Promise<void> {
  checkWritable(node, offset, buf.length);
  const { state } = node;
  if (!state.pwriteCompressed) {
    throw new BlockError("ENOTSUP", `Node '${node.name}' cannot hold compressed clusters`);
  }
  const pwriteCompressed = state.pwriteCompressed.bind(state);
  return changing(node, offset, buf.length, {}, () => pwriteCompressed(buf, offset));
}

/**
 * Writes what shows through from below into this layer, in whole clusters. What the disk reads as
 * does not change, so it may be done at any time, and stopped at any time.
 */
export async function copyUp(
  node: BlockNode,
  offset: number,
  bytes: number,
  options: RequestOptions,
): Promise<void> {
  if (bytes === 0) return;
  checkWritable(node, offset, bytes);
  if (node.driver.kind === "filter") return copyUp(fileOf(node).node, offset, bytes, options);
  return changing(node, offset, bytes, options, () =>
    copyUpLocked(node, offset, bytes, options, null),
  );
}

/**
 * @param into where the caller wants to have what was read at `offset`, if it does
 *
 * The caller holds the clusters of the range alone, so no write of a guest can come between the
 * read from below and the write: it would be lost.
 */
async function copyUpLocked(
  node: BlockNode,
  offset: number,
  bytes: number,
  options: RequestOptions,
  into: Uint8Array | null,
): Promise<void> {
  const granule = Math.max(1, node.state.limits.clusterSize);
  const end = Math.min(alignUp(offset + bytes, granule), getLength(node));
  const down = passDown(options);
  for (let at = alignDown(offset, granule); at < end; ) {
    const mapping = await mapOf(node, at, end - at, options);
    let bytesDone = mapping.bytes;
    if (mapping.kind === "unallocated" && node.children.has("backing")) {
      bytesDone = await copyRun(node, at, mapping.bytes, { ...down, unchanged: true });
    }
    at += bytesDone;
  }
  // Read back rather than cut out of the pieces: only guests come this way, with small requests.
  if (into) await readLocked(node, into, offset, down);
}

/** Copies the beginning of a run that shows through from below. @returns how much of it, > 0 */
async function copyRun(
  node: BlockNode,
  offset: number,
  bytes: number,
  options: RequestOptions,
): Promise<number> {
  const granule = Math.max(1, node.state.limits.clusterSize);
  const backing = childOf(node, "backing");
  const below = await chainStatus(backing.node, null, offset, bytes);
  if (below.zero) {
    // Whole clusters of this layer only: the run below may end within one.
    const zeroes = below.bytes === bytes ? bytes : alignDown(below.bytes, granule);
    if (zeroes > 0) await writeZeroesLocked(node, offset, zeroes, options);
    if (zeroes > 0) return zeroes;
  }
  const most = Math.max(COPY_BYTES, granule);
  const piece = Math.min(bytes, most, alignUp(below.bytes, granule));
  await copyPiece(node, backing, offset, piece, options);
  return piece;
}

async function copyPiece(
  node: BlockNode,
  backing: BlockChild,
  offset: number,
  bytes: number,
  options: RequestOptions,
): Promise<void> {
  await withBuffer(node, bytes, async (buf) => {
    await placed({ node: backing.node.name, op: "read", offset, bytes }, () =>
      backing.read(buf, offset, passDown(options)),
    );
    await placed({ node: node.name, op: "write", offset, bytes }, () =>
      writeSplit(node, buf, offset, options),
    );
  });
}

/** Errors of `work` say where they happened: a job's policy and its event need to know. */
async function placed(place: ErrorPlace, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof BlockError) || error.at) throw error;
    throw new BlockError(error.errno, error.message, {
      class: error.class,
      at: place,
      cause: error,
    });
  }
}

/** Writes a buffer so that clusters of zeroes take no room. */
async function writeSplit(
  node: BlockNode,
  buf: Uint8Array,
  offset: number,
  options: RequestOptions,
): Promise<void> {
  const granule = Math.max(512, node.state.limits.clusterSize);
  for (let done = 0; done < buf.length; ) {
    const { bytes, zero } = node.world.kernel.zeroRun(buf.subarray(done), granule);
    if (zero) await writeZeroesLocked(node, offset + done, bytes, options);
    else await writeLocked(node, buf.subarray(done, done + bytes), offset + done, options);
    done += bytes;
  }
}

/**
 * Where the run at `offset` comes from, in this layer alone (see status.ts for whole chains).
 *
 * @param bytes > 0, within the node's length
 */
export async function blockStatus(
  node: BlockNode,
  offset: number,
  bytes: number,
): Promise<BlockStatus> {
  if (node.driver.kind === "filter") return blockStatus(fileOf(node).node, offset, bytes);
  return tracked(node, offset, bytes, false, {}, async () => {
    const { state } = node;
    if (!state.map) {
      const run = (await state.storeStatus?.(offset, bytes)) ?? { bytes, zero: false };
      return { bytes: run.bytes, allocated: true, zero: run.zero, offset };
    }
    const mapping = await state.map(offset, bytes, {});
    switch (mapping.kind) {
      case "unallocated":
        return { bytes: mapping.bytes, allocated: false, zero: !node.children.has("backing") };
      case "zero":
        return {
          bytes: mapping.bytes,
          allocated: true,
          zero: true,
          ...(mapping.offset !== undefined && { offset: mapping.offset }),
        };
      case "encoded":
        return { bytes: mapping.bytes, allocated: true, zero: false };
      case "data": {
        // A raw image is as sparse as the store it lies in.
        const below = await childOf(node, mapping.role).status(mapping.offset, mapping.bytes);
        return {
          bytes: below.bytes,
          allocated: true,
          zero: below.zero,
          offset: mapping.offset,
        };
      }
    }
  });
}

/** Makes the disk or store `length` bytes long. @throws BlockError ENOTSUP if it cannot */
export async function truncate(node: BlockNode, length: number): Promise<void> {
  if (node.readOnly) throw readOnlyError(node);
  const { state } = node;
  if (node.driver.kind === "filter" && !state.truncate) {
    return truncate(fileOf(node).node, length);
  }
  if (!state.truncate) {
    throw new BlockError("ENOTSUP", `Driver '${node.driver.name}' cannot change an image's size`);
  }
  const change = state.truncate.bind(state);
  return tracked(node, 0, Number.POSITIVE_INFINITY, true, {}, () => change(length));
}

export async function flush(node: BlockNode): Promise<void> {
  const { state } = node;
  if (state.flush) {
    node.enter();
    try {
      return await state.flush();
    } finally {
      node.leave();
    }
  }
  if (node.driver.kind === "filter") return flush(fileOf(node).node);
}

async function mapOf(
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

function childOf(node: BlockNode, role: "file" | "data-file" | "backing"): BlockChild {
  const child = node.children.get(role);
  assert(child !== undefined, `node '${node.name}' has a ${role} child`);
  return child;
}

/** What a request to one node means for its children: only that it can be called off. */
function passDown(options: RequestOptions): RequestOptions {
  return options.signal ? { signal: options.signal } : NO_OPTIONS;
}
const NO_OPTIONS: RequestOptions = {};

/** The part of a range that is made of whole clusters; the end of the disk counts as a boundary. */
function wholeClusters(
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
function changing<T>(
  node: BlockNode,
  offset: number,
  bytes: number,
  options: RequestOptions,
  work: () => Promise<T>,
): Promise<T> {
  const { clusterSize, requestAlignment } = node.state.limits;
  const alone = node.state.allocate !== undefined || requestAlignment > 1;
  const granule = Math.max(clusterSize, requestAlignment);
  const start = alignDown(offset, granule || 1);
  const end = alignUp(offset + bytes, granule || 1);
  return tracked(node, start, end - start, alone, options, work);
}

async function tracked<T>(
  node: BlockNode,
  offset: number,
  bytes: number,
  exclusive: boolean,
  options: RequestOptions,
  work: () => Promise<T>,
): Promise<T> {
  node.enter();
  try {
    const range = await node.ranges.acquire(offset, bytes, exclusive, options.signal);
    try {
      return await work();
    } finally {
      node.ranges.release(range);
    }
  } finally {
    node.leave();
  }
}

/** Lends a buffer, inside wasm memory while there is room, so that kernels need no copy of it. */
async function withBuffer<T>(
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

function checkWritable(node: BlockNode, offset: number, bytes: number): void {
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

function readOnlyError(node: BlockNode): BlockError {
  return new BlockError("EROFS", `Node '${node.name}' is read-only`);
}
