import { beforeAll, describe, expect, it } from "vitest";
import { MiB } from "../../src/base/bytes.ts";
import type { Random } from "../../src/base/random.ts";
import type { Kernel } from "../../src/kernel/kernel.ts";
import { eachSeed, inBothPlaces, pick, place, range } from "./chance.ts";
import { testKernel } from "./load.ts";
import * as twins from "./twins.ts";

const ORDERS = [0, 1, 2, 3, 4, 5, 6];

let kernel: Kernel;
beforeAll(async () => {
  kernel = await testKernel();
});

describe("refcountGet and refcountAdd", () => {
  it("lay refcounts out as qcow2 does: low bits first below a byte, big-endian above", () => {
    const laidOut = (order: number, delta: number) => {
      const block = new Uint8Array(16);
      expect(kernel.refcountAdd(block, order, 1, 1, delta)).toBe(-1);
      expect(kernel.refcountGet(block, order, 1)).toBe(delta);
      return [...block.subarray(0, 16)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    };
    expect(laidOut(0, 1)).toBe("02000000000000000000000000000000");
    expect(laidOut(1, 2)).toBe("08000000000000000000000000000000");
    expect(laidOut(2, 9)).toBe("90000000000000000000000000000000");
    expect(laidOut(3, 0x12)).toBe("00120000000000000000000000000000");
    expect(laidOut(4, 0x1234)).toBe("00001234000000000000000000000000");
    expect(laidOut(5, 0x12345678)).toBe("00000000123456780000000000000000");
    expect(laidOut(6, 0x12345678)).toBe("00000000000000000000000012345678");
  });

  it.each(ORDERS)("stop at both ends of the range, and then change nothing (order %i)", (order) => {
    const highest = 2n ** BigInt(2 ** order) - 1n;
    for (const inside of [true, false]) {
      const { buf, leave } = place(kernel, new Uint8Array(512), inside, 1);
      twins.setRefcount(buf, order, 3, highest);
      twins.setRefcount(buf, order, 5, 1n);
      const before = buf.slice();
      expect(kernel.refcountAdd(buf, order, 0, 8, 1)).toBe(3);
      expect(kernel.refcountAdd(buf, order, 3, 5, -1)).toBe(4);
      expect(kernel.refcountAdd(buf, order, 5, 1, -2)).toBe(5);
      if (order < 5) expect(kernel.refcountAdd(buf, order, 6, 1, 2 ** 31 - 1)).toBe(6);
      expect(twins.firstDifference(buf, before)).toBe(-1);
      expect(kernel.refcountAdd(buf, order, 3, 1, -1)).toBe(-1);
      expect(twins.refcountAt(buf, order, 3)).toBe(highest - 1n);
      expect(kernel.refcountAdd(buf, order, 5, 1, -1)).toBe(-1);
      expect(twins.refcountAt(buf, order, 5)).toBe(0n);
      leave();
    }
  });

  it("say 2^53 for whatever is too large to be exact", () => {
    const block = new Uint8Array(24);
    [2n ** 53n - 1n, 2n ** 53n + 1n, 2n ** 64n - 1n].forEach((value, i) => {
      twins.setRefcount(block, 6, i, value);
    });
    const told = [0, 1, 2].map((index) => kernel.refcountGet(block, 6, index));
    expect(told).toEqual([2 ** 53 - 1, 2 ** 53, 2 ** 53]);
  });

  it("change nothing for a range of nothing or a delta of nothing", () => {
    const block = new Uint8Array(8).fill(0xff);
    expect(kernel.refcountAdd(block, 4, 4, 0, 1)).toBe(-1);
    expect(kernel.refcountAdd(block, 4, 0, 4, 0)).toBe(-1);
    expect([...block]).toEqual(new Array(8).fill(0xff));
  });

  it("take the largest block at once", () => {
    for (const inside of [true, false]) {
      const { buf, leave } = place(kernel, new Uint8Array(2 * MiB), inside, 7);
      expect(kernel.refcountAdd(buf, 4, 0, MiB, 0x0102)).toBe(-1);
      expect(buf.every((byte, i) => byte === (i % 2 === 0 ? 1 : 2))).toBe(true);
      buf.fill(0xff, buf.length - 2);
      expect(kernel.refcountAdd(buf, 4, 0, MiB, 1)).toBe(MiB - 1);
      leave();
    }
  });

  it("refuse what is not in the block, or no delta", () => {
    const block = new Uint8Array(512);
    expect(() => kernel.refcountGet(block, 4, 256)).toThrow("in their array");
    expect(() => kernel.refcountAdd(block, 4, 250, 7, 1)).toThrow("in their array");
    expect(() => kernel.refcountAdd(block, 7, 0, 1, 1)).toThrow("1 << 6");
    expect(() => kernel.refcountAdd(block, 4, 0, 1, 2 ** 31)).toThrow("i32");
    expect(() => kernel.refcountAdd(block, 4, 0, 1, 0.5)).toThrow("i32");
    expect(() => kernel.refcountGet(new Uint8Array(12), 4, 0)).toThrow("whole words");
  });

  it("agree with their twins", () => {
    eachSeed(400, (random) => {
      const order = random.below(7);
      const block = chanceBlock(random, order, 8 * (1 + random.below(30)));
      const { start, count } = range(random, (block.length * 8) / 2 ** order);
      const large = random.below(2 ** 31) - 2 ** 30;
      const delta = pick(random, [1, 1, -1, -1, 0, 2, random.below(300) - 150, large]);
      const wanted = block.slice();
      const answer = twins.refcountAdd(wanted, order, start, count, delta);
      inBothPlaces(kernel, random, block, (buf) => {
        expect(kernel.refcountAdd(buf, order, start, count, delta)).toBe(answer);
        expect(twins.firstDifference(buf, wanted)).toBe(-1);
        for (let i = start; i < start + Math.min(count, 9); i++) {
          expect(kernel.refcountGet(buf, order, i)).toBe(twins.refcountGet(wanted, order, i));
        }
      });
    });
  });
});

describe("findFreeRun", () => {
  it("finds the next run of zeroes, cut at what is wanted", () => {
    const block = new Uint8Array(64);
    for (const used of [0, 1, 4, 9]) kernel.refcountAdd(block, 4, used, 1, 1);
    expect(kernel.findFreeRun(block, 4, 0, 32, 100)).toEqual({ index: 2, count: 2 });
    expect(kernel.findFreeRun(block, 4, 3, 29, 100)).toEqual({ index: 3, count: 1 });
    expect(kernel.findFreeRun(block, 4, 4, 28, 100)).toEqual({ index: 5, count: 4 });
    expect(kernel.findFreeRun(block, 4, 4, 28, 3)).toEqual({ index: 5, count: 3 });
    expect(kernel.findFreeRun(block, 4, 9, 23, 100)).toEqual({ index: 10, count: 22 });
    expect(kernel.findFreeRun(block, 4, 10, 5, 100)).toEqual({ index: 10, count: 5 });
    expect(kernel.findFreeRun(block, 4, 0, 2, 1)).toBeNull();
    expect(kernel.findFreeRun(block, 4, 3, 0, 1)).toBeNull();
  });

  it.each(ORDERS)("sees a refcount by each of its bits (order %i)", (order) => {
    const bits = 2 ** order;
    for (let bit = 0; bit < bits; bit++) {
      const block = new Uint8Array(64);
      for (const index of [0, 1, 5, 6, 7])
        twins.setRefcount(block, order, index, 1n << BigInt(bit));
      expect(kernel.findFreeRun(block, order, 0, 8, 9)).toEqual({ index: 2, count: 3 });
      expect(kernel.findFreeRun(block, order, 5, 3, 9)).toBeNull();
    }
  });

  it.each(ORDERS)(
    "finds the one free refcount at the end of the largest block (order %i)",
    (order) => {
      const bytes = new Uint8Array(2 * MiB).fill(0xff);
      const last = (bytes.length * 8) / 2 ** order - 1;
      twins.setRefcount(bytes, order, last, 0n);
      for (const inside of [true, false]) {
        const { buf, leave } = place(kernel, bytes, inside, 9);
        expect(kernel.findFreeRun(buf, order, 0, last + 1, 9)).toEqual({ index: last, count: 1 });
        expect(kernel.findFreeRun(buf, order, 0, last, 9)).toBeNull();
        buf.fill(0);
        const all = { index: 1, count: last };
        expect(kernel.findFreeRun(buf, order, 1, last, 2 ** 40)).toEqual(all);
        leave();
      }
    },
  );

  it("refuses what is not in the block, and to want nothing", () => {
    const block = new Uint8Array(512);
    expect(() => kernel.findFreeRun(block, 4, 100, 157, 1)).toThrow("in their array");
    expect(() => kernel.findFreeRun(block, 4, 0, 256, 0)).toThrow("wanted");
  });

  it("agrees with its twin", () => {
    eachSeed(500, (random) => {
      const order = random.below(7);
      const block = chanceBlock(random, order, 8 * (1 + random.below(60)));
      const { start, count } = range(random, (block.length * 8) / 2 ** order);
      const want = pick(random, [1, 1 + random.below(100), 1e6]);
      inBothPlaces(kernel, random, block, (buf) => {
        expect(kernel.findFreeRun(buf, order, start, count, want)).toEqual(
          twins.findFreeRun(block, order, start, count, want),
        );
      });
    });
  });
});

/** Stretches of free, of singly used, of full and of any refcounts. */
function chanceBlock(random: Random, order: number, bytes: number): Uint8Array<ArrayBuffer> {
  const block = new Uint8Array(bytes);
  const highest = 2n ** BigInt(2 ** order) - 1n;
  const total = (bytes * 8) / 2 ** order;
  for (let index = 0; index < total; ) {
    const style = random.below(4);
    const end = Math.min(total, index + 1 + pick(random, [0, random.below(9), random.below(200)]));
    for (; index < end; index++) {
      const any = (BigInt(random.below(2 ** 32)) << 32n) + BigInt(random.below(2 ** 32));
      twins.setRefcount(block, order, index, [0n, 1n, highest, any & highest][style]!);
    }
  }
  return block;
}
