/** A few thousand messages; `npm run fuzz -- --qmp 100000` says more. */

import { expect, it } from "vitest";
import { qmpFuzzer } from "./qmp/fuzz.ts";

const COUNT = 3000;
const SEED = 1;

it(`answers ${COUNT} random messages, and is as empty and as small as before (seed ${SEED})`, async () => {
  const { kinds } = await qmpFuzzer.run({ count: COUNT, seed: SEED });
  // It was about something.
  for (const kind of [
    "return",
    "GenericError",
    "CommandNotFound",
    "DeviceNotActive",
    "JOB_STATUS_CHANGE",
  ]) {
    expect(kinds.get(kind), kind).toBeGreaterThan(5);
  }
}, 600_000);
