/**
 * A dirty bitmap: which parts of a disk have been written since some moment, one bit for each
 * `granularity` bytes (QEMU: block/dirty-bitmap.c).
 *
 * While a job works on a bitmap it stands still, and a successor takes what guests write:
 *
 *                 createSuccessor()                 abdicate()   successor's bits
 *     recording ───────────────────▶ busy, frozen ─┤
 *                                    + successor    reclaim()    both together
 */

import { alignDown } from "../base/bytes.ts";
import { assert, BlockError } from "../base/errors.ts";
import { HBitmap } from "../kernel/hbitmap.ts";
import type { BlockNode } from "./node.ts";

export type { HBitmap };

/** What somebody wants with a bitmap. */
export type BitmapUse =
  | "remove"
  | "clear"
  | "enable"
  | "merge-target"
  | "merge-source"
  | "backup"
  | "backup-never"
  | "export";

type Obstacle = "busy" | "readOnly" | "inconsistent";

/** What each use cannot be done to; where several apply, the first is told. */
const OBSTACLES: Readonly<Record<BitmapUse, readonly Obstacle[]>> = {
  // All that can be done with an inconsistent one is to remove it.
  remove: ["busy", "readOnly"],
  clear: ["busy", "readOnly", "inconsistent"],
  enable: ["busy", "inconsistent"],
  "merge-target": ["busy", "readOnly", "inconsistent"],
  "merge-source": ["busy", "inconsistent"],
  backup: ["busy", "readOnly", "inconsistent"],
  "backup-never": ["busy", "inconsistent"],
  export: ["busy", "inconsistent"],
};

const OBSTACLE_ERRORS = {
  busy: ["EBUSY", "is busy: something else is using it"],
  readOnly: ["EROFS", "is read-only: its image is not open for writing"],
  inconsistent: [
    "EINVAL",
    "is inconsistent: it was not saved when its image was last closed; it can only be removed",
  ],
} as const;

export interface DirtyBitmapInit {
  /** The node whose writes it records. */
  readonly node: BitmapNode;
  /** null: a job's own, which no command finds. */
  readonly name: string | null;
  /** Bytes, a power of two >= 512. */
  readonly granularity: number;
  /** Bytes of the disk. */
  readonly size: number;
  readonly enabled: boolean;
  readonly persistent?: boolean;
  readonly inconsistent?: boolean;
}

/** What a bitmap wants to know of its node. */
export type BitmapNode = Pick<BlockNode, "name" | "readOnly" | "world">;

/** Ranges are bytes of the disk. What is set is rounded outward, to whole granules. */
export class DirtyBitmap {
  readonly name: string | null;
  readonly granularity: number;
  /** Kept in the image when that is closed. */
  persistent: boolean;
  /** As read from an image that lost track of it: its bits mean nothing. */
  readonly inconsistent: boolean;
  readonly #node: BitmapNode;
  #bits: HBitmap;
  #size: number;
  #longest: number;
  #enabled: boolean;
  #busy = false;
  #successor: DirtyBitmap | null = null;

  /** Made by BitmapList.add(), which checks. */
  constructor(init: DirtyBitmapInit) {
    this.#node = init.node;
    this.name = init.name;
    this.granularity = init.granularity;
    this.persistent = init.persistent ?? false;
    this.inconsistent = init.inconsistent ?? false;
    this.#enabled = init.enabled;
    this.#size = init.size;
    this.#longest = init.size;
    this.#bits = new HBitmap(init.node.world.kernel, this.#bitsOf(init.size));
  }

  get nodeName(): string {
    return this.#node.name;
  }

  /** Bytes of disk that it covers. */
  get size(): number {
    return this.#size;
  }

  /** The largest size that it has had, as long as it is in memory. */
  get longest(): number {
    return this.#longest;
  }

  /** Dirty bytes: set bits times granularity, so perhaps more than the size. */
  get count(): number {
    return this.#bits.count * this.granularity;
  }

  /** It records writes by itself. */
  get enabled(): boolean {
    return this.#enabled;
  }

  /** Writes are recorded, here or in the successor. */
  get recording(): boolean {
    return this.#enabled || (this.#successor?.enabled ?? false);
  }

  /** Something has it, such as a job: no command may touch it. */
  get busy(): boolean {
    return this.#busy;
  }

  /** It is kept in an image that is not open for writing. */
  get readOnly(): boolean {
    return this.persistent && this.#node.readOnly;
  }

  get successor(): DirtyBitmap | null {
    return this.#successor;
  }

  /**
   * The bits, one for each granule, for whoever stores and loads them; restore(), abdicate() and
   * reclaim() put others in their place.
   */
  get bits(): HBitmap {
    return this.#bits;
  }

  /** "Bitmap 'b0' of node 'top'" */
  get description(): string {
    return `Bitmap '${this.name ?? ""}' of node '${this.nodeName}'`;
  }

  // Bits

  /** Whether the granule of this byte is dirty. */
  isDirty(offset: number): boolean {
    return this.#bits.get(Math.floor(offset / this.granularity));
  }

