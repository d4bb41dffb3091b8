import { beforeAll, describe, expect, it } from "vitest";
import { MiB } from "../../src/base/bytes.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import type { Kernel } from "../../src/kernel/kernel.ts";
import { eachSeed, inBothPlaces, pick, place } from "./chance.ts";
import { testKernel } from "./load.ts";
import * as twins from "./twins.ts";

let kernel: Kernel;
beforeAll(async () => {
  kernel = await testKernel();
});

describe("copy", () => {
  it("copies to the target's front and leaves the rest, from anywhere to anywhere", () => {
    eachSeed(100, (random) => {
      const source = noise(random, random.below(300));
      const target = noise(random, source.length + random.below(40));
      const wanted = Uint8Array.from([...source, ...target.subarray(source.length)]);
      inBothPlaces(kernel, random, source, (from) => {
        inBothPlaces(kernel, random, target, (to) => {
          kernel.copy(to, from);
          expect(twins.firstDifference(to, wanted)).toBe(-1);
        });
      });
    });
  });

  it.each([
    [3, 0],
    [0, 3],
  ])("moves overlapping bytes whole, to %i from %i", (to, from) => {
    for (const inside of [true, false]) {
      const { buf, leave } = place(kernel, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8), inside);
      kernel.copy(buf.subarray(to, to + 5), buf.subarray(from, from + 5));
      expect([...buf.subarray(to, to + 5)]).toEqual(to === 0 ? [4, 5, 6, 7, 8] : [1, 2, 3, 4, 5]);
      leave();
    }
  });

  it("refuses a source longer than its target", () => {
    expect(() => kernel.copy(new Uint8Array(7), new Uint8Array(8))).toThrow("fits");
  });
});

describe("gather and scatter", () => {
  it("pick clusters by a list, and put them back", () => {
    const text = (buf: Uint8Array) => new TextDecoder().decode(buf);
    const source = new TextEncoder().encode("AAbbCCddEEff");
    const list = Uint32Array.of(2, 0, 5);
    for (const inside of [true, false]) {
      const from = place(kernel, source, inside);
      const to = place(kernel, new TextEncoder().encode("______"), inside);
      const back = place(kernel, new TextEncoder().encode("____________"), inside);
      kernel.gather(to.buf, from.buf, list, 2);
      kernel.scatter(back.buf, to.buf, list, 2);
      expect(text(to.buf.slice())).toBe("CCAAff");
      expect(text(back.buf.slice())).toBe("AA__CC____ff");
      for (const { leave } of [from, to, back]) leave();
    }
  });

  it("take the last of two that go to one place", () => {
    for (const inside of [true, false]) {
      const to = place(kernel, new Uint8Array(4), inside);
      const from = place(kernel, Uint8Array.of(1, 1, 2, 2), inside);
      kernel.scatter(to.buf, from.buf, Uint32Array.of(1, 1), 2);
      expect([...to.buf]).toEqual([0, 0, 2, 2]);
      to.leave();
      from.leave();
    }
  });

  it("take a list longer than scratch", () => {
    const count = MiB;
    const list = Uint32Array.from({ length: count }, (_, i) => (i * 7919) % count);
    const source = place(kernel, noise(seededRandom(1), count), true);
    const target = place(kernel, new Uint8Array(count), true);
    kernel.gather(target.buf, source.buf, list, 1);
    expect(list.every((index, i) => target.buf[i] === source.buf[index])).toBe(true);
    target.buf.fill(0);
    kernel.scatter(target.buf, source.buf, list, 1);
    expect(list.every((index, i) => target.buf[index] === source.buf[i])).toBe(true);
    source.leave();
    target.leave();
  });

  it("refuse a list that leads outside, or has no room, or moves within one area", () => {
    const buf = new Uint8Array(4096);
    const list = Uint32Array.of(0, 8);
    expect(() => kernel.gather(new Uint8Array(4096), buf, list, 512)).toThrow("is there");
    expect(() => kernel.scatter(buf, new Uint8Array(4096), list, 512)).toThrow("is there");
    expect(() => kernel.gather(new Uint8Array(512), buf, list, 512)).toThrow("room");
    expect(() => kernel.gather(buf, buf, Uint32Array.of(1), 512)).toThrow("one area");
    expect(() => kernel.gather(new Uint8Array(4096), buf, list, 0)).toThrow("bytes");
  });

  it("agree with their twins, wherever the three buffers lie", () => {
    eachSeed(200, (random) => {
      const clusterBytes = pick(random, [1, 3, 16, 512]);
      const [many, count] = [1 + random.below(20), random.below(20)];
      const list = Uint32Array.from({ length: count }, () => random.below(many));
      const large = noise(random, many * clusterBytes);
      const small = noise(random, count * clusterBytes);
      const gathered = small.slice();
      const scattered = large.slice();
      twins.gather(gathered, large, list, clusterBytes);
      twins.scatter(scattered, small, list, clusterBytes);

      const listInside = place(kernel, new Uint8Array(list.buffer), true);
      const { buffer, byteOffset } = listInside.buf;
      const indexes = pick(random, [list, new Uint32Array(buffer, byteOffset, count)]);
      inBothPlaces(kernel, random, large, (from) => {
        inBothPlaces(kernel, random, small, (to) => {
          kernel.gather(to, from, indexes, clusterBytes);
          expect(twins.firstDifference(to, gathered)).toBe(-1);
        });
      });
      inBothPlaces(kernel, random, large, (to) => {
        inBothPlaces(kernel, random, small, (from) => {
          kernel.scatter(to, from, indexes, clusterBytes);
          expect(twins.firstDifference(to, scattered)).toBe(-1);
        });
      });
      listInside.leave();
    });
  });
});

function noise(random: Random, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  random.fill(bytes);
  return bytes;
}
