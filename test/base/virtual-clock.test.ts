import { expect, it } from "vitest";
import { sleep } from "../../src/base/clock.ts";
import { VirtualClock } from "../../src/base/virtual-clock.ts";

it("stands still until it is moved", async () => {
  const clock = new VirtualClock(5);
  await clock.yield();
  expect(clock.now()).toBe(5);
});

it("runs what falls due, by time, then by who was first", async () => {
  const clock = new VirtualClock();
  const rung: string[] = [];
  for (const [ms, name] of [
    [20, "c"],
    [10, "a"],
    [10, "b"],
    [21, "late"],
  ] as const) {
    clock.setTimer(ms, () => rung.push(`${name}@${clock.now()}`));
  }
  await clock.advance(20);
  expect(rung).toEqual(["a@10", "b@10", "c@20"]);
  expect([clock.now(), clock.timerCount]).toEqual([20, 1]);
});

it("lets promises settle between two timers, and runs timers that they set", async () => {
  const clock = new VirtualClock();
  const at: number[] = [];
  const walk = async () => {
    for (let i = 0; i < 3; i++) {
      await sleep(clock, 10);
      await clock.yield();
      at.push(clock.now());
    }
  };
  const end = walk();
  clock.setTimer(15, () => at.push(-15));
  await clock.advance(30);
  await end;
  expect(at).toEqual([10, -15, 20, 30]);
});

it("forgets a cancelled timer, and bears a second cancel", async () => {
  const clock = new VirtualClock();
  const timer = clock.setTimer(1, () => expect.unreachable());
  timer.cancel();
  timer.cancel();
  await clock.advance(5);
});

it("yields on a turn of the event loop, after all promises", async () => {
  const clock = new VirtualClock();
  const order: string[] = [];
  const late = clock.yield().then(() => order.push("yield"));
  await Promise.resolve().then(() => order.push("promise"));
  await late;
  expect(order).toEqual(["promise", "yield"]);
});

it("runs until a promise settles, from timer to timer", async () => {
  const clock = new VirtualClock();
  const hour = sleep(clock, 3_600_000).then(() => "rested");
  clock.setTimer(3_600_001, () => expect.unreachable());
  expect(await clock.runUntil(hour)).toBe("rested");
  expect(clock.now()).toBe(3_600_000);
});

it("settles like the promise it ran for", async () => {
  const clock = new VirtualClock();
  const end = sleep(clock, 10).then(() => Promise.reject(new Error("broken")));
  await expect(clock.runUntil(end)).rejects.toThrow("broken");
});

it("gives up on a promise that never settles", async () => {
  const clock = new VirtualClock();
  await expect(clock.runUntil(new Promise(() => {}), 20)).rejects.toThrow("within 20 steps");
});

it("goes on past somebody who polls", async () => {
  const clock = new VirtualClock();
  let rung = false;
  clock.setTimer(10, () => {
    rung = true;
  });
  const poll = async () => {
    while (!rung) await clock.yield();
  };
  await clock.runUntil(poll());
  expect(clock.now()).toBe(10);
});

it("has one mover at a time, and is free again after a timer threw", async () => {
  const clock = new VirtualClock();
  const first = clock.advance(1);
  await expect(clock.advance(1)).rejects.toThrow("one caller at a time");
  await first;
  clock.setTimer(1, () => {
    throw new Error("in a timer");
  });
  await expect(clock.advance(1)).rejects.toThrow("in a timer");
  await clock.advance(1);
});

it("tells wall time that goes with its own", async () => {
  const clock = new VirtualClock();
  const before = clock.timestamp();
  await clock.advance(1500.25);
  const after = clock.timestamp();
  expect(after.seconds - before.seconds).toBe(1);
  expect(after.microseconds - before.microseconds).toBe(500_250);
});

it("sleeps with the machine: what fell due meanwhile is late, and before what is set then", async () => {
  const clock = new VirtualClock();
  const order: string[] = [];
  clock.setTimer(10, () => {
    order.push(`late at ${clock.now()}`);
    clock.setTimer(0, () => order.push("new"));
  });
  clock.setTimer(20, () => order.push("later"));
  clock.sleepMachine(3_600_000);
  expect(order).toEqual([]);
  await clock.advance(0);
  expect(order).toEqual(["late at 3600000", "later", "new"]);
});
