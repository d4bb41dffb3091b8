import { expect, it } from "vitest";
import { BlockError } from "../../src/base/errors.ts";
import { Mutex } from "../../src/base/mutex.ts";

/** Work that waits until it is told to end, and writes down what happens. */
function recorder() {
  const story: string[] = [];
  const doors = new Map<string, () => void>();
  const work = (name: string) => async () => {
    story.push(`${name} begins`);
    await new Promise<void>((resolve) => doors.set(name, resolve));
    story.push(`${name} ends`);
    return name;
  };
  const end = async (name: string) => {
    doors.get(name)!();
    for (let i = 0; i < 10; i++) await Promise.resolve();
  };
  return { story, work, end };
}

it("runs one at a time, in the order of coming", async () => {
  const mutex = new Mutex();
  const { story, work, end } = recorder();
  const all = ["a", "b", "c"].map((name) => mutex.run(work(name)));
  for (const name of ["a", "b", "c"]) await end(name);
  expect(await Promise.all(all)).toEqual(["a", "b", "c"]);
  expect(story).toEqual(["a begins", "a ends", "b begins", "b ends", "c begins", "c ends"]);
});

it("nobody who comes while it is handed over gets in before those who wait", async () => {
  const mutex = new Mutex();
  const { story, work, end } = recorder();
  const first = mutex.run(work("a"));
  const second = mutex.run(work("b"));
  const late = first.then(() => mutex.run(work("late")));
  await end("a");
  await end("b");
  await end("late");
  await Promise.all([second, late]);
  expect(story.filter((line) => line.endsWith("begins"))).toEqual([
    "a begins",
    "b begins",
    "late begins",
  ]);
});

it("goes on after a failure", async () => {
  const mutex = new Mutex();
  const failing = mutex.run(async () => {
    throw new BlockError("EIO", "no");
  });
  const next = mutex.run(async () => 5);
  await expect(failing).rejects.toThrow("no");
  expect(await next).toBe(5);
});

it("whoever waits can be called off; those behind move up", async () => {
  const mutex = new Mutex();
  const { work, end } = recorder();
  const first = mutex.run(work("a"));
  const stop = new AbortController();
  const canceled = mutex.run(work("b"), stop.signal);
  const third = mutex.run(work("c"));
  stop.abort();
  await expect(canceled).rejects.toMatchObject({ errno: "ECANCELED" });
  await end("a");
  await end("c");
  await Promise.all([first, third]);
  await expect(mutex.run(work("d"), stop.signal)).rejects.toMatchObject({ errno: "ECANCELED" });
});
