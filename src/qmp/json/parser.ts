/**
 * Puts tokens together to one JSON value, as they come: what is kept are the objects and arrays that
 * are still open, never the tokens. Without recursion, so that depth costs no stack.
 */

import type { Token } from "./lexer.ts";
import { floatOf, integerOf } from "./numbers.ts";
import { stringOf } from "./strings.ts";

type Members = Record<string, unknown>;

/** An object or array that is not closed yet. */
interface Open {
  readonly container: Members | unknown[];
  /** Of the member whose value comes next; null if a key must come, or in an array. */
  key: string | null;
}

/** What may come next. */
type Expected = "value" | "value-or-]" | "key" | "key-or-}" | "colon" | "separator";

export class Parser {
  readonly #open: Open[] = [];
  #expected: Expected = "value";
  #error: string | null = null;
  #value: unknown;

  /** Takes the next token; after an error it is passed over. */
  take(token: Token): void {
    if (this.#error === null) this.#error = this.#take(token);
  }

  /** The value; only once its last token has been taken. */
  result(): { value: unknown } | { error: string } {
    return this.#error === null ? { value: this.#value } : { error: this.#error };
  }

  reset(): void {
    this.#open.length = 0;
    this.#expected = "value";
    this.#error = null;
    this.#value = undefined;
  }

  /** @returns what is wrong, or null */
  #take(token: Token): string | null {
    switch (this.#expected) {
      case "value-or-]":
        return token.kind === "]" ? this.#close() : this.#takeValue(token);
      case "value":
        return this.#takeValue(token);
      case "key-or-}":
        return token.kind === "}" ? this.#close() : this.#takeKey(token);
      case "key":
        return this.#takeKey(token);
      case "colon":
        this.#expected = "value";
        return token.kind === ":" ? null : "missing : in object pair";
      case "separator":
        return this.#takeSeparator(token);
    }
  }

  #takeValue(token: Token): string | null {
    switch (token.kind) {
      case "{":
        this.#open.push({ container: {}, key: null });
        this.#expected = "key-or-}";
        return null;
      case "[":
        this.#open.push({ container: [], key: null });
        this.#expected = "value-or-]";
        return null;
      case "integer":
        return this.#add(integerOf(asciiOf(token)));
      case "float":
        return this.#add(floatOf(asciiOf(token)));
      case "string": {
        const string = stringOf(token.bytes);
        return "error" in string ? string.error : this.#add(string.text);
      }
      case "word": {
        const word = wordOf(token);
        const value = WORDS.get(word);
        return value === undefined ? `invalid keyword '${word}'` : this.#add(value);
      }
      default:
        return "expecting value";
    }
  }

  #takeKey(token: Token): string | null {
    if (token.kind !== "string") return "key is not a string in object";
    const string = stringOf(token.bytes);
    if ("error" in string) return string.error;
    const { container } = this.#open.at(-1)!;
    if (Object.hasOwn(container, string.text)) return "duplicate key";
    this.#open.at(-1)!.key = string.text;
    this.#expected = "colon";
    return null;
  }

  #takeSeparator(token: Token): string | null {
    const isArray = Array.isArray(this.#open.at(-1)?.container);
    if (token.kind === (isArray ? "]" : "}")) return this.#close();
    if (token.kind !== ",") return `expected separator in ${isArray ? "list" : "dict"}`;
    this.#expected = isArray ? "value" : "key";
    return null;
  }

  #close(): null {
    return this.#add(this.#open.pop()!.container);
  }

  /** A value is complete. */
  #add(value: unknown): null {
    const above = this.#open.at(-1);
    if (!above) this.#value = value;
    else if (Array.isArray(above.container)) above.container.push(value);
    else addMember(above.container, above.key!, value);
    this.#expected = "separator";
    return null;
  }
}

const WORDS = new Map<string, unknown>([
  ["true", true],
  ["false", false],
  ["null", null],
]);
const SHOWN_CHARACTERS = 60;

/** Of a member, whatever its name: an assignment to __proto__ would make none. */
export function addMember(members: Members, key: string, value: unknown): void {
  if (key !== "__proto__") members[key] = value;
  else
    Object.defineProperty(members, key, {
      value,
      enumerable: true,
      configurable: true,
      writable: true,
    });
}

function asciiOf({ bytes }: Token): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

/** No word that means something is longer. */
function wordOf({ kind, bytes }: Token): string {
  return asciiOf({ kind, bytes: bytes.subarray(0, SHOWN_CHARACTERS) });
}
