/** The NBD fuzzer in small: `npm run fuzz -- --nbd N` does the same for as long as one likes. */

import { describe, expect, it } from "vitest";
import { MiB } from "../../src/base/bytes.ts";
import { systemRandom } from "../../src/base/random.ts";
import { fuzzNbd } from "./nbd/fuzz.ts";

/** More than comes and goes; a leak of 16 KiB with each stream is found. */
const GROWTH_MAX = 4 * MiB;

describe("NBD streams that are wrong", () => {
  it.each([
    ["in memory", 500, false],
    ["over sockets", 100, true],
  ])("harm nobody, %s", { timeout: 300_000 }, async (_, cases, onSockets) => {
    const seed = systemRandom().below(2 ** 31);
    console.log(`npm run fuzz -- --nbd${onSockets ? "-sockets" : ""} ${cases} --seed ${seed}`);
    const { messages, growth } = await fuzzNbd({ cases, seed, onSockets });
    expect(messages).toBeGreaterThan(cases);
    expect(growth).toBeLessThan(GROWTH_MAX);
  });
});
