/** Each defect of seed 004, planted, is noticed by the exploration. */

import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { beforeAll, expect, it } from "vitest";
import { BREAKAGES } from "./breakages.ts";

const ROOT = join(import.meta.dirname, "../../..");
let said: (string | null)[] = [];

beforeAll(async () => {
  const args = ["--import", "tsx", join(import.meta.dirname, "break.ts")];
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: ROOT });
  said = JSON.parse(stdout);
}, 300_000);

it.each(BREAKAGES.map((breakage, at) => ({ ...breakage, at })))(
  "notices: $name",
  ({ said: expected, at }) => {
    expect(said[at]).toMatch(expected);
  },
);
