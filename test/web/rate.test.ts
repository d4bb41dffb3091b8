import { expect, test } from "vitest";
import { addSample, etaSeconds, type RateMeter, rateOf, STILL } from "../../web/rate.ts";

const MiB = 2 ** 20;

test("a steady job has its own rate", () => {
  expect(rateOf(run(20, 8 * MiB))).toBeCloseTo(8 * MiB);
});

test("says nothing until it has seen enough", () => {
  expect(rateOf(STILL)).toBeUndefined();
  expect(rateOf(addSample(STILL, 0, 0))).toBeUndefined();
  expect(rateOf(addSample(addSample(STILL, 0, 0), 250, MiB))).toBeUndefined();
});

test("a hole that was skipped is forgotten after one window", () => {
  let meter = addSample(run(8, MiB), 2100, 1000 * MiB);
  expect(rateOf(meter)).toBeGreaterThan(100 * MiB);
  for (let t = 0; t <= 5000; t += 250) {
    meter = addSample(meter, 2100 + t, 1000 * MiB + (t / 1000) * MiB);
  }
  expect(rateOf(meter)).toBeCloseTo(MiB);
});

test("a job that stands still comes down to zero, and has no end in sight", () => {
  let meter = run(8, MiB);
  const { atMs, offset } = meter.at(-1)!;
  for (let t = 250; t <= 5000; t += 250) meter = addSample(meter, atMs + t, offset);
  expect(rateOf(meter)).toBe(0);
  expect(etaSeconds(meter, MiB)).toBeUndefined();
});

test("a second run starts afresh", () => {
  expect(addSample(run(20, MiB), 9000, 0)).toEqual([{ atMs: 9000, offset: 0 }]);
});

test("keeps no more samples than the window holds", () => {
  expect(run(10_000, MiB).length).toBeLessThan(20);
});

test("the end is as far as the rest at this rate", () => {
  expect(etaSeconds(run(20, 8 * MiB), 80 * MiB)).toBeCloseTo(10);
  expect(etaSeconds(run(20, 8 * MiB), 0)).toBe(0);
  expect(etaSeconds(STILL, 0)).toBe(0);
  expect(etaSeconds(STILL, 1)).toBeUndefined();
});

/** `count` samples, four in a second, of a job that does `rate` bytes per second. */
function run(count: number, rate: number): RateMeter {
  let meter = STILL;
  for (let i = 0; i < count; i++) meter = addSample(meter, i * 250, (i * rate) / 4);
  return meter;
}
