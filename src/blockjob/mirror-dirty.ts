/**
 * What of the source is not yet in the target: the job's own dirty bitmap, and the target's clusters
 * that have to be copied as a whole the first time.
 *
 * A target may name a backing file that is not open: a cluster of which the job wrote only a part
 * would get its rest from nowhere, and hide the backing file's bytes once that is there again. So
 * the first write into a cluster makes all of it dirty.
 *
 *     dirty     ..#.............      a granule is to be copied
 *     cluster   |-------|-------      it is the first of its cluster:
 *     dirty     ########........      then all are (QEMU: cow_bitmap in block/mirror.c)
 */

import { alignDown, alignUp } from "../base/bytes.ts";
import type { DirtyBitmap } from "../block/dirty-bitmap.ts";
import { HBitmap } from "../kernel/hbitmap.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { CopyTask } from "./copy-window.ts";

export class MirrorDirty {
  /** Recording writes to the source since before the job began. */
  readonly bitmap: DirtyBitmap;
  /** Bytes of the disk. */
  readonly length: number;
  readonly #clusterBytes: number;
  /** One bit for each cluster that has been written to; null: clusters need no such care. */
  readonly #touched: HBitmap | null;

  /** @param wholeClusters cluster size if they are to be copied as a whole, else 0 */
  constructor(bitmap: DirtyBitmap, length: number, wholeClusters: number, kernel: Kernel) {
    this.bitmap = bitmap;
    this.length = length;
    this.#clusterBytes = wholeClusters;
    this.#touched =
      wholeClusters > bitmap.granularity
        ? new HBitmap(kernel, Math.ceil(length / wholeClusters))
        : null;
  }

  get granularity(): number {
    return this.bitmap.granularity;
  }

  /** Dirty bytes; unlike the bitmap's own count none of them is past the end. */
  get bytes(): number {
    const { bitmap, length, granularity } = this;
    const beyond = alignUp(length, granularity) - length;
    return bitmap.count - (beyond > 0 && bitmap.isDirty(length - 1) ? beyond : 0);
  }

  get isClean(): boolean {
    return this.bitmap.count === 0;
  }

  set(offset: number, bytes: number): void {
    this.bitmap.set(offset, bytes);
  }

  setAll(): void {
    this.bitmap.setAll();
  }

  /**
   * Clears what is about to be copied. Call it before anything is asked about the range: whatever
   * is written from then on makes it dirty anew.
   */
  take({ offset, bytes }: CopyTask): void {
    this.touch(offset, bytes);
    this.bitmap.reset(offset, bytes);
  }

  /** Part of the target is about to be written. */
  touch(offset: number, bytes: number): void {
    const touched = this.#touched;
    if (!touched) return;
    const size = this.#clusterBytes;
    const end = Math.min(offset + bytes, this.length);
    for (let at = alignDown(offset, size); at < end; at += size) {
      if (touched.get(at / size)) continue;
      touched.set(at / size, 1);
      this.bitmap.set(at, size);
    }
  }

  /** The first dirty area of offset .. end-1, cut off at `maxBytes`. */
  next(offset: number, end: number, maxBytes: number): CopyTask | null {
    const stop = Math.min(end, this.length);
    const area = this.bitmap.nextDirtyArea(offset, stop, maxBytes);
    if (!area || !this.#touched) return area;
    // Whole clusters at once where that is possible: else the target would have to fill them up.
    const size = this.#clusterBytes;
    this.touch(area.offset, area.bytes);
    const start = Math.max(offset, alignDown(area.offset, size));
    const whole = this.bitmap.nextDirtyArea(start, stop, maxBytes)!;
    const bytes = alignDown(whole.offset + whole.bytes, size) - whole.offset;
    return bytes > 0 ? { offset: whole.offset, bytes } : whole;
  }
}
