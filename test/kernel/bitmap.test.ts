import { beforeAll, describe, expect, it } from "vitest";
import { MiB } from "../../src/base/bytes.ts";
import type { Random } from "../../src/base/random.ts";
import type { Kernel } from "../../src/kernel/kernel.ts";
import { eachSeed, inBothPlaces, pick, place, range } from "./chance.ts";
import { newKernel, testKernel } from "./load.ts";
import * as twins from "./twins.ts";

/** Longer than scratch, and not a multiple of any piece. */
const LARGE_BYTES = 5 * MiB + 24;
const LARGE_BITS = LARGE_BYTES * 8;

let kernel: Kernel;
beforeAll(async () => {
  kernel = await testKernel();
});

describe("bitmaps", () => {
  it("have bit n in bit n & 7 of byte n >> 3", () => {
    const map = new Uint8Array(16);
    for (const bit of [0, 9, 63, 64, 127]) kernel.bitmapSet(map, bit, 1);
    expect([...map]).toEqual([1, 2, 0, 0, 0, 0, 0, 128, 1, 0, 0, 0, 0, 0, 0, 128]);
  });

  it("are set, cleared, counted and searched in ranges", () => {
    const map = new Uint8Array(40);
    kernel.bitmapSet(map, 10, 200);
    kernel.bitmapClear(map, 60, 70);
    expect(kernel.bitmapCount(map, 0, 320)).toBe(130);
    expect(kernel.bitmapCount(map, 20, 45)).toBe(40);
    expect(kernel.bitmapNextSet(map, 0, 320)).toBe(10);
    expect(kernel.bitmapNextClear(map, 10, 320)).toBe(60);
    expect(kernel.bitmapNextSet(map, 60, 320)).toBe(130);
    expect(kernel.bitmapNextSet(map, 60, 130)).toBe(-1);
    expect(kernel.bitmapNextClear(map, 130, 210)).toBe(-1);
    expect(kernel.bitmapNextSet(map, 210, 320)).toBe(-1);
    expect(kernel.bitmapNextSet(map, 10, 10)).toBe(-1);
  });

  it("are not changed or counted by a range of nothing, even at the end", () => {
    const map = new Uint8Array(8);
    for (const at of [0, 5, 64]) {
      kernel.bitmapSet(map, at, 0);
      expect(kernel.bitmapCount(map, at, 0)).toBe(0);
    }
    expect(kernel.isZero(map)).toBe(true);
  });

  it("are merged into the target, and the source is left alone", () => {
    const target = Uint8Array.from({ length: 24 }, (_, i) => i);
    const source = Uint8Array.from({ length: 24 }, (_, i) => 255 - i * 3);
    const before = source.slice();
    kernel.bitmapMerge(target, source);
    expect([...target]).toEqual([...before].map((byte, i) => byte | i));
    expect(source).toEqual(before);
  });

  it("may be longer than scratch", () => {
    for (const inside of [true, false]) {
      const { buf, leave } = place(kernel, new Uint8Array(LARGE_BYTES), inside, 3);
      kernel.bitmapSet(buf, 5, LARGE_BITS - 10);
      expect(kernel.bitmapCount(buf, 0, LARGE_BITS)).toBe(LARGE_BITS - 10);
      expect(kernel.bitmapNextClear(buf, 5, LARGE_BITS)).toBe(LARGE_BITS - 5);
      kernel.bitmapClear(buf, 6, LARGE_BITS - 12);
      expect(kernel.bitmapCount(buf, 0, LARGE_BITS)).toBe(2);
      expect(kernel.bitmapNextSet(buf, 6, LARGE_BITS)).toBe(LARGE_BITS - 6);

      const other = place(kernel, new Uint8Array(LARGE_BYTES), !inside, 5);
      kernel.bitmapSet(other.buf, 3 * 8 * MiB + 1, 9);
      kernel.bitmapMerge(buf, other.buf);
      expect(kernel.bitmapCount(buf, 0, LARGE_BITS)).toBe(11);
      expect(kernel.bitmapNextSet(buf, 6, LARGE_BITS)).toBe(3 * 8 * MiB + 1);
      leave();
      other.leave();
    }
  });

  it("may fill all of wasm memory", async () => {
    const kernel = await newKernel();
    const map = kernel.allocate(kernel.freeBytes)!;
    const bits = map.length * 8;
    expect(kernel.bitmapNextSet(map, 0, bits)).toBe(-1);
    kernel.bitmapSet(map, 0, bits);
    expect(kernel.bitmapCount(map, 0, bits)).toBe(bits);
    expect(kernel.bitmapNextClear(map, 0, bits)).toBe(-1);
    kernel.bitmapClear(map, bits - 1, 1);
    expect(kernel.bitmapNextClear(map, 0, bits)).toBe(bits - 1);
  });

  it("refuse ranges outside, and lengths that are not whole words", () => {
    const map = new Uint8Array(8);
    expect(() => kernel.bitmapSet(map, 60, 5)).toThrow("in their array");
    expect(() => kernel.bitmapNextSet(map, 5, 4)).toThrow("in their array");
    expect(() => kernel.bitmapNextSet(map, 0, 65)).toThrow("in their array");
    expect(() => kernel.bitmapClear(map, -1, 2)).toThrow("in their array");
    expect(() => kernel.bitmapSet(new Uint8Array(9), 0, 1)).toThrow("whole words");
    expect(() => kernel.bitmapMerge(map, new Uint8Array(16))).toThrow("one length");
    expect(() => kernel.bitmapMerge(new Uint8Array(9), new Uint8Array(9))).toThrow("whole words");
  });

  it("agree with their twins when searched and counted", () => {
    eachSeed(600, (random) => {
      const map = chanceMap(random, 8 * (1 + random.below(60)));
      const { start, count } = range(random, map.length * 8);
      const end = start + count;
      inBothPlaces(kernel, random, map, (buf) => {
        expect(kernel.bitmapNextSet(buf, start, end)).toBe(twins.bitmapNext(map, start, end, 1));
        expect(kernel.bitmapNextClear(buf, start, end)).toBe(twins.bitmapNext(map, start, end, 0));
        expect(kernel.bitmapCount(buf, start, count)).toBe(twins.bitmapCount(map, start, count));
      });
    });
  });

  it("agree with their twins when set, cleared and merged", () => {
    eachSeed(600, (random) => {
      const map = chanceMap(random, 8 * (1 + random.below(60)));
      const other = chanceMap(random, map.length);
      const { start, count } = range(random, map.length * 8);
      const value = pick(random, [0, 1] as const);
      const wanted = map.slice();
      twins.bitmapFill(wanted, start, count, value);
      const merged = wanted.slice();
      twins.bitmapMerge(merged, other);
      inBothPlaces(kernel, random, map, (buf) => {
        if (value === 1) kernel.bitmapSet(buf, start, count);
        else kernel.bitmapClear(buf, start, count);
        expect(twins.firstDifference(buf, wanted)).toBe(-1);
        kernel.bitmapMerge(buf, other);
        expect(twins.firstDifference(buf, merged)).toBe(-1);
      });
    });
  });
});

/** Stretches of clear, of set, and of any bits. */
function chanceMap(random: Random, bytes: number): Uint8Array<ArrayBuffer> {
  const map = new Uint8Array(bytes);
  for (let at = 0; at < bytes; ) {
    const end = Math.min(bytes, at + 1 + pick(random, [0, random.below(20), random.below(200)]));
    const part = map.subarray(at, end);
    const style = random.below(3);
    if (style === 0) random.fill(part);
    else part.fill(style === 1 ? 0xff : 0);
    at = end;
  }
  for (let turned = random.below(4); turned > 0; turned--) {
    map[random.below(bytes)]! ^= 1 << random.below(8);
  }
  return map;
}
