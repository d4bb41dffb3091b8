/** Differential tests: the same seeded chance for a kernel and its twin, in and out of wasm memory. */

import { expect } from "vitest";
import { type Random, seededRandom } from "../../src/base/random.ts";
import type { Kernel } from "../../src/kernel/kernel.ts";

/** Runs the body for seeds 1 .. count; what fails says with which seed. */
export function eachSeed(count: number, body: (random: Random) => void): void {
  for (let seed = 1; seed <= count; seed++) {
    try {
      body(seededRandom(seed));
    } catch (error) {
      if (error instanceof Error) error.message = `seed ${seed}: ${error.message}`;
      throw error;
    }
  }
}

/** One of a list. */
export function pick<T>(random: Random, list: readonly T[]): T {
  return list[random.below(list.length)]!;
}

/** start and count of a range within `total`, with the edges more likely than chance has them. */
export function range(random: Random, total: number): { start: number; count: number } {
  const start = pick(random, [0, random.below(total + 1), random.below(Math.min(total, 200) + 1)]);
  const rest = total - start;
  const count = pick(random, [rest, random.below(rest + 1), random.below(Math.min(rest, 70) + 1)]);
  return { start, count };
}

/** What lies around a placed buffer, and must be there afterwards. */
const GUARD = 0xa5;
const GUARD_BYTES = 64;

/** A buffer in the world: in wasm memory or not, aligned or not, with guards around it. */
export interface Place {
  readonly buf: Uint8Array<ArrayBuffer>;
  /** Fails if a byte around the buffer has changed; gives the memory back. */
  leave(): void;
}

/** Puts a copy of the bytes in wasm memory (`inside`) or elsewhere. */
export function place(kernel: Kernel, bytes: Uint8Array, inside: boolean, shift = 0): Place {
  const length = bytes.length + 2 * GUARD_BYTES + shift;
  const around = inside ? kernel.allocate(length) : new Uint8Array(length);
  if (around === null) throw new Error("a test asks for more than wasm memory has");
  const start = GUARD_BYTES + shift;
  const end = start + bytes.length;
  around.fill(GUARD);
  around.set(bytes, start);
  return {
    buf: around.subarray(start, end),
    leave() {
      const intact = (part: Uint8Array) => part.every((byte) => byte === GUARD);
      expect(intact(around.subarray(0, start)), "bytes before the buffer are intact").toBe(true);
      expect(intact(around.subarray(end)), "bytes after the buffer are intact").toBe(true);
      if (inside) kernel.free(around);
    },
  };
}

/** Runs the body with a copy of the bytes inside wasm memory, and one outside, at a random shift. */
export function inBothPlaces(
  kernel: Kernel,
  random: Random,
  bytes: Uint8Array,
  body: (buf: Uint8Array<ArrayBuffer>, inside: boolean) => void,
): void {
  const shift = random.below(16);
  for (const inside of [true, false]) {
    const placed = place(kernel, bytes, inside, shift);
    body(placed.buf, inside);
    placed.leave();
  }
}
