/** The bits of one dirty bitmap: from the image's clusters into memory, and back. */

import { writeU64 } from "../../../base/bytes.ts";
import { assert } from "../../../base/errors.ts";
import type { DirtyBitmap } from "../../../block/dirty-bitmap.ts";
import {
  type DirectoryEntry,
  invalid,
  type TableEntry,
  tableEntries,
  tableEntriesFor,
} from "./bitmap-directory.ts";
import type { Image } from "./image.ts";
import type { HostRun } from "./refcount.ts";

/** Bytes of a table that are written in one piece. */
const PIECE_BYTES = 64 * 1024;
/** Most clusters of bits that are handed out in one step. */
const RUN_CLUSTERS = 256;

/**
 * Fills an empty bitmap of the disk's size.
 *
 * @throws BlockError EINVAL if the table is not one, and what reading throws
 */
export async function loadBits(
  image: Image,
  entry: DirectoryEntry,
  into: DirtyBitmap,
): Promise<void> {
  const { clusterBytes } = image.layout;
  const buf = new Uint8Array(clusterBytes);
  for await (const { place, start, count } of chunks(image, entry, into)) {
    const { bits } = into;
    if (place.kind === "invalid") {
      throw invalid(`bitmap '${entry.name}' has a wrong entry in its table`);
    }
    if (place.kind === "set") bits.set(start, count);
    if (place.kind !== "data") continue;
    await image.file.read(buf, place.offset);
    assert(into.bits === bits, "nobody uses a bitmap that is being loaded");
    bits.deserialize(start, buf);
  }
}

/** Whether the image has these bits already. */
export async function isSameAsStored(
  image: Image,
  entry: DirectoryEntry,
  bitmap: DirtyBitmap,
): Promise<boolean> {
  const { clusterBytes } = image.layout;
  const [stored, wanted] = [new Uint8Array(clusterBytes), new Uint8Array(clusterBytes)];
  for await (const { place, start, count } of chunks(image, entry, bitmap)) {
    if (place.kind === "invalid") return false;
    if (place.kind !== "data") {
      if (bitmap.bits.kindOf(start, count) !== place.kind) return false;
      continue;
    }
    await image.file.read(stored, place.offset);
    bitmap.bits.serialize(start, wanted);
    // What is past the end means nothing.
    const used = Math.ceil(count / 8);
    if (!isSame(stored, wanted, used)) return false;
  }
  return true;
}

function isSame(a: Uint8Array, b: Uint8Array, bytes: number): boolean {
  for (let i = 0; i < bytes; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** What each cluster of bits is in the image's table; `start` and `count` are bits. */
async function* chunks(
  image: Image,
  entry: DirectoryEntry,
  bitmap: DirtyBitmap,
): AsyncGenerator<{ place: TableEntry; start: number; count: number }> {
  const chunkBits = image.layout.clusterBytes * 8;
  let start = 0;
  for await (const place of tableEntries(image, entry)) {
    const count = Math.min(chunkBits, bitmap.bits.size - start);
    if (count <= 0) return;
    yield { place, start, count };
    start += count;
  }
}

/**
 * Writes bits and their table to new clusters, which nothing leads to yet. Caller holds the mutex.
 *
 * @param held what was handed out is added, also before a failure
 */
export async function writeBits(
  image: Image,
  bitmap: DirtyBitmap,
  held: HostRun[],
): Promise<{ readonly offset: number; readonly entries: number }> {
  const { layout, refcounts, epoch, pages, file } = image;
  const { clusterBytes } = layout;
  const entries = tableEntriesFor(layout, bitmap.size, bitmap.granularity);
  const count = Math.ceil((entries * 8) / clusterBytes);
  await epoch.makeRoom();
  const offset = await refcounts.allocateRegion(count);
  held.push({ offset, count });
  pages.drop(offset, count * clusterBytes);
  const supply = new Supply(image, held, countClusters(bitmap, layout.clusterBytes * 8));
  const buf = new Uint8Array(clusterBytes);
  const whole = count * clusterBytes;
  const piece = new Uint8Array(Math.min(PIECE_BYTES, whole));
  for (let at = 0; at < whole; at += piece.length) {
    const part = piece.subarray(0, Math.min(piece.length, whole - at)).fill(0);
    for (let i = 0; i < part.length && (at + i) / 8 < entries; i += 8) {
      const start = ((at + i) / 8) * clusterBytes * 8;
      writeU64(part, i, await writeChunk(image, bitmap, start, supply, buf));
    }
    await file.write(part, offset + at);
  }
  return { offset, entries };
}

/** @returns the table's entry */
async function writeChunk(
  image: Image,
  { bits }: DirtyBitmap,
  start: number,
  supply: Supply,
  buf: Uint8Array,
): Promise<number> {
  const count = Math.min(buf.length * 8, bits.size - start);
  const kind = count > 0 ? bits.kindOf(start, count) : "clear";
  if (kind === "clear") return 0;
  // Not for a last part: QEMU would take the bits past the end for set as well.
  if (kind === "set" && count === buf.length * 8) return 1;
  const offset = await supply.take();
  bits.serialize(start, buf);
  await image.file.write(buf, offset);
  return offset;
}

/** Clusters of bits that writeChunk() takes. */
function countClusters({ bits }: DirtyBitmap, chunkBits: number): number {
  let clusters = 0;
  for (let start = 0; start < bits.size; start += chunkBits) {
    const count = Math.min(chunkBits, bits.size - start);
    const kind = bits.kindOf(start, count);
    if (kind === "mixed" || (kind === "set" && count < chunkBits)) clusters++;
  }
  return clusters;
}

/** Hands out clusters one by one, and takes them from the image in runs. */
class Supply {
  readonly #image: Image;
  readonly #held: HostRun[];
  #wanted: number;
  #next = 0;
  #left = 0;

  constructor(image: Image, held: HostRun[], wanted: number) {
    this.#image = image;
    this.#held = held;
    this.#wanted = wanted;
  }

  async take(): Promise<number> {
    const { refcounts, epoch, pages, layout } = this.#image;
    if (this.#left === 0) {
      assert(this.#wanted > 0, "no more clusters are taken than were counted");
      await epoch.makeRoom();
      const run = await refcounts.allocate(Math.min(this.#wanted, RUN_CLUSTERS));
      this.#held.push(run);
      pages.drop(run.offset, run.count * layout.clusterBytes);
      this.#next = run.offset;
      this.#left = run.count;
      this.#wanted -= run.count;
    }
    const offset = this.#next;
    this.#next += layout.clusterBytes;
    this.#left--;
    return offset;
  }
}
