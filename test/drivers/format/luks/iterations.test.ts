/** How much work a passphrase costs is measured where the key is made: on a machine that may be busy. */

import { expect, it } from "vitest";
import type { Clock } from "../../../../src/base/clock.ts";
import { VirtualClock } from "../../../../src/base/virtual-clock.ts";
import { ITERATIONS_MIN, makeLuks, makeSlot } from "../../../../src/drivers/format/luks/create.ts";
import { testKernel } from "../../../kernel/load.ts";

const passphrase = new TextEncoder().encode("a passphrase");
const FIRST = 2 ** 14;

/** On which tries take so long, one after the other. */
class MeasuredClock extends VirtualClock {
  readonly left: number[];
  #nowMs = 0;
  #isBegun = false;

  constructor(...durationsMs: readonly number[]) {
    super();
    this.left = [...durationsMs];
  }

  override now(): number {
    if (this.#isBegun) this.#nowMs += this.left.shift() ?? expect.unreachable("one try too many");
    this.#isBegun = !this.#isBegun;
    return this.#nowMs;
  }
}

async function made(clock: Clock, iterTimeMs?: number) {
  const maker = { kernel: await testKernel(), clock };
  const wanted = { keyBytes: 32, hash: "sha256" as const, passphrase };
  const { header } = await makeLuks(maker, { ...wanted, iterTimeMs });
  return { header, maker };
}

it("counts the best of three tries where a passphrase is to take its time", async () => {
  // For the digest, an eighth of two seconds; then three for the slot, two of them on a busy machine.
  const clock = new MeasuredClock(500, 8000, 2000, 4000);
  const { header } = await made(clock);
  expect(header.iterations).toBe((FIRST / 500) * 250);
  expect(header.slots[0]!.iterations).toBe(FIRST);
  expect(clock.left).toEqual([]);
});

it("relies on no try that is shorter than a clock can tell", async () => {
  const { header, maker } = await made(new MeasuredClock(1e6, 1e6), 8);
  expect(header.iterations).toBe(ITERATIONS_MIN);
  expect(header.slots[0]!.iterations).toBe(ITERATIONS_MIN);
  const clock = new MeasuredClock(1, 64);
  const key = new Uint8Array(32);
  const { slot } = await makeSlot(
    { ...maker, clock },
    header,
    header.slots[1]!,
    key,
    passphrase,
    16,
  );
  expect(slot.iterations).toBe(((2 * FIRST) / 64) * 16);
  expect(clock.left).toEqual([]);
});
