import { beforeAll, describe, expect, it } from "vitest";
import { MiB } from "../../src/base/bytes.ts";
import type { Random } from "../../src/base/random.ts";
import { HBitmap } from "../../src/kernel/hbitmap.ts";
import type { Kernel } from "../../src/kernel/kernel.ts";
import { eachSeed, pick } from "./chance.ts";
import { Intervals } from "./intervals.ts";
import { testKernel } from "./load.ts";

/** One bit for each sector of the largest disk that can be told of. */
const HUGE_BITS = 2 ** 44;
/** At and around the borders of words, leaves and branches. */
const SIZES = [0, 1, 63, 64, 65, 1000, 2 ** 15 - 1, 2 ** 15, 2 ** 15 + 1, 100_001]
  .concat([2 ** 25, 2 ** 25 + 1, 2 ** 30 - 7, 2 ** 35, 2 ** 35 + 3])
  .concat([HUGE_BITS - 1, HUGE_BITS, 2 ** 53 - 1]);

let kernel: Kernel;
beforeAll(async () => {
  kernel = await testKernel();
});

describe("a hierarchical bitmap", () => {
  it("is set, cleared, counted and searched in ranges", () => {
    const bits = new HBitmap(kernel, 100_000);
    bits.set(10, 70_000);
    bits.clear(40_000, 3);
    expect(bits.count).toBe(69_997);
    expect([bits.get(9), bits.get(10), bits.get(40_000), bits.get(70_009)]).toEqual([
      false,
      true,
      false,
      true,
    ]);
    expect(bits.nextSet(0)).toBe(10);
    expect(bits.nextClear(10)).toBe(40_000);
    expect(bits.nextSet(40_000)).toBe(40_003);
    expect(bits.nextSet(70_010)).toBe(null);
    expect(bits.nextClear(70_010)).toBe(70_010);
    expect(bits.nextArea(0, 100_000, 2 ** 53 - 1)).toEqual({ start: 10, count: 39_990 });
    expect(bits.nextArea(50, 100_000, 7)).toEqual({ start: 50, count: 7 });
    expect(bits.nextArea(0, 10, 7)).toBe(null);
    expect(bits.kindOf(0, 10)).toBe("clear");
    expect(bits.kindOf(10, 39_990)).toBe("set");
    expect(bits.kindOf(10, 39_991)).toBe("mixed");
  });

  it("has bit n in bit n & 7 of byte n >> 3 when it is serialised, and zeroes past its end", () => {
    const bits = new HBitmap(kernel, 130);
    for (const bit of [0, 9, 63, 64, 129]) bits.set(bit, 1);
    const bytes = new Uint8Array(32).fill(0xee);
    bits.serialize(0, bytes);
    expect([...bytes.subarray(0, 17)]).toEqual([
      1,
      2,
      0,
      0,
      0,
      0,
      0,
      128,
      1,
      ...Array(7).fill(0),
      2,
    ]);
    expect(kernel.isZero(bytes.subarray(17))).toBe(true);
    bits.serialize(640, bytes);
    expect(kernel.isZero(bytes)).toBe(true);
  });

  it("forgets what it is told of bits past its end", () => {
    const bits = new HBitmap(kernel, 70);
    bits.deserialize(0, new Uint8Array(64).fill(0xff));
    expect(bits.count).toBe(70);
    bits.truncate(1000);
    expect(bits.nextSet(70)).toBe(null);
  });

  it("does not take memory for a size that a disk only claims", () => {
    const before = process.memoryUsage().arrayBuffers;
    const many = Array.from({ length: 8 }, (_, i) => {
      const bits = new HBitmap(kernel, HUGE_BITS - i);
      bits.set(0, bits.size);
      bits.clear(i * 2 ** 40 + 12_345, 7);
      const copy = bits.copy();
      copy.clear(5, 2 ** 43);
      copy.merge(bits);
      expect(bits.count).toBe(HUGE_BITS - i - 7);
      expect(copy.count).toBe(HUGE_BITS - i - 7);
      expect(bits.nextClear(0)).toBe(i * 2 ** 40 + 12_345);
      expect(bits.nextSet(i * 2 ** 40 + 12_345)).toBe(i * 2 ** 40 + 12_352);
      return [bits, copy];
    });
    expect(many.length).toBe(8);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1 * MiB);
  });

  it("merges with one of its size, whatever size it had before", () => {
    for (const [before, after] of [
      [2 ** 35 + 3, 1000],
      [1000, 2 ** 35 + 3],
      [2 ** 25, 2 ** 25 + 1],
      [2 ** 25 + 1, 2 ** 25],
    ] as const) {
      const changed = new HBitmap(kernel, before);
      changed.set(0, before);
      changed.truncate(after);
      changed.clear(10, after - 20);
      const fresh = new HBitmap(kernel, after);
      fresh.set(after - 11, 2);
      const both = changed.copy();
      both.merge(fresh);
      fresh.merge(changed);
      const count = changed.count + (changed.get(after - 10) ? 1 : 2);
      expect([both.count, fresh.count], `${before} to ${after}`).toEqual([count, count]);
      expect(both.nextClear(10)).toBe(10);
      expect(fresh.nextSet(10)).toBe(after - 11);
    }
  });

  it("takes no other bits, ranges and sizes than there are", () => {
    const bits = new HBitmap(kernel, 100);
    expect(() => bits.set(99, 2)).toThrow("in their bitmap");
    expect(() => bits.clear(-1, 2)).toThrow("in their bitmap");
    expect(() => bits.get(100)).toThrow("in their bitmap");
    expect(() => bits.nextSet(0, 101)).toThrow("in their bitmap");
    expect(() => bits.serialize(32, new Uint8Array(8))).toThrow("whole words");
    expect(() => bits.deserialize(0, new Uint8Array(9))).toThrow("whole words");
    expect(() => bits.merge(new HBitmap(kernel, 101))).toThrow("one size");
    expect(() => new HBitmap(kernel, 2 ** 53)).toThrow("whole number");
  });

  it("agrees with plain intervals, whatever is done to it, up to 2^53 bits", () => {
    eachSeed(250, (random) => {
      let bits = new HBitmap(kernel, pick(random, SIZES));
      let model = new Intervals(bits.size);
      let other = { bits: new HBitmap(kernel, bits.size), model: new Intervals(bits.size) };
      for (let step = 0; step < 40; step++) {
        const { start, count } = chanceRange(random, model);
        switch (random.below(9)) {
          case 0:
          case 1:
          case 2:
            bits.set(start, count);
            model.fill(start, count, true);
            break;
          case 3:
          case 4:
            bits.clear(start, count);
            model.fill(start, count, false);
            break;
          case 5:
            [bits, model, other] = [other.bits, other.model, { bits, model }];
            break;
          case 6:
            other = { bits: bits.copy(), model: model.copy() };
            break;
          case 7:
            if (other.model.size !== model.size) break;
            bits.merge(other.bits);
            model.merge(other.model);
            break;
          case 8:
            if (random.below(3) > 0) break;
            bits.truncate(pick(random, [start, pick(random, SIZES)]));
            model.truncate(bits.size);
        }
        same(random, bits, model);
      }
    });
  });

  it("agrees with plain intervals when it is stored and loaded piece by piece", () => {
    eachSeed(50, (random) => {
      const bits = new HBitmap(kernel, pick(random, SIZES));
      const model = new Intervals(bits.size);
      for (let step = 0; step < 12; step++) {
        const { start, count } = chanceRange(random, model);
        const few = Math.min(count, 20_000);
        bits.set(start, few);
        model.fill(start, few, true);
      }
      for (let step = 0; step < 6; step++) {
        const from = Math.floor(chanceRange(random, model).start / 64) * 64;
        if (from === bits.size) continue;
        const style = random.below(3);
        const length = 8 * (1 + random.below(style === 0 ? 20 : 1200));
        const wanted = model.bytes(from, length);
        const got = new Uint8Array(length).fill(0xee);
        bits.serialize(from, got);
        expect(kernel.firstDifference(got, wanted), `serialised from ${from}`).toBe(-1);

        if (style === 0) random.fill(got);
        else got.fill(style === 1 ? 0xff : 0);
        bits.deserialize(from, got);
        const inside = Math.min(length * 8, bits.size - from);
        if (style > 0) model.fill(from, inside, style === 1);
        else for (let i = 0; i < inside; i++) model.fill(from + i, 1, valueAt(got, i));
        same(random, bits, model);
      }
    });
  });
});

