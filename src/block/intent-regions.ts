/**
 * Regions of a disk: pieces of one size, coarse enough for a set of them to be small however large the
 * disk is, since the whole set is written again whenever something is added to it.
 *
 *     disk     |........|........|........|........|...      size / 64 Ki, at least 256 KiB each
 *     set          0        1        1        0              one bit each: 8 KiB at most
 */

import * as v from "valibot";
import { KiB } from "../base/bytes.ts";
import { HBitmap } from "../kernel/hbitmap.ts";
import type { Kernel } from "../kernel/kernel.ts";

const REGIONS_MAX = 64 * KiB;
const REGION_BYTES_MIN = 256 * KiB;

/** A set as JSON. */
export const regionsRecord = v.strictObject({
  regionBytes: v.pipe(v.number(), v.safeInteger(), v.minValue(512)),
  /** Base64 of a bit for each region, the first one in the lowest bit of the first byte. */
  bits: v.pipe(v.string(), v.maxLength(REGIONS_MAX)),
});
export type RegionsRecord = v.InferOutput<typeof regionsRecord>;

/** @param size bytes of the disk. @param granularity what a region is a multiple of: a power of two */
export function regionBytesFor(size: number, granularity: number): number {
  let bytes = Math.max(REGION_BYTES_MIN, granularity);
  while (Math.ceil(size / bytes) > REGIONS_MAX) bytes *= 2;
  return bytes;
}

/** A set of regions, with no end: what lies past the disk's is not in it. */
export class Regions {
  readonly regionBytes: number;
  readonly #bits: HBitmap;

  /** None. */
  constructor(kernel: Kernel, regionBytes: number) {
    this.regionBytes = regionBytes;
    this.#bits = new HBitmap(kernel, 0);
  }

  get isEmpty(): boolean {
    return this.#bits.count === 0;
  }

  get count(): number {
    return this.#bits.count;
  }

  /** The numbers of the regions that a range touches: first .. end-1. @param bytes > 0 */
  span(offset: number, bytes: number): { first: number; end: number } {
    const { regionBytes } = this;
    return {
      first: Math.floor(offset / regionBytes),
      end: Math.floor((offset + bytes - 1) / regionBytes) + 1,
    };
  }

  has(region: number): boolean {
    return region < this.#bits.size && this.#bits.get(region);
  }

  add(first: number, end = first + 1): void {
    if (end > this.#bits.size) this.#bits.truncate(end);
    this.#bits.set(first, end - first);
  }

  remove(first: number, end = first + 1): void {
    const stop = Math.min(end, this.#bits.size);
    if (first < stop) this.#bits.clear(first, stop - first);
  }

  /** All regions that a range touches. */
  addRange(offset: number, bytes: number): void {
    if (bytes <= 0) return;
    const { first, end } = this.span(offset, bytes);
    this.add(first, end);
  }

  /** The first run of regions of the set, from `first` on. */
  nextRun(first: number): { first: number; end: number } | null {
    const { size } = this.#bits;
    if (first >= size) return null;
    const area = this.#bits.nextArea(first, size, size);
    return area && { first: area.start, end: area.start + area.count };
  }

  /** The set as byte ranges. */
  *ranges(): Generator<{ offset: number; bytes: number }> {
    const { regionBytes } = this;
    for (let at = 0; ; ) {
      const run = this.nextRun(at);
      if (!run) return;
      yield { offset: run.first * regionBytes, bytes: (run.end - run.first) * regionBytes };
      at = run.end;
    }
  }

  describe(): RegionsRecord {
    const bytes = new Uint8Array(Math.ceil(this.#bits.size / 64) * 8);
    this.#bits.serialize(0, bytes);
    let text = "";
    for (const byte of bytes) text += String.fromCharCode(byte);
    return { regionBytes: this.regionBytes, bits: btoa(text) };
  }
}

/** @param record checked. @returns null if the bits make no sense */
export function regionsOf(kernel: Kernel, { regionBytes, bits }: RegionsRecord): Regions | null {
  let text: string;
  try {
    text = atob(bits);
  } catch {
    return null; // Not base64: whoever asks finds nothing to rely on.
  }
  const set = new Regions(kernel, regionBytes);
  for (let i = 0; i < text.length; i++) {
    const byte = text.charCodeAt(i);
    for (let bit = 0; bit < 8; bit++) if (byte & (1 << bit)) set.add(i * 8 + bit);
  }
  return set;
}