  /** Marks every granule that the range touches; what is past the end is left out. */
  set(offset: number, bytes: number): void {
    const end = Math.min(offset + bytes, this.#size);
    if (end <= offset) return;
    const first = Math.floor(offset / this.granularity);
    this.#bits.set(first, this.#bitsOf(end) - first);
  }

  /** @param offset with bytes: whole granules, or up to the end of the disk */
  reset(offset: number, bytes: number): void {
    const end = offset + bytes;
    assert(offset % this.granularity === 0, "a bitmap is reset in whole granules");
    assert(end % this.granularity === 0 || end === this.#size, "a bitmap is reset in granules");
    const first = offset / this.granularity;
    this.#bits.clear(first, Math.min(this.#bitsOf(end), this.#bits.size) - first);
  }

  setAll(): void {
    this.#bits.set(0, this.#bits.size);
  }

  clear(): void {
    this.#bits.clear(0, this.#bits.size);
  }

  /** The first dirty byte in offset .. end-1: `offset` itself, or where a granule begins. */
  nextDirty(offset: number, end = this.#size): number | null {
    return this.#next(offset, end, (first, last) => this.#bits.nextSet(first, last));
  }

  /** The first byte in offset .. end-1 that is not dirty. */
  nextClear(offset: number, end = this.#size): number | null {
    return this.#next(offset, end, (first, last) => this.#bits.nextClear(first, last));
  }

  /** The first dirty run in offset .. end-1, of `maxBytes` if it is longer; null if all is clear. */
  nextDirtyArea(
    offset: number,
    end: number,
    maxBytes: number,
  ): { readonly offset: number; readonly bytes: number } | null {
    assert(maxBytes > 0, "an area has bytes");
    const start = this.nextDirty(offset, end);
    if (start === null) return null;
    const stop = Math.min(end, this.#size, start + maxBytes);
    return { offset: start, bytes: (this.nextClear(start, stop) ?? stop) - start };
  }

  /** What the beginning of a range is, and for how long; the range is not empty and on the disk. */
  status(offset: number, bytes: number): { readonly bytes: number; readonly dirty: boolean } {
    const dirty = this.isDirty(offset);
    const end = offset + bytes;
    const other = dirty ? this.nextClear(offset, end) : this.nextDirty(offset, end);
    return { bytes: (other ?? end) - offset, dirty };
  }

  /** Marks what is dirty in the source, of any granularity, but of the same size. */
  merge(source: DirtyBitmap): void {
    assert(source.#size === this.#size, "bitmaps that are merged are of one size");
    if (source === this) return;
    if (source.granularity === this.granularity) {
      this.#bits.merge(source.#bits);
      return;
    }
    for (let at = 0; at < this.#size; ) {
      const area = source.nextDirtyArea(at, this.#size, Number.MAX_SAFE_INTEGER);
      if (!area) return;
      this.set(area.offset, area.bytes);
      at = area.offset + area.bytes;
    }
  }

  /** A copy of the bits, for restore(). */
  snapshot(): HBitmap {
    return this.#bits.copy();
  }

  /** Puts the bits of a snapshot() back; what has been marked since is forgotten. */
  restore(bits: HBitmap): void {
    assert(bits.size === this.#bits.size, "a disk keeps its size while its bitmap may be restored");
    this.#bits = bits.copy();
  }

  /** The disk has another size now; a part that has been added is clean until it is written. */
  truncate(size: number): void {
    if (size !== this.#size) {
      this.#size = size;
      this.#longest = Math.max(this.#longest, size);
      this.#bits.truncate(this.#bitsOf(size));
    }
    this.#successor?.truncate(size);
  }

  /** A guest has written: marked if writes are recorded, by whoever does. */
  record(offset: number, bytes: number): void {
    if (this.#enabled) this.set(offset, bytes);
    this.#successor?.record(offset, bytes);
  }

  // Flags

  enable(): void {
    this.#enabled = true;
  }

  disable(): void {
    this.#enabled = false;
  }

  setBusy(busy: boolean): void {
    assert(!this.#successor, "a bitmap with a successor is busy until that is gone");
    this.#busy = busy;
  }

  /** @throws BlockError EBUSY, EROFS, EINVAL with the node, the bitmap and the reason */
  checkUsable(use: BitmapUse): void {
    const obstacle = OBSTACLES[use].find((flag) => this[flag]);
    if (!obstacle) return;
    const [errno, reason] = OBSTACLE_ERRORS[obstacle];
    throw new BlockError(errno, `${this.description} ${reason}`);
  }

  // Successors

  /** Freezes this one for a job; what is written from now on goes to an anonymous successor. */
  createSuccessor(): void {
    assert(!this.#busy, "only one has a bitmap at a time");
    this.#successor = new DirtyBitmap({
      node: this.#node,
      name: null,
      granularity: this.granularity,
      size: this.#size,
      enabled: this.#enabled,
    });
    this.#busy = true;
    this.#enabled = false;
  }

  /** The job is done with all that is marked here: only the successor's marks are left. */
  abdicate(): void {
    this.#bits = this.#thaw().#bits;
  }

  /** The job did not use what is marked here: it stays, with the successor's marks added. */
  reclaim(): void {
    this.#bits.merge(this.#thaw().#bits);
  }

  #thaw(): DirtyBitmap {
    const successor = this.#successor;
    assert(successor, "a frozen bitmap has a successor");
    this.#successor = null;
    this.#busy = false;
    this.#enabled = successor.#enabled;
    return successor;
  }

  /** Granules of that many bytes. */
  #bitsOf(bytes: number): number {
    return Math.ceil(bytes / this.granularity);
  }

  #next(
    offset: number,
    end: number,
    search: (first: number, last: number) => number | null,
  ): number | null {
    const stop = Math.min(end, this.#size);
    if (offset >= stop) return null;
    const first = alignDown(offset, this.granularity) / this.granularity;
    const found = search(first, this.#bitsOf(stop));
    return found === null ? null : Math.max(offset, found * this.granularity);
  }
}
