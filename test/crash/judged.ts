/** What CI judges: 10 000 states, each kind of operation its share. `npm run crash` has no such limit. */

import { describe, expect, it } from "vitest";
import { hasQemu } from "../drivers/format/rig.ts";
import { KINDS } from "./kinds/index.ts";
import { crash, shareOf } from "./run.ts";
import type { Kind } from "./trial.ts";

const STATES = 10_000;
const SEED = 1;

export function judge(kinds: readonly Kind[]): void {
  describe.skipIf(!hasQemu)("after a crash at any moment", () => {
    it.each(kinds)(
      "an image is sound, and what was flushed is there: $name",
      async (kind) => {
        const states = shareOf([kind], KINDS, STATES);
        const report = await crash({ kinds: [kind], states, seed: SEED });
        expect(report.states).toBe(states);
        expect(report.sampled).toBeGreaterThan(0);
      },
      300_000,
    );
  });
}
