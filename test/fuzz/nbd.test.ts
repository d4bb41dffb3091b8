/** A few hundred streams; `npm run fuzz -- --nbd 10000` sends more. */

import { expect, it } from "vitest";
import { nbdFuzzer, nbdSocketsFuzzer } from "./nbd/fuzz.ts";

/** The same streams in every run, so that what a change broke is what broke; --seed asks for others. */
const SEED = 1;

it.each([
  [nbdFuzzer, 500],
  [nbdSocketsFuzzer, 100],
])(
  "$name: wrong NBD streams harm nobody",
  async ({ name, run }, count) => {
    console.log(`npm run fuzz -- --${name} ${count} --seed ${SEED}`);
    const { kinds } = await run({ count, seed: SEED });
    // It was about something.
    const heard = ["greeting", "option reply", "option error", "simple reply", "chunk"];
    for (const kind of heard) expect(kinds.get(kind), kind).toBeGreaterThan(10);
  },
  600_000,
);
