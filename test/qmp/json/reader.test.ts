import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { seededRandom } from "../../../src/base/random.ts";
import {
  type JsonItem,
  JsonReader,
  VALUE_BYTES_MAX,
  VALUE_NESTING_MAX,
  VALUE_TOKENS_MAX,
} from "../../../src/qmp/json/reader.ts";
import { messageText } from "../../../src/qmp/json/writer.ts";
import { Corpus, joined, text } from "./corpus.ts";

function read(...pieces: (string | Uint8Array)[]): JsonItem[] {
  const reader = new JsonReader();
  const items: JsonItem[] = [];
  for (const piece of pieces) {
    reader.take(typeof piece === "string" ? text(piece) : piece);
    for (let item = reader.next(); item; item = reader.next()) items.push(item);
  }
  return items;
}

/** Values as text again; errors as their sentences. */
function told(...pieces: (string | Uint8Array)[]): string[] {
  return read(...pieces).map((item) =>
    "error" in item ? item.error.message : messageText([item.value]).trim().slice(1, -1),
  );
}

it("finds the values that were written, wherever the text is cut", () => {
  const values = fc.array(
    fc.oneof(fc.dictionary(fc.string(), fc.jsonValue()), fc.array(fc.jsonValue())),
  );
  fc.assert(
    fc.property(values, fc.infiniteStream(fc.integer({ min: 1, max: 7 })), (sent, sizes) => {
      const all = text(sent.map((value) => JSON.stringify(value)).join("\n"));
      const pieces: Uint8Array[] = [];
      for (let at = 0; at < all.length; at += pieces.at(-1)!.length) {
        pieces.push(all.subarray(at, at + sizes.next().value));
      }
      const found = read(...pieces).map((item) => "value" in item && messageText([item.value]));
      // Not what was generated: JSON.stringify() has no -0.
      expect(found.map((written) => JSON.parse(String(written)))).toEqual(
        sent.map((value) => [JSON.parse(JSON.stringify(value))]),
      );
    }),
  );
});

it("tells the same of broken input, wherever it is cut", () => {
  const seed = 7;
  const corpus = new Corpus(seededRandom(seed));
  for (let i = 0; i < 500; i++) {
    const input = corpus.next();
    const bytes = Array.from(input, (byte) => Uint8Array.of(byte));
    expect({ seed, i, told: told(...bytes) }).toEqual({ seed, i, told: told(input) });
  }
});

it("goes on with the next request after any rubbish, once that is ended by a NUL and a line end", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (rubbish) => {
      expect(told(joined([rubbish, text('\0\n{"a": 1}')])).at(-1)).toBe('{"a": 1}');
    }),
  );
});

describe("numbers", () => {
  it("keep all their digits", () => {
    const numbers =
      "[0, -0, 9007199254740993, -9223372036854775808, 18446744073709551615, 18446744073709551616]";
    expect(told(numbers)).toEqual([
      "[0, 0, 9007199254740993, -9223372036854775808, 18446744073709551615, 1.8446744073709552e+19]",
    ]);
    expect(told("[1.50, 1.0, -0.0, 1e3, 1e16, 1e17, 1e-4, 1e-5, 0.1, 1e400, -1e400]")).toEqual([
      "[1.5, 1, -0, 1000, 10000000000000000, 1e+17, 0.0001, 1.0000000000000001e-05, " +
        "0.10000000000000001, 1e999, -1e999]",
    ]);
  });

  it("of a megabyte of digits are read, too", () => {
    expect(told(`[${"9".repeat(2 ** 20)}, 0.${"1".repeat(2 ** 20)}]`)).toEqual([
      "[1e999, 0.1111111111111111]",
    ]);
  });
});

describe("objects", () => {
  it("have each key once", () => {
    expect(told('{"a": 1, "b": 2, "a": 3}')).toEqual(["JSON parse error, duplicate key"]);
  });

  it("may have any key", () => {
    const [item] = read('{"__proto__": {"x": 1}, "constructor": 2, "": 3}');
    expect(item).toEqual({ value: JSON.parse('{"__proto__": {"x": 1}, "constructor": 2, "": 3}') });
  });
});

describe("limits", () => {
  it("of depth end a value at once; what is left of it counts as new input", () => {
    const deep = (depth: number) => told("[".repeat(depth) + "]".repeat(depth));
    expect(deep(VALUE_NESTING_MAX)).toHaveLength(1);
    expect(deep(VALUE_NESTING_MAX)[0]).toMatch(/^\[\[/);
    expect(deep(VALUE_NESTING_MAX + 1)).toEqual([
      "JSON nesting depth limit exceeded",
      // One bracket is over of each kind, and then those of the lost value.
      ...Array(VALUE_NESTING_MAX + 1).fill("JSON parse error, expecting value"),
    ]);
  });

  it("of tokens and of bytes are errors, and the reader goes on", () => {
    const many = `[${"1,".repeat(VALUE_TOKENS_MAX / 2)}`;
    expect(told(`${many}`)).toEqual(["JSON token count limit exceeded"]);
    const long = `"${"x".repeat(VALUE_BYTES_MAX)}`;
    expect(told(long)).toEqual(["JSON size limit exceeded"]);
    const several = `["${"x".repeat(VALUE_BYTES_MAX - 3)}", "y"`;
    expect(told(several, '\0\n{"a": 1}')).toEqual([
      "JSON size limit exceeded",
      '"y"',
      expect.stringContaining("stray"),
      '{"a": 1}',
    ]);
  });

  it("hold for a token that comes in small pieces", () => {
    const reader = new JsonReader();
    const piece = text("x".repeat(64));
    reader.take(text('"'));
    let item = reader.next();
    for (let i = 0; i < VALUE_BYTES_MAX / 64 && !item; i++) {
      reader.take(piece);
      item = reader.next();
    }
    expect(item).toMatchObject({ error: { message: "JSON size limit exceeded" } });
  });
});
