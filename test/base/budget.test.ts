import { expect, it } from "vitest";
import { Budget } from "../../src/base/budget.ts";

it("never has more out than there is, and serves everybody, one that wants more than all too", async () => {
  const budget = new Budget(100);
  let [spent, most, served] = [0, 0, 0];
  const use = (amount: number) =>
    budget.run(amount, async () => {
      spent += Math.min(amount, 100);
      most = Math.max(most, spent);
      for (let i = 0; i < amount % 7; i++) await Promise.resolve();
      spent -= Math.min(amount, 100);
      served++;
    });
  await Promise.all([30, 60, 20, 100, 5, 400, 70, 31, 99, 1].map(use));
  expect([served, spent, most]).toEqual([10, 0, 100]);
});

it("gives back what failed work had", async () => {
  const budget = new Budget(10);
  const failing = budget.run(10, async () => {
    throw new Error("Broken");
  });
  await expect(failing).rejects.toThrow("Broken");
  expect(await budget.run(10, async () => "done")).toBe("done");
});
