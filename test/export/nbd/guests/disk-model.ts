/**
 * What a disk must read as while guests write to it. Every byte is one of 32 patterns, so what it may
 * be is 32 bits:
 *
 *     settled     one value, or two where a discard may have made zeroes or not
 *     in flight   what it was, and everything that is on its way
 *
 * A capture says the same of a stretch of time: what a copy may hold that was taken at some moment
 * in it. Guests plan their requests ahead, each on bytes of its own.
 */

import { readFileSync } from "node:fs";

/** Of the patterns 0 to 31. */
export const PATTERNS = 32;

export interface Extent {
  readonly offset: number;
  readonly bytes: number;
}

export class DiskModel {
  readonly size: number;
  /** Bit p: the byte may read as p. */
  readonly #possible: Uint32Array;
  /** The same once all that is planned has happened. */
  readonly #planned: Uint32Array;
  readonly #captures = new Set<Capture>();

  constructor(size: number) {
    this.size = size;
    this.#possible = new Uint32Array(size).fill(1);
    this.#planned = new Uint32Array(size).fill(1);
  }

  /** It will be written, and may be from now on. */
  planWrite({ offset, bytes }: Extent, pattern: number): void {
    this.#planned.fill(bit(pattern), offset, offset + bytes);
    this.#allow(offset, bytes, bit(pattern));
  }

  /** What is there will be there, or zeroes. */
  planDiscard({ offset, bytes }: Extent): void {
    for (let at = offset; at < offset + bytes; at++) this.#planned[at]! |= bit(0);
    this.#allow(offset, bytes, bit(0));
  }

  /** What was planned there has happened. */
  settle({ offset, bytes }: Extent): void {
    this.#possible.set(this.#planned.subarray(offset, offset + bytes), offset);
  }

  /** What the plan makes of the byte, where there is no doubt about it. */
  patternAt(offset: number): number | null {
    const possible = this.#planned[offset]!;
    return (possible & (possible - 1)) === 0 ? 31 - Math.clz32(possible) : null;
  }

  /** How many bytes from `offset` on, before `end`, are planned to be what it is. */
  runLength(offset: number, end: number): number {
    let at = offset;
    while (at < end && this.#planned[at] === this.#planned[offset]) at++;
    return at - offset;
  }

  /** Begins to watch what is possible. */
  capture(): Capture {
    const capture = new Capture(this.#possible.slice(), () => this.#captures.delete(capture));
    this.#captures.add(capture);
    return capture;
  }

  #allow(offset: number, bytes: number, value: number): void {
    allow(this.#possible, offset, bytes, value);
    for (const capture of this.#captures) allow(capture.possible, offset, bytes, value);
  }
}

export class Capture {
  readonly possible: Uint32Array;
  readonly #stop: () => void;

  constructor(possible: Uint32Array, stop: () => void) {
    this.possible = possible;
    this.#stop = stop;
  }

  /** The moment has passed. */
  end(): this {
    this.#stop();
    return this;
  }

  /** @returns what is wrong with a copy, null if nothing */
  problem(copy: Uint8Array): string | null {
    const { possible } = this;
    if (copy.length !== possible.length) return `${copy.length} bytes, not ${possible.length}`;
    const isWrong = (at: number) => copy[at]! >= PATTERNS || !(possible[at]! & bit(copy[at]!));
    for (let at = 0; at < copy.length; at++) {
      if (!isWrong(at)) continue;
      let end = at;
      while (end < copy.length && isWrong(end)) end++;
      const allowed = Array.from({ length: PATTERNS }, (_, p) => p).filter(
        (p) => possible[at]! & bit(p),
      );
      return `${end - at} bytes at ${at} are wrong: ${copy[at]} instead of ${allowed.join(" or ")}`;
    }
    return null;
  }

  /** @throws Error */
  check(what: string, rawFile: string): void {
    const problem = this.problem(readFileSync(rawFile));
    if (problem !== null) throw new Error(`${what}: ${problem}`);
  }
}

function bit(pattern: number): number {
  return (1 << pattern) >>> 0;
}

function allow(possible: Uint32Array, offset: number, bytes: number, value: number): void {
  for (let at = offset; at < offset + bytes; at++) possible[at]! |= value;
}
