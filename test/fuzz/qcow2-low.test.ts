/**
 * Some images, the same each time; `npm run fuzz -- --qcow2 200000` makes more. They are in two files,
 * this one and qcow2-high.test.ts, which run side by side.
 */

import { it } from "vitest";
import { holdImages } from "./qcow2/heard.ts";

it("images made to hurt: only typed errors, bounded work, nothing followed, nothing broken", async () => {
  await holdImages(1, 1050);
}, 600_000);
