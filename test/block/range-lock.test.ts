import { describe, expect, it } from "vitest";
import { BlockError } from "../../src/base/errors.ts";
import { seededRandom } from "../../src/base/random.ts";
import { type HeldRange, RangeLock } from "../../src/block/range-lock.ts";

describe("RangeLock", () => {
  it("lets readers share and makes a writer wait for them", async () => {
    const lock = new RangeLock();
    const story: string[] = [];
    const first = await lock.acquire(0, 10, false);
    const second = await lock.acquire(5, 10, false);
    const writer = lock.acquire(9, 1, true).then((range) => {
      story.push("write");
      return range;
    });
    story.push("two readers");
    lock.release(first);
    await settle();
    story.push("one reader");
    lock.release(second);
    lock.release(await writer);
    expect(story).toEqual(["two readers", "one reader", "write"]);
    expect(lock.idle).toBe(true);
  });

  it("does not let a reader overtake a writer that waits", async () => {
    const lock = new RangeLock();
    const reader = await lock.acquire(0, 10, false);
    const order: string[] = [];
    const note = (who: string) => (range: HeldRange) => {
      order.push(who);
      return range;
    };
    const writer = lock.acquire(0, 10, true).then(note("writer"));
    const late = lock.acquire(0, 10, false).then(note("late"));
    lock.release(reader);
    lock.release(await writer);
    lock.release(await late);
    expect(order).toEqual(["writer", "late"]);
  });

  it("does not make neighbours wait", async () => {
    const lock = new RangeLock();
    const ranges = [await lock.acquire(0, 10, true), await lock.acquire(10, 10, true)];
    for (const range of ranges) lock.release(range);
    expect(lock.idle).toBe(true);
  });

  it("gives up waiting when the signal is raised, and lets those behind pass", async () => {
    const lock = new RangeLock();
    const held = await lock.acquire(0, 10, false);
    const abort = new AbortController();
    const given = lock.acquire(0, 10, true, abort.signal);
    const behind = lock.acquire(0, 10, false);
    abort.abort();
    await expect(given).rejects.toThrow(BlockError);
    lock.release(await behind);
    lock.release(held);
    expect(lock.idle).toBe(true);
  });

  it("never lets a writer and anybody else be at the same byte (seeded)", async () => {
    for (let seed = 1; seed <= 20; seed++) {
      const random = seededRandom(seed);
      const lock = new RangeLock();
      const inside = new Set<HeldRange>();
      const worker = async () => {
        for (let i = 0; i < 30; i++) {
          const range = await lock.acquire(
            random.below(64),
            1 + random.below(16),
            random.below(2) === 0,
          );
          for (const other of inside) {
            const overlap = other.offset < range.end && range.offset < other.end;
            const clash = overlap && (other.exclusive || range.exclusive);
            expect(clash, `seed ${seed}`).toBe(false);
          }
          inside.add(range);
          for (let turn = random.below(4); turn > 0; turn--) await Promise.resolve();
          inside.delete(range);
          lock.release(range);
        }
      };
      await Promise.all(Array.from({ length: 8 }, worker));
      expect(lock.idle, `seed ${seed}`).toBe(true);
    }
  });
});

async function settle(): Promise<void> {
  for (let i = 0; i < 10; i++) await Promise.resolve();
}
