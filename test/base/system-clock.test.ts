import { expect, it } from "vitest";
import { SystemClock, sleep } from "../../src/base/clock.ts";

it("waits for months, too", async () => {
  const clock = new SystemClock();
  const calls: number[] = [];
  const months = [2 ** 31 - 1, 2 ** 31, 2 ** 53];
  const timers = months.map((ms) => clock.setTimer(ms, () => calls.push(ms)));
  await sleep(clock, 20);
  expect(calls).toEqual([]);
  for (const timer of timers) timer.cancel();
});