function valueAt(bytes: Uint8Array, bit: number): boolean {
  return Math.floor(bytes[Math.floor(bit / 8)]! / 2 ** (bit % 8)) % 2 === 1;
}

function same(random: Random, bits: HBitmap, model: Intervals): void {
  expect(bits.size).toBe(model.size);
  expect(bits.count).toBe(model.count);
  for (let i = 0; i < 4; i++) {
    const { start, count } = chanceRange(random, model);
    const end = start + count;
    const asked = `${start} .. ${end}`;
    const set = model.next(start, end, true);
    const clear = model.next(start, end, false);
    expect(bits.nextSet(start, end), `next set of ${asked}`).toBe(set);
    expect(bits.nextClear(start, end), `next clear of ${asked}`).toBe(clear);
    if (count === 0) continue;
    expect(bits.get(start), `bit ${start}`).toBe(set === start);
    const kind = set === null ? "clear" : clear === null ? "set" : "mixed";
    expect(bits.kindOf(start, count), `kind of ${asked}`).toBe(kind);
    const most = 1 + random.below(100_000);
    const last = set === null ? 0 : Math.min(end, set + most);
    const area =
      set === null ? null : { start: set, count: (model.next(set, last, false) ?? last) - set };
    expect(bits.nextArea(start, end, most), `area in ${asked}`).toEqual(area);
  }
}

/** A range whose ends are likely to be where something else ends: in the model, or in the tree. */
function chanceRange(random: Random, model: Intervals): { start: number; count: number } {
  const place = () => {
    const unit = pick(random, [64, 2 ** 15, 2 ** 25, 2 ** 35]);
    const border =
      unit * random.below(Math.max(1, Math.min(2 ** 31, Math.ceil(model.size / unit))));
    const base = pick(random, [0, model.size, border, border, pick(random, [0, ...model.edges])]);
    const at = base + random.below(5) - 2 + pick(random, [0, 0, random.below(100_000)]);
    return Math.min(model.size, Math.max(0, at));
  };
  const [a, b] = [place(), place()];
  return { start: Math.min(a, b), count: Math.abs(a - b) };
}
