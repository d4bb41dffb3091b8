/**
 * What `convert` reads from: one disk, or several as if they were one.
 *
 *     a, 1.2 sectors      b, 3 sectors
 *     │▒▒▒▒▒▒▒│▒······│   │▒▒▒▒▒▒▒│▒▒▒▒▒▒▒│▒▒▒▒▒▒▒│     each begins at a whole sector; what is missing of
 *     0               1024                        2560   its last one reads as zeroes
 *
 * As convert_iteration_sectors() of QEMU's qemu-img.c a run is only ever of one disk.
 */

import { alignUp, SECTOR_BYTES } from "../base/bytes.ts";
import { assert } from "../base/errors.ts";
import type { BlockBackend } from "../block/backend.ts";
import type { BlockNode } from "../block/node.ts";
import { backingOf, chainStatus, skipFilters } from "../block/status.ts";

/** What is known of a run before it is read. */
export interface SourceRun {
  readonly bytes: number;
  /** `inherited`: it comes from the disk's backing file, and was asked to be told apart. */
  readonly kind: "zero" | "data" | "inherited";
}

interface Part {
  readonly backend: BlockBackend;
  /** Of all disks together. */
  readonly start: number;
  /** Whole sectors. */
  readonly bytes: number;
  /** Runs end at multiples of this, if they can, so that no cluster is unpacked twice. */
  readonly granule: number;
}

export class Sources {
  readonly length: number;
  readonly #parts: readonly Part[];

  constructor(backends: readonly BlockBackend[]) {
    let start = 0;
    const parts: Part[] = [];
    for (const backend of backends) {
      const bytes = alignUp(backend.length, SECTOR_BYTES);
      const { clusterSize, requestAlignment } = skipFilters(backend.node).state.limits;
      const granule = Math.max(SECTOR_BYTES, clusterSize, requestAlignment);
      parts.push({ backend, start, bytes, granule });
      start += bytes;
    }
    this.#parts = parts;
    this.length = start;
  }

  /**
   * The run at `offset`.
   *
   * @param bytes > 0, within the length
   * @param tellsInherited runs of the first disk's backing file are told apart from its own
   * @throws BlockError what asking throws
   */
  async run(offset: number, bytes: number, tellsInherited: boolean): Promise<SourceRun> {
    const part = this.#partAt(offset);
    const at = offset - part.start;
    const most = Math.min(bytes, part.bytes - at);
    const { length } = part.backend;
    // The rest of a last sector: read along with what is there of it.
    if (at >= length) return { bytes: most, kind: "zero" };
    const { node } = part.backend;
    const below = tellsInherited ? backingOf(node) : null;
    const run = await statusAbove(node, below, at, Math.min(most, length - at));
    // Of the last sector there may be less than all.
    let found = at + run.bytes >= length ? most : alignUp(run.bytes, SECTOR_BYTES);
    const tail = (at + found) % part.granule;
    if (found > tail) found -= tail;
    return { bytes: Math.min(found, most), kind: run.kind };
  }

  /** Fills the buffer, which does not reach from one disk into the next. */
  async read(buf: Uint8Array, offset: number, signal?: AbortSignal): Promise<void> {
    for (let done = 0; done < buf.length; ) {
      const part = this.#partAt(offset + done);
      const at = offset + done - part.start;
      const most = Math.min(buf.length - done, part.bytes - at);
      const there = Math.max(0, Math.min(most, part.backend.length - at));
      const piece = buf.subarray(done, done + most);
      piece.fill(0, there);
      if (there > 0) {
        await part.backend.read(piece.subarray(0, there), at, signal ? { signal } : {});
      }
      done += most;
    }
  }

  #partAt(offset: number): Part {
    const part = this.#parts.find(({ start, bytes }) => offset >= start && offset < start + bytes);
    assert(part, "a run begins within the disks");
    return part;
  }
}

async function statusAbove(
  node: BlockNode,
  base: BlockNode | null,
  offset: number,
  bytes: number,
): Promise<SourceRun> {
  const { bytes: run, node: decides, zero } = await chainStatus(node, base, offset, bytes);
  if (zero) return { bytes: run, kind: "zero" };
  return { bytes: run, kind: decides === null && base !== null ? "inherited" : "data" };
}
