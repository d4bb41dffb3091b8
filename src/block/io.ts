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

import { assert, BlockError } from "../base/errors.ts";
import { bitmapsResized } from "./bitmap-intent.ts";
import { copyUpLocked } from "./copy-up.ts";
import type { RequestOptions, TruncateOptions } from "./driver.ts";
import { readLocked, writeLocked } from "./locked.ts";
import { writeZeroBuffers, writeZeroesLocked } from "./locked-zeroes.ts";
import { BlockNode } from "./node.ts";
import {
  changing,
  checkWritable,
  childOf,
  counted,
  fileOf,
  getLength,
  readOnlyError,
  recorded,
  SHARED,
  tracked,
  wholeClusters,
  writing,
} from "./request.ts";
import type { BlockStatus } from "./status.ts";

export { fileOf, getLength };

export async function read(
  node: BlockNode,
  buf: Uint8Array,
  offset: number,
  options: RequestOptions,
): Promise<void> {
  if (buf.length === 0) return;
  const { state } = node;
  if (node.driver.kind === "filter" && !state.pread) {
    return counted(node, buf.length, "rd", () => read(fileOf(node).node, buf, offset, options));
  }
  if (options.copyOnRead && state.allocate && !node.readOnly) {
    return changing(node, offset, buf.length, options, "rd", () =>
      copyUpLocked(node, offset, buf.length, options, buf),
    );
  }
  return tracked(node, offset, buf.length, SHARED, options, "rd", () =>
    readLocked(node, buf, offset, options),
  );
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
  if (
    node.settings.detectZeroes !== "off" &&
    hasZeroWrites(node) &&
    node.world.kernel.isZero(buf)
  ) {
    const mayUnmap = node.settings.detectZeroes === "unmap";
    return writeZeroes(node, offset, buf.length, { ...options, mayUnmap });
  }
  if (node.driver.kind === "filter" && !state.pwrite) {
    const below = () => write(fileOf(node).node, buf, offset, options);
    return recorded(node, offset, buf.length, options, "wr", below);
  }
  return writing(node, offset, buf.length, options, "wr", () =>
    writeLocked(node, buf, offset, options),
  );
}

/** A filter that leaves writes alone leaves zero writes alone, too. */
function hasZeroWrites({ driver, state }: BlockNode): boolean {
  return state.pwriteZeroes !== undefined || (driver.kind === "filter" && !state.pwrite);
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
    const below = () => writeZeroes(fileOf(node).node, offset, bytes, options);
    return recorded(node, offset, bytes, options, "wr", below);
  }
  const allowed = node.settings.discard === "ignore" ? { ...options, mayUnmap: false } : options;
  return writing(node, offset, bytes, options, "wr", () =>
    writeZeroesLocked(node, offset, bytes, allowed),
  );
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
  if (node.settings.discard === "ignore") return;
  const { state } = node;
  if (node.driver.kind === "filter" && !state.pdiscard) {
    const below = () => discard(fileOf(node).node, offset, bytes, options);
    return recorded(node, offset, bytes, options, "unmap", below);
  }
  const { body, bodyBytes } = wholeClusters(node, offset, bytes);
  if (!state.pdiscard || bodyBytes === 0) return;
  const pdiscard = state.pdiscard.bind(state);
  return writing(node, body, bodyBytes, options, "unmap", () => pdiscard(body, bodyBytes, options));
}

/** True if writeCompressed() has a way. */
export function canWriteCompressed(node: BlockNode): boolean {
  const { driver, state } = node;
  if (state.pwriteCompressed) return true;
  return driver.kind === "filter" && !state.pwrite && canWriteCompressed(fileOf(node).node);
}

