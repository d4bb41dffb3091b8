import { expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { seededRandom } from "../../src/base/random.ts";
import { BurstCap, RateLimit } from "../../src/base/rate-limit.ts";

it("never waits without a limit", () => {
  const limit = new RateLimit();
  expect(limit.delay(100 * MiB, 0)).toBe(0);
  limit.setSpeed(0);
  expect(limit.delay(100 * MiB, 1)).toBe(0);
});

it("#47 lets pairs of 64 KiB through every 125 ms at 1 MiB/s", () => {
  const limit = limited(MiB);
  expect(limit.delay(64 * KiB, 1000)).toBe(0);
  expect(limit.delay(64 * KiB, 1000)).toBeCloseTo(125.0, 2);
  expect(limit.delay(64 * KiB, 1125.01)).toBe(0);
  expect(limit.delay(64 * KiB, 1125.01)).toBeCloseTo(125.0, 2);
});

it("asks 500 ms for 512 KiB and 1000 ms for 1 MiB at 1 MiB/s", () => {
  expect(limited(MiB).delay(512 * KiB, 0)).toBeCloseTo(500, 1);
  expect(limited(MiB).delay(MiB, 0)).toBeCloseTo(1000, 1);
});

it("#47 has a quota of a tenth of the speed, cut to a whole number, and waits from exactly there", () => {
  // [speed, quota per 100 ms]
  for (const [speed, quota] of [
    [1, 1],
    [9, 1],
    [10, 1],
    [19, 1],
    [20, 2],
    [29, 2],
    [30, 3],
    [70, 7],
    [MiB, 104857],
  ] as const) {
    expect(limited(speed).delay(quota - 1, 0), `${speed} B/s, one less`).toBe(0);
    expect(limited(speed).delay(quota, 0), `${speed} B/s`).toBe(100);
  }
});

it("adds up within a slice, and a slice lasts as long as its debt", () => {
  const limit = limited(1000);
  expect(limit.delay(60, 0)).toBe(0);
  expect(limit.delay(90, 10)).toBe(140);
  expect(limit.delay(0, 100)).toBe(50);
  // Exactly at its end a slice is still the same one.
  expect(limit.delay(0, 150)).toBe(0);
  expect(limit.delay(50, 150)).toBe(50);
});

it("forgets what a slice left unused", () => {
  const limit = limited(1000);
  expect(limit.delay(1, 0)).toBe(0);
  expect(limit.delay(99, 100.5)).toBe(0);
  expect(limit.delay(1, 100.5)).toBe(100);
});

it("only asks when it charges nothing", () => {
  const limit = limited(1000);
  limit.delay(200, 0);
  expect([limit.delay(0, 50), limit.delay(0, 50)]).toEqual([150, 150]);
});

it("keeps the account when the speed changes, and never answers less than 0", () => {
  const limit = limited(1000);
  limit.delay(400, 0);
  limit.setSpeed(2000);
  expect(limit.delay(0, 50)).toBe(150);
  limit.setSpeed(100_000);
  expect(limit.delay(0, 60)).toBe(0);
  limit.setSpeed(1000);
  expect(limit.delay(0, 60)).toBe(340);
});

it("refuses a negative speed as our bug", () => {
  expect(() => limited(-1)).toThrow("Invariant broken");
});

function limited(speed: number): RateLimit {
  const limit = new RateLimit();
  limit.setSpeed(speed);
  return limit;
}

it("lets at most `speed` and one chunk start in any second, whatever the chunks, with the cap", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = seededRandom(seed);
    const chance = () => random.below(1e6) / 1e6;
    const speed = 1 + Math.floor(chance() * 2 ** (4 + (seed % 22)));
    const chunkMax = 1 + Math.floor(chance() * 2 ** (3 + (seed % 17)));
    const limit = limited(speed);
    const cap = new BurstCap();
    const starts: { at: number; bytes: number }[] = [];
    let now = 0;
    for (let i = 0; i < 300; i++) {
      // Now and then somebody is late, or has rested.
      if (chance() < 0.1) now += chance() * 1500;
      for (let wait = 1; wait > 0; now += wait) {
        wait = Math.max(limit.delay(0, now), cap.delay(speed, now));
      }
      const bytes = 1 + Math.floor(chance() * chunkMax);
      limit.delay(bytes, now);
      cap.record(bytes, now);
      starts.push({ at: now, bytes });
    }
    for (const [i, { at, bytes }] of starts.entries()) {
      let sum = 0;
      for (let k = i; k >= 0 && starts[k]!.at + 1000 > at; k--) sum += starts[k]!.bytes;
      expect(sum, `seed ${seed}, start ${i}`).toBeLessThanOrEqual(speed + bytes);
    }
  }
});

it("keeps its log short however many small starts there are", () => {
  const cap = new BurstCap();
  let started = 0;
  for (let now = 0; now < 3000; now += 0.01) {
    if (cap.delay(100_000, now) > 0) continue;
    cap.record(1, now);
    started++;
  }
  expect(started).toBeGreaterThan(200_000);
  expect(started).toBeLessThanOrEqual(300_003);
});
