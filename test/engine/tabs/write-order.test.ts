/** What makes it right to write again just what is kept, in order. */

import { expect, it } from "vitest";
import { KeptWrites } from "../../../src/engine/tabs/kept-writes.ts";
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

it("all is settled up to the first write that is under way", () => {
  const order = new WriteOrder();
  const [a, b, c] = [order.enter(0, 512), order.enter(512, 512), order.enter(1024, 512)];
  order.leave(a.order);
  order.leave(c.order);
  expect(order.settled).toBe(a.order);
  order.leave(b.order);
  expect(order.settled).toBe(c.order);
});

it("a write whose answer comes after word of the flush is not kept", () => {
  const kept = new KeptWrites();
  kept.add(write(1));
  kept.add(write(4));
  kept.durable(["d"], 3);
  kept.add(write(2));
  kept.add(write(3, "e"));
  expect(orders(kept)).toEqual([4, 3]);
  kept.durable(null, 9);
  expect(orders(kept)).toEqual([]);
  expect(kept.bytes).toBe(0);
});

it("another owner counts from one", () => {
  const kept = new KeptWrites();
  kept.durable(["d"], 7);
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
  kept.durable(null, 9);
  kept.giveUp();
  kept.welcome(3, ["d"]);
  expect(orders(kept)).toEqual([5]);
  expect(kept.release(["d", "e"])).toEqual(["d"]);
  expect(orders(kept)).toEqual([]);
});
