import { describe, expect, it } from "vitest";
import { Arena, GRANULE } from "../../src/kernel/arena.ts";
import { eachSeed } from "./chance.ts";

describe("Arena", () => {
  it("hands out buffers of the exact length, each on a granule of its own", () => {
    const arena = new Arena(new ArrayBuffer(8 * GRANULE), 0);
    const [a, b] = [arena.allocate(1)!, arena.allocate(GRANULE + 1)!];
    expect([a.byteOffset, a.length]).toEqual([0, 1]);
    expect([b.byteOffset, b.length]).toEqual([GRANULE, GRANULE + 1]);
    expect(arena.freeBytes).toBe(5 * GRANULE);
  });

  it("starts at the first granule from its start on and ends with the last whole one", () => {
    const arena = new Arena(new ArrayBuffer(4 * GRANULE + 100), 1);
    expect(arena.freeBytes).toBe(3 * GRANULE);
    expect(arena.allocate(3 * GRANULE)!.byteOffset).toBe(GRANULE);
  });

  it("answers null when there is no room, and changes nothing", () => {
    const arena = new Arena(new ArrayBuffer(4 * GRANULE), 0);
    expect(arena.allocate(4 * GRANULE + 1)).toBeNull();
    expect(arena.allocate(4 * GRANULE)).not.toBeNull();
    expect(arena.allocate(1)).toBeNull();
  });

  it("takes the first stretch that fits", () => {
    const arena = new Arena(new ArrayBuffer(8 * GRANULE), 0);
    const [a, , c] = [1, 1, 2, 1].map((granules) => arena.allocate(granules * GRANULE)!);
    arena.free(a!);
    arena.free(c!);
    expect(arena.allocate(2 * GRANULE)!.byteOffset).toBe(2 * GRANULE);
    expect(arena.allocate(GRANULE)!.byteOffset).toBe(0);
  });

  // The middle one last, the first one last, the last one last: it joins left, right and both.
  it.each([["acb"], ["cba"], ["abc"], ["bac"], ["bca"], ["cab"]])(
    "is whole again when all is given back, in the order %s",
    (order) => {
      const arena = new Arena(new ArrayBuffer(3 * GRANULE), 0);
      const bufs = new Map(["a", "b", "c"].map((name) => [name, arena.allocate(GRANULE)!]));
      for (const name of order) arena.free(bufs.get(name)!);
      expect(arena.allocate(3 * GRANULE)).not.toBeNull();
    },
  );

  it("refuses to take back what it did not hand out, or only a part, or twice", () => {
    const arena = new Arena(new ArrayBuffer(8 * GRANULE), 0);
    const buf = arena.allocate(2 * GRANULE)!;
    expect(() => arena.free(new Uint8Array(2 * GRANULE))).toThrow("came from this arena");
    expect(() => arena.free(buf.subarray(0, GRANULE))).toThrow("handed out");
    expect(() => arena.free(buf.subarray(GRANULE))).toThrow("handed out");
    arena.free(buf);
    expect(() => arena.free(buf)).toThrow("handed out");
  });

  it.each([0, -1, 1.5, Number.NaN])("refuses to hand out %d bytes", (bytes) => {
    const arena = new Arena(new ArrayBuffer(8 * GRANULE), 0);
    expect(() => arena.allocate(bytes)).toThrow("whole length above zero");
  });

  it("never hands out a byte twice, says no only when no stretch fits, and loses nothing", () => {
    eachSeed(15, (random) => {
      const granules = 64;
      const arena = new Arena(new ArrayBuffer(granules * GRANULE), 0);
      const owner = new Array<Uint8Array | null>(granules).fill(null);
      const taken: Uint8Array[] = [];
      for (let step = 0; step < 400; step++) {
        if (random.below(5) < 3) {
          const bytes = 1 + random.below(12 * GRANULE);
          const buf = arena.allocate(bytes);
          const fits = longestGap(owner) * GRANULE >= bytes;
          expect(buf !== null).toBe(fits);
          if (buf === null) continue;
          taken.push(buf);
          for (const i of granulesOf(buf)) {
            expect(owner[i]).toBeNull();
            owner[i] = buf;
          }
        } else if (taken.length > 0) {
          const [buf] = taken.splice(random.below(taken.length), 1);
          arena.free(buf!);
          for (const i of granulesOf(buf!)) owner[i] = null;
        }
        expect(arena.freeBytes).toBe(owner.filter((buf) => buf === null).length * GRANULE);
      }
      for (const buf of taken) arena.free(buf);
      expect(arena.allocate(granules * GRANULE)).not.toBeNull();
    });
  });
});

function granulesOf(buf: Uint8Array): number[] {
  const first = buf.byteOffset / GRANULE;
  return Array.from({ length: Math.ceil(buf.length / GRANULE) }, (_, i) => first + i);
}

function longestGap(owner: readonly unknown[]): number {
  let longest = 0;
  let gap = 0;
  for (const buf of owner) {
    gap = buf === null ? gap + 1 : 0;
    longest = Math.max(longest, gap);
  }
  return longest;
}
