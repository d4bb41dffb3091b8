/** As qcow2-low.test.ts, with the seeds after those. */

import { it } from "vitest";
import { holdImages } from "./qcow2/heard.ts";

it("other images made to hurt: only typed errors, bounded work, nothing followed, nothing broken", async () => {
  await holdImages(1051, 1050);
}, 600_000);
