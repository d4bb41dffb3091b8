/** The dirty bitmaps of one node, and who of them hears of its writes. */

import { GiB, KiB } from "../base/bytes.ts";
import { assert, BlockError } from "../base/errors.ts";
import { DirtyBitmap } from "./dirty-bitmap.ts";
import type { Regions } from "./intent-regions.ts";
import type { BlockNode } from "./node.ts";
import { fileOf, getLength } from "./request.ts";
import type { WriteIntent } from "./write-intent.ts";

/** In UTF-8. */
export const NAME_BYTES_MAX = 1023;
export const GRANULARITY_MIN = 512;
/** The largest power of two that qcow2 and QMP have room for. */
export const GRANULARITY_MAX = 2 * GiB;

export interface NewBitmap {
  /** null: a job's own, which no command finds. */
  readonly name: string | null;
  /** Bytes; without it the node's default. */
  readonly granularity?: number | undefined;
  /** Records writes; true if it is left out. */
  readonly enabled?: boolean;
  readonly persistent?: boolean;
  readonly inconsistent?: boolean;
}

export class BitmapList {
  readonly #node: BlockNode;
  readonly #bitmaps: DirtyBitmap[] = [];
  /** Those of which the image has a copy. Kept by persistent-bitmaps.ts. */
  readonly stored = new WeakSet<DirtyBitmap>();
  /** What of the persistent ones outlives the engine. Kept by bitmap-intent.ts. */
  intent: WriteIntent | null = null;
  /** What of it an engine before this one has left, and bitmaps have taken over. */
  left: Regions | null = null;

  constructor(node: BlockNode) {
    this.#node = node;
  }

  get isEmpty(): boolean {
    return this.#bitmaps.length === 0;
  }

  /**
   * A new bitmap, clean, that records from now on; also what is under way already.
   *
   * @throws BlockError EINVAL (name or granularity), EEXIST (name taken)
   */
  add(init: NewBitmap): DirtyBitmap {
    const node = this.#node;
    if (init.name !== null) this.#checkName(init.name);
    const granularity = init.granularity ?? defaultGranularity(node);
    if (!isGranularity(granularity)) {
      throw new BlockError(
        "EINVAL",
        `Bitmap '${init.name ?? ""}' of node '${node.name}' cannot have a granularity of ` +
          `${granularity}: it takes a power of two from ${GRANULARITY_MIN} to ${GRANULARITY_MAX}`,
      );
    }
    const bitmap = new DirtyBitmap({
      ...init,
      node,
      granularity,
      size: getLength(node),
      enabled: init.enabled ?? true,
    });
    this.#bitmaps.push(bitmap);
    return bitmap;
  }

  find(name: string): DirtyBitmap | undefined {
    return this.#bitmaps.find((bitmap) => bitmap.name === name);
  }

  /** @throws BlockError ENOENT */
  get(name: string): DirtyBitmap {
    const bitmap = this.find(name);
    if (bitmap) return bitmap;
    throw new BlockError("ENOENT", `Node '${this.#node.name}' has no bitmap '${name}'`);
  }

  /** Forgets a bitmap of this list; whether it may be removed is not asked. */
  remove(bitmap: DirtyBitmap): void {
    const at = this.#bitmaps.indexOf(bitmap);
    assert(at >= 0, "a bitmap that is removed is in its node's list");
    this.#bitmaps.splice(at, 1);
  }

  /** Those that remove() has forgotten are there again, as if they were the oldest. */
  putBack(bitmaps: readonly DirtyBitmap[]): void {
    this.#bitmaps.unshift(...bitmaps);
  }

  /** The oldest first; successors are not in it. */
  all(): readonly DirtyBitmap[] {
    return [...this.#bitmaps];
  }

  named(): readonly DirtyBitmap[] {
    return this.#bitmaps.filter(({ name }) => name !== null);
  }

  /** The range has been written, or may have been. @param except does not record this one */
  record(offset: number, bytes: number, except?: DirtyBitmap): void {
    if (this.isEmpty) return;
    // The write may have made a store longer.
    this.truncate(getLength(this.#node));
    for (const bitmap of this.#bitmaps) if (bitmap !== except) bitmap.record(offset, bytes);
  }

  /**
   * The disk has been given another size. What it was once cut off and has again counts as written: a backup has
   * what was there before.
   *
   * @returns that
   */
  resized(size: number): { readonly offset: number; readonly bytes: number } {
    const bitmaps = this.named();
    const offset = Math.min(size, ...bitmaps.map((bitmap) => bitmap.size));
    const end = Math.min(size, Math.max(0, ...bitmaps.map(({ longest }) => longest)));
    const bytes = Math.max(0, end - offset);
    this.truncate(size);
    if (bytes > 0) for (const bitmap of bitmaps) bitmap.record(offset, bytes);
    return { offset, bytes };
  }

  /** The disk has another size now. */
  truncate(size: number): void {
    for (const bitmap of this.#bitmaps) bitmap.truncate(size);
  }

  #checkName(name: string): void {
    const bytes = new TextEncoder().encode(name).length;
    if (bytes === 0 || bytes > NAME_BYTES_MAX) {
      throw new BlockError(
        "EINVAL",
        `A bitmap's name has 1 to ${NAME_BYTES_MAX} bytes; the one for node ` +
          `'${this.#node.name}' has ${bytes}`,
      );
    }
    if (!this.find(name)) return;
    throw new BlockError("EEXIST", `Node '${this.#node.name}' has a bitmap '${name}' already`);
  }
}

/** The node's cluster size, within 4 .. 64 KiB; 64 KiB where there are no clusters. In bytes. */
export function defaultGranularity(node: BlockNode): number {
  if (node.driver.kind === "filter") return defaultGranularity(fileOf(node).node);
  const { clusterSize } = node.state.limits;
  if (clusterSize === 0) return 64 * KiB;
  return Math.min(Math.max(clusterSize, 4 * KiB), 64 * KiB);
}

function isGranularity(bytes: number): boolean {
  return bytes >= GRANULARITY_MIN && bytes <= GRANULARITY_MAX && Number.isInteger(Math.log2(bytes));
}
