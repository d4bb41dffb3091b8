/**
 * Inputs for whatever reads QMP: good requests, broken ones, and bytes that only look like JSON. The
 * same seed makes the same list.
 */

import type { Random } from "../../../src/base/random.ts";
import { Dice } from "../../model/dice.ts";

const TOKENS = [
  "{", "}", "[", "]", ":", ",", '"a"', "'b'", '"execute"', '"id"', '"query-jobs"', '"arguments"',
  "0", "-0", "1", "-1", "12", "01", "1.5", "1.", ".5", "1e3", "1E+2", "0e1", "1e", "-", "+1", "1.0",
  "9007199254740993", "12345678901234567890", "-9223372036854775808", "99999999999999999999999",
  "true", "false", "null", "nul", "nulll", "tru", "True", "%d", "%", " ", "\n", "\t", "\r", "\0",
  "\u0001", "/", "//", "A", "é", '"', "'", "\\", '"\\u00e9"', '"\\ud83d\\ude00"', '"\\ud83d"',
  '"\\u12"', '"\\x"', "'it\\'s'", '"it\'s"', "'a\"b'", '"\\/\\b\\f\\n\\r\\t\\""', '"\\u0000"', '"\t"',
]; // biome-ignore format: a table

/** Bytes that are UTF-8 in part, or not at all. */
const BYTES = [
  [0xff], [0xfe], [0xfd], [0x80], [0xc0, 0x80], [0xc1, 0xbf], [0xc3, 0xa9], [0xc3], [0xe2, 0x82, 0xac],
  [0xe2, 0x82], [0xed, 0xa0, 0x80], [0xef, 0xbf, 0xbf], [0xef, 0xbf, 0xbd], [0xef, 0xb7, 0x90],
  [0xf0, 0x9f, 0x98, 0x80], [0xf0, 0x9f, 0xbf, 0xbf], [0xf4, 0x90, 0x80, 0x80], [0xf8, 0x88, 0x80, 0x80, 0x80],
  [0xfc, 0x84, 0x80, 0x80, 0x80, 0x80], [0x7f], [0x1f],
]; // biome-ignore format: a table

const UTF8 = new TextEncoder();

export class Corpus {
  readonly #dice: Dice;

  constructor(random: Random) {
    this.#dice = new Dice(random);
  }

  /** One input: no requests at all, one, or several. */
  next(): Uint8Array {
    switch (this.#dice.below(10)) {
      case 0:
        return this.#soup();
      case 1:
        return this.#mutated(this.#request());
      case 2:
        return this.#mutated(UTF8.encode(JSON.stringify(this.#value(4))));
      case 3:
      case 4:
        return joined([text('{"execute":"query-jobs","id":'), this.#oddString(), text("}")]);
      case 5:
        return this.#brackets();
      default:
        return this.#request();
    }
  }

  #soup(): Uint8Array {
    return joined(this.#times(12, () => this.#token()));
  }

  #token(): Uint8Array {
    return this.#dice.oneIn(10)
      ? Uint8Array.from(this.#dice.pick(BYTES))
      : text(this.#dice.pick(TOKENS));
  }

  /** A string in quotes, of odd pieces. */
  #oddString(): Uint8Array {
    const quote = this.#dice.pick(['"', "'"]);
    const pieces = this.#times(4, () => {
      if (this.#dice.oneIn(2)) return Uint8Array.from(this.#dice.pick(BYTES));
      const hex = this.#dice.below(0x10000).toString(16).padStart(4, "0");
      return text(
        this.#dice.pick([`\\u${hex}`, `\\ud8${hex.slice(2)}\\udc${hex.slice(2)}`, "x", "\\\\"]),
      );
    });
    return joined([text(quote), ...pieces, text(quote)]);
  }

  #request(): Uint8Array {
    const members: string[] = [];
    const value = () => JSON.stringify(this.#value(2));
    const add = (member: string, inner: string) =>
      members.push(`${JSON.stringify(member)}: ${inner}`);
    if (!this.#dice.oneIn(10)) {
      const name = this.#dice.pick([
        "query-jobs",
        "nope",
        "job-pause",
        "qmp_capabilities",
        "query-version",
      ]);
      add(this.#dice.pick(["execute", "execute", "execute", "exec-oob"]), JSON.stringify(name));
    }
    if (this.#dice.oneIn(3)) {
      add(
        "arguments",
        this.#dice.pick(["{}", '{"id": "x"}', '{"id": 1.0}', '{"enable": ["oob"]}', value()]),
      );
    }
    if (this.#dice.oneIn(2)) add("id", this.#dice.oneIn(3) ? this.#dice.pick(TOKENS) : value());
    if (this.#dice.oneIn(10)) add(this.#dice.pick(["id", "execute", "exec-oob", "extra"]), value());
    return text(`{${members.join(", ")}}`);
  }

  #value(depth: number): unknown {
    const kinds = ["string", "number", "word", ...(depth > 0 ? ["array", "object"] : [])];
    switch (this.#dice.pick(kinds)) {
      case "string":
        return this.#dice.pick([
          "",
          "a",
          "é€😀",
          "\u0000\u001f\u007f",
          "\\\"'",
          "__proto__",
          "\ufffd",
        ]);
      case "number":
        return this.#dice.pick([
          0,
          1,
          -1,
          1.5,
          0.1,
          1e21,
          1e-7,
          5e-324,
          2 ** 53,
          123456.789,
          -1e300,
          1e15 + 0.5,
        ]);
      case "word":
        return this.#dice.pick([true, false, null]);
      case "array":
        return this.#times(3, () => this.#value(depth - 1));
      default:
        return Object.fromEntries(
          this.#times(3, () => [
            this.#dice.pick(["a", "b", "é", "__proto__", "1", ""]),
            this.#value(depth - 1),
          ]),
        );
    }
  }

  #mutated(bytes: Uint8Array): Uint8Array {
    let mutated = bytes;
    for (let i = this.#dice.below(3); i >= 0; i--) {
      const at = this.#dice.below(mutated.length + 1);
      const cut = this.#dice.below(3);
      mutated = joined([mutated.subarray(0, at), this.#token(), mutated.subarray(at + cut)]);
    }
    return mutated;
  }

  /** Depth around the limit, and brackets that do not fit. */
  #brackets(): Uint8Array {
    const depth = this.#dice.pick(this.#dice.oneIn(8) ? [1023, 1024, 1025] : [1, 2, 3, 4]);
    const open = this.#dice.pick(["[", "[", '{"a":']);
    const close = this.#dice.pick(["]", "}"]);
    return text(open.repeat(depth) + (open === "[" ? "" : "1") + close.repeat(depth));
  }

  #times<Value>(most: number, make: () => Value): Value[] {
    return Array.from({ length: this.#dice.below(most + 1) }, make);
  }
}

export function text(value: string): Uint8Array {
  return UTF8.encode(value);
}

export function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
