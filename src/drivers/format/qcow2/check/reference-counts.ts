/**
 * How often each host cluster is referred to, for the stretch of the file that memory allows.
 *
 * A page holds the counts of 4096 clusters; there is one only where something is referred to. When
 * there are too many, the upper half is forgotten, and the stretch ends where it began: what lies
 * beyond is for another walk. So an image of 2 TiB (64 KiB clusters) takes one walk and 64 MiB, a
 * larger one takes several walks, and one that is full of lies no more memory than that.
 *
 *     clusters   │ counted in walks before │ this walk's stretch │ another walk │
 *                                          start                 end
 */

import { assert } from "../../../../base/errors.ts";

export const PAGE_CLUSTERS = 4096;
/** Unless somebody says otherwise. */
export const COUNT_BYTES = 64 * 1024 * 1024;
/** Whatever a refcount of 64 bits could tell. */
const COUNT_MAX = 2 ** 32 - 1;

interface CountPage {
  readonly counts: Uint16Array | Uint32Array;
  /** References that the counts cannot tell. */
  lost: number;
}

/** Clusters with more references than a refcount can tell. */
export interface Overflow {
  /** They are among the clusters from here on, in clusters. */
  readonly first: number;
  readonly references: number;
}

export class ReferenceCounts {
  readonly start: number;
  readonly #max: number;
  readonly #pagesMax: number;
  readonly #pages = new Map<number, CountPage>();
  #end = Number.POSITIVE_INFINITY;
  #highest = -1;
  #lastNumber = -1;
  #last: CountPage | null = null;

  /**
   * @param start first cluster of the stretch
   * @param refcountOrder refcounts have 1 << order bits: counts end there, too
   * @param memoryBytes most memory for pages
   */
  constructor(start: number, refcountOrder: number, memoryBytes: number) {
    assert(start % PAGE_CLUSTERS === 0, "a stretch begins with a page");
    this.start = start;
    this.#max = Math.min(2 ** (2 ** refcountOrder) - 1, COUNT_MAX);
    this.#pagesMax = Math.max(2, memoryBytes / (PAGE_CLUSTERS * this.#bytesPerCount));
  }

  get #bytesPerCount(): 2 | 4 {
    return this.#max > 0xffff ? 4 : 2;
  }

  /** First cluster that is not in the stretch; infinite if all of the file is. */
  get end(): number {
    return this.#end;
  }

  /** The highest cluster that was referred to, in the stretch or not; -1: none. */
  get highest(): number {
    return this.#highest;
  }

  add(cluster: number, times: number): void {
    if (cluster > this.#highest) this.#highest = cluster;
    if (cluster < this.start || cluster >= this.#end) return;
    const number = Math.floor(cluster / PAGE_CLUSTERS);
    if (number !== this.#lastNumber && !this.#enter(number)) return;
    const page = this.#last!;
    const at = cluster % PAGE_CLUSTERS;
    const count = page.counts[at]! + times;
    page.counts[at] = Math.min(count, this.#max);
    if (count > this.#max) page.lost += count - this.#max;
  }

  /** @returns false if there is no room, and the stretch ends before it now */
  #enter(number: number): boolean {
    let page = this.#pages.get(number);
    if (!page) {
      if (this.#pages.size >= this.#pagesMax) this.#shrink();
      if (number * PAGE_CLUSTERS >= this.#end) return false;
      const counts =
        this.#bytesPerCount === 4 ? new Uint32Array(PAGE_CLUSTERS) : new Uint16Array(PAGE_CLUSTERS);
      page = { counts, lost: 0 };
      this.#pages.set(number, page);
    }
    this.#lastNumber = number;
    this.#last = page;
    return true;
  }

  #shrink(): void {
    const numbers = Float64Array.from(this.#pages.keys()).sort();
    const kept = Math.max(1, Math.floor(numbers.length / 2));
    for (const number of numbers.subarray(kept)) this.#pages.delete(number);
    this.#end = (numbers[kept - 1]! + 1) * PAGE_CLUSTERS;
    this.#lastNumber = -1;
    this.#last = null;
  }

  /** Of a cluster in the stretch. */
  get(cluster: number): number {
    const page = this.#pages.get(Math.floor(cluster / PAGE_CLUSTERS));
    return page ? page.counts[cluster % PAGE_CLUSTERS]! : 0;
  }

  /** Counts of the page that a cluster is in, at the cluster's number modulo their length; null: all 0. */
  page(cluster: number): Uint16Array | Uint32Array | null {
    return this.#pages.get(Math.floor(cluster / PAGE_CLUSTERS))?.counts ?? null;
  }

  /** True if nothing refers to any of these clusters. */
  isEmpty(start: number, end: number): boolean {
    const last = Math.floor((end - 1) / PAGE_CLUSTERS);
    for (let number = Math.floor(start / PAGE_CLUSTERS); number <= last; number++) {
      if (this.#pages.has(number)) return false;
    }
    return true;
  }

  /** The first clusters of the pages that there are. */
  *pages(): Generator<{ readonly first: number; readonly counts: Uint16Array | Uint32Array }> {
    for (const [number, { counts }] of this.#pages) yield { first: number * PAGE_CLUSTERS, counts };
  }

  *overflows(): Generator<Overflow> {
    for (const [number, { lost }] of this.#pages) {
      if (lost > 0) yield { first: number * PAGE_CLUSTERS, references: lost };
    }
  }
}
