/**
 * Reads and writes of one layer, for requests that hold their range already: io.ts takes it, and
 * copy-up.ts reads and writes under one and the same hold.
 */

import { alignDown, alignUp, KiB } from "../base/bytes.ts";
import { assert } from "../base/errors.ts";
import { settleAll } from "../base/settle.ts";
import type { BlockChild } from "./child.ts";
import type { DebugEvent } from "./debug.ts";
import type { Allocation, BlockState, Mapping, RequestOptions } from "./driver.ts";
import { CIPHER_SECTOR_BYTES, isWholeSectors, readData, writeData, writeOwn } from "./encrypted.ts";
import type { BlockNode } from "./node.ts";
import { COPY_BYTES, childOf, getLength, mapOf, passDown, withBuffer } from "./request.ts";

/** Most runs of one request that are fetched at the same time. */
const PARALLEL_RUNS = 16;
/** Up to here head, data and tail of a write go out as one write. */
const MERGE_BYTES = 128 * KiB;

/** The caller holds the range, or a wider one. */
export async function readLocked(
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
  const stop = tellOfRead(node, mapping, options);
  if (stop) await stop;
  switch (mapping.kind) {
    case "data":
      return readData(node, mapping, piece, passDown(options));
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

/** Breakpoints are on the file, wherever the data is. */
function tellOfRead(
  node: BlockNode,
  mapping: Mapping,
  options: RequestOptions,
): Promise<void> | null {
  const file = node.children.get("file");
  if (!file || mapping.kind === "zero") return null;
  if (mapping.kind === "data") return file.debugEvent("read_aio", options);
  if (mapping.kind === "encoded") return file.debugEvent("read_compressed", options);
  return node.children.has("backing") ? file.debugEvent("read_backing_aio", options) : null;
}

/** For a write, its data ("write_aio") and what its new clusters take over ("cow_…"). */
function tellOfWrite(
  node: BlockNode,
  event: DebugEvent,
  options: RequestOptions,
): Promise<void> | null {
  return node.children.get("file")?.debugEvent(event, options) ?? null;
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

/** The caller holds the clusters of the range alone. */
export async function writeLocked(
  node: BlockNode,
  buf: Uint8Array,
  offset: number,
  options: RequestOptions,
): Promise<void> {
  const { state } = node;
  if (state.pwrite) return writeAligned(state, buf, offset, options);
  if (state.cipher && !isWholeSectors(buf, offset)) {
    return withWholeSectors(node, buf, offset, options);
  }
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
  if (headBytes === 0 && tailBytes === 0) {
    const stop = tellOfWrite(node, "write_aio", down);
    if (stop) await stop;
    return writeData(node, child, data, room.offset, down);
  }

  const whole = headBytes + data.length + tailBytes;
  if (whole <= MERGE_BYTES) {
    return withBuffer(node, whole, async (bounce) => {
      const tail = headBytes + data.length;
      await tellOfWrite(node, "cow_read", down);
      await readLocked(node, bounce.subarray(0, headBytes), offset - headBytes, down);
      await readLocked(node, bounce.subarray(tail), offset + data.length, down);
      bounce.set(data, headBytes);
      await tellOfWrite(node, "write_aio", down);
      await tellOfWrite(node, "cow_write", down);
      await writeOwn(node, child, bounce, room.offset - headBytes, down);
    });
  }
  await takeOver(node, offset - headBytes, headBytes, child, room.offset - headBytes, down);
  await tellOfWrite(node, "write_aio", down);
  await writeData(node, child, data, room.offset, down);
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
      await tellOfWrite(node, "cow_read", options);
      await readLocked(node, buf, offset + done, options);
      await tellOfWrite(node, "cow_write", options);
      await writeOwn(node, target, buf, targetOffset + done, options);
    });
    done += piece;
  }
}

/** Half-written sectors of an encrypted disk: with the rest of them, as it reads now. */
async function withWholeSectors(
  node: BlockNode,
  buf: Uint8Array,
  offset: number,
  options: RequestOptions,
): Promise<void> {
  const start = alignDown(offset, CIPHER_SECTOR_BYTES);
  const end = alignUp(offset + buf.length, CIPHER_SECTOR_BYTES);
  const down = passDown(options);
  const whole = new Uint8Array(end - start);
  const tail = whole.length - CIPHER_SECTOR_BYTES;
  await readLocked(node, whole.subarray(0, CIPHER_SECTOR_BYTES), start, down);
  if (tail > 0) await readLocked(node, whole.subarray(tail), start + tail, down);
  whole.set(buf, offset - start);
  return writeLocked(node, whole, start, options);
}

async function writeAligned(
  state: BlockState,
  buf: Uint8Array,
  offset: number,
  options: RequestOptions,
): Promise<void> {
  assert(state.pwrite && state.pread && state.getLength, "a writable store can be read as well");
  const granule = state.limits.requestAlignment;
  const length = state.getLength();
  const start = alignDown(offset, granule);
  // The disk's end counts as aligned: nothing is written behind it that was not asked for.
  const asked = offset + buf.length;
  const end = Math.min(alignUp(asked, granule), Math.max(length, asked));
  if (start === offset && end === asked) return state.pwrite(buf, offset, options);
  const isHeadWhole = start === offset;
  const isTailWhole = end === asked;
  const bounce = new Uint8Array(end - start);
  const readable = Math.min(bounce.length, Math.max(0, length - start));
  if (!isHeadWhole) await state.debug?.event("pwritev_rmw_head", options.signal);
  if (!isTailWhole) await state.debug?.event("pwritev_rmw_tail", options.signal);
  if (readable > 0) await state.pread(bounce.subarray(0, readable), start, options);
  if (!isHeadWhole) await state.debug?.event("pwritev_rmw_after_head", options.signal);
  if (!isTailWhole) await state.debug?.event("pwritev_rmw_after_tail", options.signal);
  bounce.set(buf, offset - start);
  await state.pwrite(bounce, start, options);
}
