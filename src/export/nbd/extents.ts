/** What a metadata context says of a range: runs with one answer each, neighbours put together. */

import type { Clock } from "../../base/clock.ts";
import { TimeSlice } from "../../base/time-slice.ts";
import type { BlockBackend } from "../../block/backend.ts";
import type { DirtyBitmap } from "../../block/dirty-bitmap.ts";
import { Allocation, Dirtiness } from "./protocol.ts";

export interface Extent {
  readonly bytes: number;
  readonly flags: number;
}

/** Most extents that a client gets at a time: a mebibyte of them without extended headers. */
const EXTENTS_MAX = 131_072;
const NARROW_BYTES_MAX = 2 ** 32 - 1;
/** Bitmaps are told in runs of at most this, as QEMU tells them where lengths have 32 bits. */
const NARROW_RUN_BYTES = 2 ** 31 - 1;
export interface ExtentsRequest {
  readonly offset: number;
  readonly bytes: number;
  /** The first run is enough. */
  readonly isOne: boolean;
  /** Lengths have 64 bits. */
  readonly isWide: boolean;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

class ExtentList {
  readonly extents: { bytes: number; flags: number }[] = [];
  readonly #most: number;
  readonly #bytesMax: number;

  constructor({ isOne, isWide }: ExtentsRequest) {
    this.#most = isOne ? 1 : EXTENTS_MAX;
    this.#bytesMax = isWide ? Number.MAX_SAFE_INTEGER : NARROW_BYTES_MAX;
  }

  /** @returns false if there is no room for it */
  add(bytes: number, flags: number): boolean {
    if (bytes === 0) return true;
    const last = this.extents.at(-1);
    if (last?.flags === flags && last.bytes + bytes <= this.#bytesMax) {
      last.bytes += bytes;
      return true;
    }
    if (this.extents.length === this.#most) return false;
    this.extents.push({ bytes, flags });
    return true;
  }
}

/** base:allocation. @throws BlockError what the disk says */
export function allocationExtents(
  backend: BlockBackend,
  request: ExtentsRequest,
): Promise<readonly Extent[]> {
  return collect(request, async (offset, bytes) => {
    const run = await backend.status(offset, bytes, request);
    return { bytes: run.bytes, flags: run.zero ? Allocation.hole | Allocation.zero : 0 };
  });
}

/** qemu:allocation-depth. @throws BlockError what the disk says */
export function depthExtents(
  backend: BlockBackend,
  request: ExtentsRequest,
): Promise<readonly Extent[]> {
  return collect(request, async (offset, bytes) => {
    const run = await backend.depth(offset, bytes, request);
    return { bytes: run.bytes, flags: run.depth };
  });
}

async function collect(
  request: ExtentsRequest,
  next: (offset: number, bytes: number) => Promise<Extent>,
): Promise<readonly Extent[]> {
  const { clock, signal } = request;
  const list = new ExtentList(request);
  const end = request.offset + request.bytes;
  const slice = new TimeSlice(clock, signal);
  for (let at = request.offset; at < end; ) {
    const { bytes, flags } = await next(at, end - at);
    if (!list.add(bytes, flags)) break;
    at += bytes;
    if (slice.isOver) await slice.rest();
  }
  return list.extents;
}

/** qemu:dirty-bitmap:NAME. */
export function bitmapExtents(bitmap: DirtyBitmap, request: ExtentsRequest): readonly Extent[] {
  const list = new ExtentList(request);
  const most = request.isWide ? Number.MAX_SAFE_INTEGER : NARROW_RUN_BYTES;
  const end = request.offset + request.bytes;
  let at = request.offset;
  for (;;) {
    const area = bitmap.nextDirtyArea(at, end, most);
    if (!area) break;
    const hasRoom = list.add(area.offset - at, 0) && list.add(area.bytes, Dirtiness.dirty);
    if (!hasRoom) return list.extents;
    at = area.offset + area.bytes;
  }
  list.add(end - at, 0);
  return list.extents;
}
