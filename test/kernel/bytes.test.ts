import { beforeAll, describe, expect, it } from "vitest";
import { MiB } from "../../src/base/bytes.ts";
import type { Random } from "../../src/base/random.ts";
import type { Kernel } from "../../src/kernel/kernel.ts";
import { eachSeed, inBothPlaces, pick, place } from "./chance.ts";
import { newKernel, testKernel } from "./load.ts";
import * as twins from "./twins.ts";

/** Longer than every piece together that it takes to get from the first one to whole scratch. */
const LARGE = 9 * MiB + 13;

let kernel: Kernel;
beforeAll(async () => {
  kernel = await testKernel();
});

describe("isZero", () => {
  it("says yes to nothing, and to zeroes of every short length at every alignment", () => {
    for (let length = 0; length <= 200; length++) {
      for (const inside of [true, false]) {
        // The guards around the buffer are not zero, so a look outside is a wrong answer.
        const { buf, leave } = place(kernel, new Uint8Array(length), inside, length % 16);
        expect(kernel.isZero(buf), `${length} zeroes, inside ${inside}`).toBe(true);
        leave();
      }
    }
  });

  it("finds a single byte wherever it is", () => {
    for (const length of [1, 7, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 200, 512]) {
      const { buf, leave } = place(kernel, new Uint8Array(length), true, length % 16);
      for (let at = 0; at < length; at++) {
        buf[at] = 1 << (at % 8);
        expect(kernel.isZero(buf), `byte ${at} of ${length}`).toBe(false);
        buf[at] = 0;
      }
      leave();
    }
  });

  it("finds a single byte in any piece of a large buffer outside wasm memory", () => {
    const buf = new Uint8Array(LARGE);
    for (const at of [0, 4095, 4096, 12287, 12288, 2 * MiB, 4 * MiB - 1, 4 * MiB, LARGE - 1]) {
      buf[at] = 128;
      expect(kernel.isZero(buf), `byte ${at}`).toBe(false);
      buf[at] = 0;
    }
    expect(kernel.isZero(buf)).toBe(true);
  });

  it("reads all of wasm memory that there is, up to its last byte", async () => {
    const kernel = await newKernel();
    const buf = kernel.allocate(kernel.freeBytes)!;
    expect(buf.byteOffset + buf.length).toBe(kernel.memoryBytes);
    expect(kernel.isZero(buf)).toBe(true);
    for (const at of [1, 12_345_677, buf.length - 17, buf.length - 1]) {
      buf[at] = 1;
      expect(kernel.isZero(buf), `byte ${at}`).toBe(false);
      buf[at] = 0;
    }
  });

  it("agrees with its twin", () => {
    eachSeed(500, (random) => {
      inBothPlaces(kernel, random, sparse(random, random.below(3000)), (buf) => {
        expect(kernel.isZero(buf)).toBe(twins.isZero(buf));
      });
    });
  });
});

describe("zeroRun", () => {
  it("splits a chunk into zeroes and data, cluster by cluster", () => {
    const chunk = new Uint8Array(6 * 512 + 100);
    chunk[2 * 512] = 1;
    chunk[4 * 512 - 1] = 1;
    chunk[chunk.length - 1] = 1;
    for (const inside of [true, false]) {
      const { buf, leave } = place(kernel, chunk, inside);
      const runs: string[] = [];
      for (let at = 0; at < buf.length; ) {
        const { bytes, zero } = kernel.zeroRun(buf.subarray(at), 512);
        runs.push(`${bytes} ${zero ? "zero" : "data"}`);
        at += bytes;
      }
      expect(runs).toEqual(["1024 zero", "1024 data", "1024 zero", "100 data"]);
      leave();
    }
  });

  it("takes a granule larger than the buffer, of any size", () => {
    for (const inside of [true, false]) {
      const { buf, leave } = place(kernel, new Uint8Array(100), inside);
      expect(kernel.zeroRun(buf, 2 ** 40)).toEqual({ bytes: 100, zero: true });
      leave();
    }
  });

  it("crosses a large buffer", () => {
    const bytes = new Uint8Array(LARGE);
    bytes[LARGE - 1] = 1;
    for (const inside of [true, false]) {
      const { buf, leave } = place(kernel, bytes, inside);
      expect(kernel.zeroRun(buf, 65536)).toEqual({ bytes: 9 * MiB, zero: true });
      expect(kernel.zeroRun(buf, 4 * MiB)).toEqual({ bytes: 8 * MiB, zero: true });
      leave();
    }
  });

  it("refuses an empty buffer and a granule of nothing", () => {
    expect(() => kernel.zeroRun(new Uint8Array(0), 512)).toThrow("not empty");
    expect(() => kernel.zeroRun(new Uint8Array(9), 0)).toThrow("granule");
  });

  it("agrees with its twin", () => {
    eachSeed(500, (random) => {
      const bytes = sparse(random, 1 + random.below(6000));
      const granule = pick(random, [1, 1 + random.below(700), 512, 4096, 10_000]);
      inBothPlaces(kernel, random, bytes, (buf) => {
        expect(kernel.zeroRun(buf, granule)).toEqual(twins.zeroRun(buf, granule));
      });
    });
  });
});

describe("firstDifference", () => {
  it("is -1 for equals, and for nothing", () => {
    expect(kernel.firstDifference(new Uint8Array(0), new Uint8Array(0))).toBe(-1);
    expect(kernel.firstDifference(new Uint8Array(LARGE), new Uint8Array(LARGE))).toBe(-1);
  });

  it("finds the first of two in any piece", () => {
    const [a, b] = [new Uint8Array(LARGE), new Uint8Array(LARGE)];
    a[LARGE - 1] = 1;
    for (const at of [LARGE - 1, 4 * MiB, 4 * MiB - 1, 2 * MiB, 2 * MiB - 1, 17, 0]) {
      b[at] = 2;
      expect(kernel.firstDifference(a, b)).toBe(at);
    }
  });

  it("agrees with its twin", () => {
    eachSeed(300, (random) => {
      const a = sparse(random, random.below(500));
      const b = a.slice();
      if (a.length > 0 && random.below(4) > 0) b[random.below(a.length)]! ^= 1 + random.below(255);
      inBothPlaces(kernel, random, a, (left) => {
        inBothPlaces(kernel, random, b, (right) => {
          expect(kernel.firstDifference(left, right)).toBe(twins.firstDifference(a, b));
        });
      });
    });
  });
});

/** Zeroes, with nothing to a handful of stretches of data in them. */
function sparse(random: Random, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let stretches = random.below(4); stretches > 0; stretches--) {
    const start = random.below(length + 1);
    const end = Math.min(length, start + pick(random, [1, random.below(40), random.below(2000)]));
    random.fill(bytes.subarray(start, end));
  }
  return bytes;
}
