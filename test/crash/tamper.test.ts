/** The harness can fail: each mistake that a writer of qcow2 could make is found, and loudly. */

import { rmSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { hasQemu } from "../drivers/format/rig.ts";
import { KINDS } from "./kinds/index.ts";
import { CrashError, crash } from "./run.ts";
import { MISTAKES } from "./tamper.ts";

const STATES = 240;

describe.skipIf(!hasQemu)("the crash harness notices a writer by whom", () => {
  it.each(MISTAKES)("$name (rule $rule)", async ({ kind, make }) => {
    const kinds = KINDS.filter(({ name }) => name === kind);
    expect(kinds).toHaveLength(1);
    const run = crash({ kinds, states: STATES, seed: 1, tamper: make });
    const error: unknown = await run.catch((error) => error);
    if (!(error instanceof CrashError)) throw error ?? new Error("nothing was noticed");
    expect(error.message).toMatch(/[1-9] corruptions|reads as|cut off|snapshot/);
    if (error.kept) rmSync(error.kept, { recursive: true });
  });
});
