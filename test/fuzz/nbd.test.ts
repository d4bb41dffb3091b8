/** A few hundred streams; `npm run fuzz -- --nbd 10000` sends more. */

import { expect, it } from "vitest";
import { systemRandom } from "../../src/base/random.ts";
import { nbdFuzzer, nbdSocketsFuzzer } from "./nbd/fuzz.ts";

it.each([
  [nbdFuzzer, 500],
  [nbdSocketsFuzzer, 100],
])(
  "$name: wrong NBD streams harm nobody",
  async ({ name, run }, count) => {
    const seed = systemRandom().below(2 ** 31);
    console.log(`npm run fuzz -- --${name} ${count} --seed ${seed}`);
    const { kinds } = await run({ count, seed });
    // It was about something.
    const heard = ["greeting", "option reply", "option error", "simple reply", "chunk"];
    for (const kind of heard) expect(kinds.get(kind), kind).toBeGreaterThan(10);
  },
  600_000,
);
