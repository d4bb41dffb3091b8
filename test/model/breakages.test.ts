/** The list of breakages is of the code as it is. That they are noticed: npm run simulate -- --breakages */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { replaceOnce } from "./break.ts";
import { BREAKAGES } from "./breakages.ts";

it.each(BREAKAGES)("has a place to break: $name", ({ file, from, to }) => {
  const text = readFileSync(join(import.meta.dirname, "../..", file), "utf8");
  expect(replaceOnce(text, from, to)).not.toBe(text);
});
