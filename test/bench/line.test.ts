import { expect, test } from "vitest";
import { type Line, measure, type Sides, spread } from "./line.ts";

test("the median of an even number of values lies between the two in the middle", () => {
  expect(spread([4, 1, 3, 2])).toEqual({ median: 2.5, min: 1, max: 4 });
  expect(spread([9, 10, 1])).toEqual({ median: 9, min: 1, max: 10 });
});

test("measures in turns, throws the warm-up away, and divides pair by pair", async () => {
  const calls: string[] = [];
  const side = (name: string, values: number[]) => async () => {
    calls.push(name);
    return values.shift()!;
  };
  const sides: Sides = {
    warmUp: true,
    // The machine is slow at the second pair: values spread, ratios do not.
    ours: side("ours", [1000, 8, 2, 8]),
    theirs: side("theirs", [1, 16, 4, 16]),
  };
  const result = await measure(lineWith({ atLeast: 0.7 }), sides, 3, (run) =>
    calls.push(String(run)),
  );
  expect(calls.join(" ")).toBe("0 ours theirs 1 ours theirs 2 theirs ours 3 ours theirs");
  expect(result).toMatchObject({ ratio: 0.5, median: 0.5, min: 0.5, max: 0.5, aimMet: false });
  expect(result.measured.ours).toEqual({ median: 8, min: 2, max: 8 });
});

test("an aim can be a floor, a ceiling, or none", async () => {
  const sides: Sides = { warmUp: false, ours: async () => 2, theirs: async () => 1 };
  const met = async (aim: Line["aim"]) => (await measure(lineWith(aim), sides, 1, () => {})).aimMet;
  expect(await met({ atLeast: 2 })).toBe(true);
  expect(await met({ atLeast: 2.1 })).toBe(false);
  expect(await met({ atMost: 2 })).toBe(true);
  expect(await met({ atMost: 1.9 })).toBe(false);
  expect(await met(null)).toBe(true);
});

function lineWith(aim: Line["aim"]): Line {
  return {
    name: "test",
    unit: "MiB/s",
    reference: "itself",
    aim,
    runs: 1,
    prepare: () => Promise.reject(new Error("not asked for")),
  };
}
