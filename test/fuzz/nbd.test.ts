/** The NBD fuzzer in small: `npm run fuzz -- --nbd N` does the same for as long as one likes. */

import { describe, expect, it } from "vitest";
import { systemRandom } from "../../src/base/random.ts";
import { fuzzNbd } from "./nbd/fuzz.ts";

describe("NBD streams that are wrong", () => {
  it.each([
    ["in memory", 500, false],
    ["over sockets", 100, true],
  ])("harm nobody, %s", { timeout: 300_000 }, async (_, cases, onSockets) => {
    const seed = systemRandom().below(2 ** 31);
    console.log(`npm run fuzz -- --nbd${onSockets ? "-sockets" : ""} ${cases} --seed ${seed}`);
    // It throws if memory stays behind, too.
    const { messages } = await fuzzNbd({ cases, seed, onSockets });
    expect(messages).toBeGreaterThan(cases);
  });
});
