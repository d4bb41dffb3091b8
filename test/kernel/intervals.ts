/** What a set of bits is, said as plainly as can be: disjoint stretches in order, start .. end-1. */

export class Intervals {
  #stretches: [start: number, end: number][] = [];
  size: number;

  constructor(size: number) {
    this.size = size;
  }

  get count(): number {
    return this.#stretches.reduce((sum, [start, end]) => sum + (end - start), 0);
  }

  /** Where something begins or ends: the places at which mistakes are made. */
  get edges(): number[] {
    return this.#stretches.flat();
  }

  fill(start: number, count: number, value: boolean): void {
    if (count === 0) return;
    const end = start + count;
    const kept = this.#stretches.flatMap(([from, to]) => {
      const parts: [number, number][] = [
        [from, Math.min(to, start)],
        [Math.max(from, end), to],
      ];
      return parts.filter(([a, b]) => a < b);
    });
    if (value) kept.push([start, end]);
    kept.sort(([a], [b]) => a - b);
    // Those that touch become one.
    this.#stretches = [];
    for (const [from, to] of kept) {
      const last = this.#stretches.at(-1);
      if (last && last[1] === from) last[1] = to;
      else this.#stretches.push([from, to]);
    }
  }

  next(start: number, end: number, value: boolean): number | null {
    let at = start;
    for (const [from, to] of this.#stretches) {
      if (to <= at) continue;
      if (value) at = Math.max(at, from);
      else if (from <= at) at = to;
      else break;
      if (value) return at < end ? at : null;
    }
    if (value) return null;
    return at < end ? at : null;
  }

  merge(source: Intervals): void {
    for (const [start, end] of source.#stretches) this.fill(start, end - start, true);
  }

  truncate(size: number): void {
    if (size < this.size) this.fill(size, this.size - size, false);
    this.size = size;
  }

  copy(): Intervals {
    const copy = new Intervals(this.size);
    copy.merge(this);
    return copy;
  }

  /** As bytes, bit by bit. */
  bytes(start: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (const [from, to] of this.#stretches) {
      const last = Math.min(to, start + length * 8);
      for (let bit = Math.max(from, start); bit < last; bit++) {
        bytes[Math.floor((bit - start) / 8)]! += 2 ** ((bit - start) % 8);
      }
    }
    return bytes;
  }
}
