/** What makes it right to write again just what is kept, in order. */

import { expect, it } from "vitest";
import { KeptWrites } from "../../../src/engine/tabs/kept-writes.ts";
import { ALL, has, union } from "../../../src/engine/tabs/runs.ts";
import { WriteOrder } from "../../../src/engine/tabs/write-order.ts";

const write = (order: number, exportId = "d") => ({
  export: exportId,
  order,
  offset: 0,
  bytes: 512,
  data: new ArrayBuffer(512),
  mayUnmap: false,
});
const orders = (kept: KeptWrites) => kept.all.map(({ order }) => order);

it("a write waits for earlier ones to the same bytes, and for no others", async () => {
  const order = new WriteOrder();
  const first = order.enter(0, 1024);
  const beside = order.enter(1024, 512);
  const over = order.enter(512, 1024);
  expect([first.ready, beside.ready]).toEqual([null, null]);
  let isReady = false;
  const ready = over.ready!.then(() => {
    isReady = true;
  });
  order.leave(first.order);
  await Promise.resolve();
  expect(isReady).toBe(false);
  order.leave(beside.order);
  await ready;
});

it("what is over is told by numbers, beside what is under way", () => {
  const order = new WriteOrder();
  expect(order.over).toEqual([]);
  const [a, b, c] = [order.enter(0, 512), order.enter(512, 512), order.enter(1024, 512)];
  expect(order.over).toEqual([]);
  order.leave(a.order);
  order.leave(c.order);
  expect(order.over).toEqual([
    [1, 1],
    [3, 3],
  ]);
  order.leave(b.order);
  expect(order.over).toEqual([[1, 3]]);
});

it("sets of numbers are joined to as few runs as there are", () => {
  const all = union(
    [
      [1, 3],
      [9, 12],
    ],
    [
      [4, 5],
      [7, 7],
      [10, 11],
    ],
  );
  expect(all).toEqual([
    [1, 5],
    [7, 7],
    [9, 12],
  ]);
  expect([0, 1, 5, 6, 7, 8, 12, 13].filter((n) => has(all, n))).toEqual([1, 5, 7, 12]);
});

it("a write whose answer comes after word of the flush is not kept", () => {
  const kept = new KeptWrites();
  kept.add(write(1));
  kept.add(write(4));
  kept.add(write(6));
  kept.durable(
    ["d"],
    [
      [1, 3],
      [6, 7],
    ],
  );
  kept.add(write(2));
  kept.add(write(3, "e"));
  kept.add(write(5));
  kept.add(write(7));
  expect(orders(kept)).toEqual([4, 3, 5]);
  kept.durable(["d"], [[1, 4]]);
  kept.add(write(7));
  expect(orders(kept)).toEqual([3, 5]);
  kept.durable(null, ALL);
  expect(orders(kept)).toEqual([]);
  expect(kept.bytes).toBe(0);
});

it("another owner counts from one", () => {
  const kept = new KeptWrites();
  kept.durable(["d"], [[1, 7]]);
  kept.welcome(2, []);
  kept.add(write(1));
  expect(orders(kept)).toEqual([1]);
});

it("what is held stays, whatever this owner tells of its own writes", () => {
  const kept = new KeptWrites();
  kept.welcome(1, []);
  kept.add(write(5));
  kept.add(write(6, "e"));
  kept.welcome(2, ["d"]);
  expect(orders(kept)).toEqual([5]);
  expect([kept.bytes, kept.exports]).toEqual([0, []]);
  kept.add(write(1, "e"));
  kept.durable(null, ALL);
  kept.giveUp();
  kept.welcome(3, ["d"]);
  expect(orders(kept)).toEqual([5]);
  expect(kept.release(["d", "e"])).toEqual(["d"]);
  expect(orders(kept)).toEqual([]);
});
