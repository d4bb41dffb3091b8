/** Strings become what the schema wants; what cannot is refused by its dotted name. */

import * as v from "valibot";
import { describe, expect, it } from "vitest";
import { fromKeyval } from "../../src/base/from-keyval.ts";
import { parseKeyval } from "../../src/base/keyval.ts";

const rule = v.strictObject({
  event: v.string(),
  errno: v.optional(v.pipe(v.number(), v.integer())),
});
const schema = v.strictObject({
  name: v.string(),
  size: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0))),
  on: v.exactOptional(v.boolean()),
  mode: v.optional(v.picklist(["1", "on"])),
  rules: v.optional(v.array(rule)),
  ref: v.optional(v.nullable(v.union([v.string(), v.looseObject({ driver: v.string() })]))),
  addr: v.optional(
    v.variant("type", [
      v.strictObject({ type: v.literal("inet"), port: v.number() }),
      v.strictObject({ type: v.literal("unix"), port: v.string() }),
    ]),
  ),
  either: v.optional(v.union([v.boolean(), v.strictObject({ deep: v.boolean() })])),
});

const convert = (text: string) => fromKeyval(schema, parseKeyval(text, null).tree);

const CASES: [string, object][] = [
  ["name=1,mode=1", { name: "1", mode: "1" }],
  ["name=on,mode=on", { name: "on", mode: "on" }],
  ["size=512", { size: 512 }],
  ["size=0x200", { size: 512 }],
  ["size=010", { size: 8 }],
  ["size=0", { size: 0 }],
  ["size=-1", { size: -1 }],
  ["on=on", { on: true }],
  ["on=yes", { on: true }],
  ["on=n", { on: false }],
  ["rules.0.event=a,rules.0.errno=5", { rules: [{ event: "a", errno: 5 }] }],
  ["ref=7", { ref: "7" }],
  ["ref.driver=7,ref.x=7", { ref: { driver: "7", x: "7" } }],
  ["addr.type=inet,addr.port=7", { addr: { type: "inet", port: 7 } }],
  ["addr.type=unix,addr.port=7", { addr: { type: "unix", port: "7" } }],
  ["either=off", { either: false }],
  ["either.deep=off", { either: { deep: false } }],
];

describe("converts", () => {
  it.each(CASES)("%s", (text, value) => {
    expect(convert(text)).toEqual(value);
  });
});

it("leaves what does not fit to the schema's own check", () => {
  for (const text of ["size.a=1", "rules=x", "unknown=1", "name.a=1", "addr.type=fd"]) {
    expect(convert(text)).toEqual(parseKeyval(text, null).tree);
  }
});

const REFUSED: [string, RegExp][] = [
  ["size=1.5", /'size' expects integer/],
  ["size=1K", /'size' expects integer/],
  ["size=", /'size' expects integer/],
  ["size=09", /'size' expects integer/],
  ["on=", /'on' expects 'on' or 'off'/],
  ["on=ON", /'on' expects 'on' or 'off'/],
  ["rules.0.event=a,rules.0.errno=5x", /'rules\.0\.errno' expects integer/],
];

it.each(REFUSED)("refuses %s", (text, why) => {
  expect(() => convert(text)).toThrow(why);
});
