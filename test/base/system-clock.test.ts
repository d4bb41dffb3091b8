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

it("lets timers have their turn among many yields", async () => {
  const clock = new SystemClock();
  let rung = false;
  clock.setTimer(1, () => {
    rung = true;
  });
  const due = clock.now() + 5;
  while (clock.now() < due);
  for (let i = 0; i < 10; i++) await clock.yield();
  expect(rung).toBe(true);
});
