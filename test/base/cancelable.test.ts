import { expect, it } from "vitest";
import { cancelable, unlessAborted } from "../../src/base/cancelable.ts";

it("tells of a signal while there is no outcome, and not after", async () => {
  const raised = new AbortController();
  const told: string[] = [];
  let answer!: (value: number) => void;
  const asked = cancelable<number, Error>(
    raised.signal,
    () => told.push("cancel"),
    (resolve) => {
      answer = resolve;
    },
  );
  raised.abort();
  expect(told).toEqual(["cancel"]);
  answer(1);
  expect(await asked).toBe(1);

  const later = new AbortController();
  const done = cancelable<number, Error>(
    later.signal,
    () => told.push("too late"),
    (resolve) => resolve(2),
  );
  later.abort();
  expect(await done).toBe(2);
  expect(told).toEqual(["cancel"]);
});

it("ends a wait by its signal, and leaves the others what they wait for", async () => {
  const raised = new AbortController();
  let answer!: (value: number) => void;
  const promise = new Promise<number>((resolve) => {
    answer = resolve;
  });
  const givenUp = unlessAborted(promise, raised.signal);
  const other = unlessAborted(promise, new AbortController().signal);
  raised.abort();
  await expect(givenUp).rejects.toMatchObject({ errno: "ECANCELED" });
  answer(3);
  expect(await other).toBe(3);
  await expect(unlessAborted(promise, raised.signal)).rejects.toMatchObject({ errno: "ECANCELED" });
});
