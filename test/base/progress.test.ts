import { expect, it } from "vitest";
import { ProgressMeter } from "../../src/base/progress.ts";

it("starts as 0 of 0", () => {
  expect(shown(new ProgressMeter())).toBe("0/0");
});

it("counts what is left from what is done", () => {
  const meter = new ProgressMeter();
  meter.setRemaining(100);
  meter.workDone(30);
  expect(shown(meter)).toBe("30/100");
  meter.setRemaining(20);
  expect(shown(meter)).toBe("30/50");
});

it("puts extra work on top, and total may fall behind", () => {
  const meter = new ProgressMeter();
  meter.setRemaining(10);
  meter.increaseRemaining(5);
  meter.workDone(5);
  expect(shown(meter)).toBe("5/15");
  meter.workDone(20);
  expect(shown(meter)).toBe("25/15");
});

it("never goes back", () => {
  expect(() => new ProgressMeter().workDone(-1)).toThrow("progress never goes back");
});

function shown(meter: ProgressMeter): string {
  return `${meter.current}/${meter.total}`;
}
