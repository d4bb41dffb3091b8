/** What clients are told about parameters: one line per mistake, in QEMU's words. */

import * as v from "valibot";
import { expect, it } from "vitest";
import { check, size } from "../../src/base/check.ts";
import { BlockError } from "../../src/base/errors.ts";

const REF = v.union([v.string(), v.looseObject({ driver: v.string() })]);

const SCHEMA = v.strictObject({
  name: v.string(),
  size: v.optional(size),
  mode: v.optional(v.picklist(["safe", "hard"])),
  on: v.optional(v.boolean()),
  file: v.optional(REF),
  backing: v.optional(v.nullable(REF)),
  list: v.optional(v.array(v.strictObject({ id: v.string() }))),
});

it("lets a value through that is right, and types it", () => {
  const value = { name: "a", size: 2 ** 53 - 1, file: { driver: "raw", x: 1 }, backing: null };
  expect(check(SCHEMA, value)).toEqual(value);
});

it("names the parameter and what was expected", () => {
  const wrong = [
    {},
    { name: 1 },
    { name: null },
    { name: "a", extra: 1 },
    { name: "a", size: "1" },
    { name: "a", size: 1.5 },
    { name: "a", size: -1 },
    { name: "a", size: 2 ** 53 },
    { name: "a", mode: "soft" },
    { name: "a", mode: 3 },
    { name: "a", on: "yes" },
    { name: "a", file: 7 },
    { name: "a", file: {} },
    { name: "a", file: { driver: 1 } },
    { name: "a", backing: 7 },
    { name: "a", list: {} },
    { name: "a", list: [{ id: "x" }, { id: 2 }] },
    { name: "a", list: [{ id: "x", more: 1 }] },
  ];
  expect(`\n${wrong.map(complaint).join("\n")}\n`).toBe(`
Parameter 'name' is missing
Invalid parameter type for 'name', expected: string
Invalid parameter type for 'name', expected: string
Parameter 'extra' is unexpected
Invalid parameter type for 'size', expected: integer
Invalid parameter type for 'size', expected: integer
Parameter 'size' expects >=0; got -1
Parameter 'size' expects a whole number within 2^53; got 9007199254740992
Parameter 'mode' does not accept value 'soft'; it takes 'safe', 'hard'
Invalid parameter type for 'mode', expected: string
Invalid parameter type for 'on', expected: boolean
Invalid parameter type for 'file', expected: string or object
Parameter 'file.driver' is missing
Invalid parameter type for 'file.driver', expected: string
Invalid parameter type for 'backing', expected: string or object
Invalid parameter type for 'list', expected: array
Invalid parameter type for 'list[1].id', expected: string
Parameter 'list[0].more' is unexpected
`);
});

it("puts the outer parameter's name before it", () => {
  expect(complaint({}, "options")).toBe("Parameter 'options.name' is missing");
  expect(complaint(null, "options")).toBe("Invalid parameter type for 'options', expected: object");
});

function complaint(value: unknown, within?: string | number): string {
  try {
    check(SCHEMA, value, typeof within === "string" ? within : undefined);
  } catch (error) {
    expect(error).toBeInstanceOf(BlockError);
    expect((error as BlockError).errno).toBe("EINVAL");
    return (error as BlockError).message;
  }
  throw new Error(`${JSON.stringify(value)} was let through`);
}
