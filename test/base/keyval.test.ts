/** QEMU's option lists, as a tree of strings. */

import { describe, expect, it } from "vitest";
import { parseKeyval } from "../../src/base/keyval.ts";

const READ: [string, string, object][] = [
  ["the first value by its implied key", "raw,node-name=a", { driver: "raw", "node-name": "a" }],
  ["two commas as one", "driver=raw,file=a,,b,,", { driver: "raw", file: "a,b," }],
  ["dots as nesting", "a.b.c=1,a.d=2", { a: { b: { c: "1" }, d: "2" } }],
  ["numbers as a list, in any order", "a.1=y,a.0=x", { a: ["x", "y"] }],
  ["leading zeroes of a number", "a.00=x,a.01=y", { a: ["x", "y"] }],
  ["lists of objects", "r.0.a=1,r.1.a=2", { r: [{ a: "1" }, { a: "2" }] }],
  ["the last of two", "a=1,a=2", { a: "2" }],
  ["a comma at the end", "a=1,", { a: "1" }],
  ["an empty value", "a=,b=", { a: "", b: "" }],
  ["'=' in a value", "a=b=c", { a: "b=c" }],
  ["nothing", "", {}],
];

describe("reads", () => {
  it.each(READ)("%s", (_, text, tree) => {
    expect(parseKeyval(text, "driver")).toEqual({ tree, help: false });
  });

  it("help, also among others", () => {
    expect(parseKeyval("help", "driver").help).toBe(true);
    expect(parseKeyval("raw,?", "driver").help).toBe(true);
    expect(parseKeyval("raw,a=help", "driver").help).toBe(false);
  });

  it("names that every object has as plain members", () => {
    const { tree } = parseKeyval("constructor=1,a.toString=2", null);
    expect(Object.entries(tree)).toEqual([
      ["constructor", "1"],
      ["a", { toString: "2" }],
    ]);
  });
});

const REFUSED: [string, string, RegExp][] = [
  ["a value without its key", "raw,node-name", /'=' after parameter 'node-name'/],
  ["an empty key", ",raw", /Invalid parameter ''/],
  ["'=' without a key", "=x", /Invalid parameter ''/],
  ["two commas in an implied value", "raw,,x", /Invalid parameter ''/],
  ["a number as the first part of a key", "raw,0=x", /Invalid parameter '0'/],
  ["an empty part at the end", "raw,a.=x", /Invalid parameter 'a\.'/],
  ["an empty part within", "raw,a..b=x", /Invalid parameter 'a\.\.b'/],
  ["other characters", "raw,a b=x", /Invalid parameter 'a b'/],
  ["__proto__", "raw,__proto__=x", /Invalid parameter '__proto__'/],
  ["a part that is too long", `raw,${"a".repeat(128)}=x`, /Invalid parameter 'a+'/],
  ["a value and members under one name", "raw,a=1,a.b=2", /'a\.\*'/],
  ["members and a value under one name", "raw,a.b=2,a=1", /'a\.\*'/],
  ["numbers and names under one name", "raw,a.0=1,a.b=2", /'a\.\*'/],
  ["a list with a hole", "raw,a.1=1", /'a\.0' is missing/],
];

it.each(REFUSED)("refuses %s", (_, text, why) => {
  expect(() => parseKeyval(text, "driver")).toThrow(why);
});

it("takes no time to speak of for a list number beyond reason", () => {
  expect(() => parseKeyval("a.4000000000=x", null)).toThrow(/'a\.0' is missing/);
});
