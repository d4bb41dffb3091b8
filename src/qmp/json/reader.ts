/**
 * Reads a stream of JSON values as QEMU does: a value ends where its brackets are balanced, not at
 * the end of a line, and a broken one costs one error, not the connection.
 *
 *      bytes ──▶ lexer ──▶ brackets, limits ──▶ parser ──▶ value or error, each time brackets balance
 *
 * An error of the parser waits for the balance as well; one of the lexer or a limit ends the value at
 * once, and what follows counts as new input (QEMU: qobject/json-streamer.c).
 *
 * Values are pulled, so whoever reads can stop in the midst of a piece. Time is linear in the input.
 */

import { MiB } from "../../base/bytes.ts";
import { BlockError } from "../../base/errors.ts";
import { Lexer, type Token } from "./lexer.ts";
import { Parser } from "./parser.ts";

/** Bytes of the tokens of one value. QEMU: 64 MiB. */
export const VALUE_BYTES_MAX = 16 * MiB;
/** QEMU: 2 Mi. */
export const VALUE_TOKENS_MAX = 512 * 1024;
/** As QEMU's. */
export const VALUE_NESTING_MAX = 1024;

export type JsonItem = { readonly value: unknown } | { readonly error: BlockError };

export class JsonReader {
  readonly #lexer = new Lexer(VALUE_BYTES_MAX);
  readonly #parser = new Parser();
  #braces = 0;
  #brackets = 0;
  #bytes = 0;
  #tokens = 0;

  /** The next piece, of any size; only when next() has returned null. It is borrowed until then. */
  take(piece: Uint8Array): void {
    this.#lexer.take(piece);
  }

  /** The next value or error, or null if the input is used up. */
  next(): JsonItem | null {
    for (let token = this.#lexer.next(); token; token = this.#lexer.next()) {
      const item = this.#takeToken(token);
      if (!item) continue;
      this.#reset();
      return item;
    }
    return null;
  }

  #takeToken(token: Token): JsonItem | null {
    switch (token.kind) {
      case "{":
        this.#braces++;
        break;
      case "}":
        this.#braces--;
        break;
      case "[":
        this.#brackets++;
        break;
      case "]":
        this.#brackets--;
        break;
      case "stray":
        return failure(`JSON parse error, stray ${shown(token.bytes)}`);
    }
    this.#bytes += token.bytes.length;
    this.#tokens++;
    const limit = token.kind === "too-long" ? "size" : this.#limit();
    if (limit) return failure(`JSON ${limit} limit exceeded`);
    this.#parser.take(token);
    const isOpen = this.#braces > 0 || this.#brackets > 0;
    if (isOpen && this.#braces >= 0 && this.#brackets >= 0) return null;
    const result = this.#parser.result();
    return "error" in result ? failure(`JSON parse error, ${result.error}`) : result;
  }

  /** The limit that is passed, if one is. */
  #limit(): string | null {
    if (this.#bytes > VALUE_BYTES_MAX) return "size";
    if (this.#tokens > VALUE_TOKENS_MAX) return "token count";
    if (this.#braces + this.#brackets > VALUE_NESTING_MAX) return "nesting depth";
    return null;
  }

  #reset(): void {
    this.#parser.reset();
    this.#braces = 0;
    this.#brackets = 0;
    this.#bytes = 0;
    this.#tokens = 0;
  }
}

function failure(text: string): JsonItem {
  return { error: new BlockError("EINVAL", text) };
}

const SHOWN_BYTES = 40;

function shown(bytes: Uint8Array): string {
  const text = new TextDecoder().decode(bytes.subarray(-SHOWN_BYTES));
  return `'${bytes.length > SHOWN_BYTES ? "…" : ""}${text}'`;
}