/** One whole cluster, packed (QEMU: BDRV_REQ_WRITE_COMPRESSED). @throws BlockError ENOTSUP */
export async function writeCompressed(
  node: BlockNode,
  buf: Uint8Array,
  offset: number,
): Promise<void> {
  if (buf.length === 0) return;
  checkWritable(node, offset, buf.length);
  const { state } = node;
  if (node.driver.kind === "filter" && !state.pwriteCompressed && !state.pwrite) {
    const below = () => writeCompressed(fileOf(node).node, buf, offset);
    return recorded(node, offset, buf.length, {}, "wr", below);
  }
  if (!state.pwriteCompressed) {
    throw new BlockError("ENOTSUP", `Node '${node.name}' cannot hold compressed clusters`);
  }
  const pwriteCompressed = state.pwriteCompressed.bind(state);
  return writing(node, offset, buf.length, {}, "wr", () => pwriteCompressed(buf, offset));
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
  return changing(node, offset, bytes, options, null, () =>
    copyUpLocked(node, offset, bytes, options, null),
  );
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
  if (node.driver.kind === "filter") {
    await node.state.checkStatus?.(offset, bytes);
    return blockStatus(fileOf(node).node, offset, bytes);
  }
  return tracked(node, offset, bytes, SHARED, {}, null, async () => {
    const { state } = node;
    if (!state.map) {
      const run = (await state.storeStatus?.(offset, bytes)) ?? { bytes, zero: false };
      const { zero } = run;
      const place = { data: !zero, compressed: false, offset, file: node };
      return { bytes: run.bytes, allocated: true, zero, ...place };
    }
    const mapping = await state.map(offset, bytes, {});
    const { kind } = mapping;
    const compressed = kind === "encoded";
    if (kind === "data") {
      // What is there is not what is read; nor do holes decrypt to zeroes.
      if (state.cipher) {
        return { bytes: mapping.bytes, allocated: true, zero: false, data: true, compressed };
      }
      // A raw image is as sparse as the store it lies in; a cluster is there, whatever it reads as.
      const file = childOf(node, mapping.role).node;
      const below = await childOf(node, mapping.role).status(mapping.offset, mapping.bytes);
      const data = below.data || state.limits.clusterSize > 0;
      const place = { data, compressed, offset: mapping.offset, file };
      return { bytes: below.bytes, allocated: true, zero: below.zero, ...place };
    }
    const allocated = kind !== "unallocated";
    const zero = kind === "zero" || (!allocated && !node.children.has("backing"));
    const run = { bytes: mapping.bytes, allocated, zero, data: compressed, compressed };
    if (kind === "encoded" || mapping.offset === undefined || state.cipher) return run;
    return { ...run, offset: mapping.offset };
  });
}

/**
 * Makes the disk or store `length` bytes long.
 *
 * @throws BlockError ENOTSUP if it cannot; EINVAL for preallocation of a disk that does not grow
 */
export async function truncate(
  node: BlockNode,
  length: number,
  options: TruncateOptions = {},
): Promise<void> {
  if (node.readOnly) throw readOnlyError(node);
  const { state } = node;
  if (node.driver.kind === "filter" && !state.truncate) {
    return truncate(fileOf(node).node, length, options);
  }
  if (!state.truncate) {
    throw new BlockError("ENOTSUP", `Driver '${node.driver.name}' cannot change an image's size`);
  }
  const { gate } = node;
  const toLength = state.truncate.bind(state);
  const change = (bytes: number, manners: TruncateOptions) => {
    const work = () => toLength(bytes, manners);
    return gate ? gate.pass(0, 0, work, manners.signal) : work();
  };
  return tracked(
    node,
    0,
    Number.POSITIVE_INFINITY,
    { granule: 1, alone: true },
    options.signal ? { signal: options.signal } : {},
    null,
    () => {
      const { preallocation = "off" } = options;
      if (preallocation === "off") return change(length, options);
      if (length < getLength(node)) {
        throw new BlockError("EINVAL", "Preallocation is only for disks that grow");
      }
      if (node.driver.kind !== "protocol") return change(length, options);
      return growStore(node, length, options);
    },
    () => resized(node),
  );
}

/** Stores set room aside by zeroes that are written out: none of them has another way. */
async function growStore(
  node: BlockNode,
  length: number,
  { preallocation, signal }: TruncateOptions,
): Promise<void> {
  const { state } = node;
  assert(state.truncate, "the caller has asked");
  if (preallocation === "metadata") {
    throw new BlockError("ENOTSUP", "A store has no metadata that could be preallocated");
  }
  const before = getLength(node);
  await state.truncate(length, {});
  try {
    await writeZeroBuffers(node, before, length - before, signal ? { signal } : {});
  } catch (error) {
    await state.truncate(before, {});
    throw error;
  }
}

/** Bitmaps are as long as their disk: of this node, and of those that have their length from it. */
export function resized(node: BlockNode): void {
  if (!node.isOpen) return;
  bitmapsResized(node, node.bitmaps.resized(getLength(node)));
  for (const { parent } of node.parents) if (parent instanceof BlockNode) resized(parent);
}

export async function flush(node: BlockNode): Promise<void> {
  const { state } = node;
  if (node.settings.noFlush && node.driver.kind === "protocol") return;
  const below = () => fileOf(node).flush();
  if (!state.flush) {
    if (node.driver.kind === "filter") await counted(node, 0, "flush", below);
    return;
  }
  const flushState = state.flush.bind(state);
  node.enter();
  try {
    await counted(node, 0, "flush", async () => {
      await node.children.get("file")?.debugEvent("flush_to_os");
      await flushState();
    });
  } finally {
    node.leave();
  }
}
