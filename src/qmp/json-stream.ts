/**
 * Cuts text into JSON values where brackets close, not at line ends: that is how QMP clients send
 * it, in pieces of any size. A broken value costs itself, not the connection.
 *
 * As QEMU does, strings may also stand in single quotes (qobject/json-lexer.c, json-streamer.c).
 */

import { MiB } from "../base/bytes.ts";
import { BlockError } from "../base/errors.ts";

/** Far more than any chain of options needs. */
export const REQUEST_CHARACTERS_MAX = 1 * MiB;
/** QEMU's limit: MAX_NESTING. */
export const REQUEST_NESTING_MAX = 1024;

const SHOWN_CHARACTERS = 60;

export type JsonItem = { readonly value: unknown } | { readonly error: BlockError };

export class JsonStream {
  /** What there is of the current value, double quotes only. */
  #text = "";
  #depth = 0;
  /** The quote that ends the current string, or "". */
  #quote = "";
  #escaped = false;
  /** The current value is given up; the rest of it is skipped. */
  #failed = false;

  /** Takes a piece of text; returns the values that it completes, in order. */
  push(piece: string): JsonItem[] {
    const items: JsonItem[] = [];
    for (const character of piece) this.#take(character, items);
    return items;
  }

  #take(character: string, items: JsonItem[]): void {
    if (this.#quote !== "") {
      this.#takeInString(character, items);
    } else if (character === '"' || character === "'") {
      this.#quote = character;
      this.#append('"', items);
    } else if (character === "{" || character === "[") {
      if (this.#depth === 0) this.#finish(items);
      this.#depth++;
      this.#append(character, items);
      if (this.#depth > REQUEST_NESTING_MAX) {
        this.#fail(`nested deeper than ${REQUEST_NESTING_MAX}`, items);
      }
    } else if (character === "}" || character === "]") {
      this.#append(character, items);
      this.#depth = Math.max(0, this.#depth - 1);
      if (this.#depth === 0) this.#finish(items);
    } else if (this.#depth === 0 && /\s/.test(character)) {
      this.#finish(items);
    } else {
      this.#append(character, items);
    }
  }

  #takeInString(character: string, items: JsonItem[]): void {
    if (character < " ") {
      // A string that was never closed must not swallow what comes after it.
      this.#fail("control character in string", items);
      this.#reset();
    } else if (this.#escaped) {
      this.#escaped = false;
      this.#append(character === "'" ? "'" : `\\${character}`, items);
    } else if (character === "\\") {
      this.#escaped = true;
    } else if (character === this.#quote) {
      this.#quote = "";
      this.#append('"', items);
      if (this.#depth === 0) this.#finish(items);
    } else {
      this.#append(character === '"' ? '\\"' : character, items);
    }
  }

  #append(text: string, items: JsonItem[]): void {
    if (this.#failed) return;
    this.#text += text;
    if (this.#text.length > REQUEST_CHARACTERS_MAX) {
      this.#fail(`longer than ${REQUEST_CHARACTERS_MAX} characters`, items);
    }
  }

  #fail(why: string, items: JsonItem[]): void {
    if (!this.#failed) items.push({ error: parseError(`${why}, in ${this.#shown()}`) });
    this.#failed = true;
    this.#text = "";
  }

  /** The end of a value, if there is one. */
  #finish(items: JsonItem[]): void {
    if (this.#text !== "") {
      try {
        items.push({ value: JSON.parse(this.#text) });
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
        items.push({ error: parseError(`not valid JSON: ${this.#shown()}`) });
      }
    }
    this.#reset();
  }

  #reset(): void {
    this.#text = "";
    this.#depth = 0;
    this.#quote = "";
    this.#escaped = false;
    this.#failed = false;
  }

  #shown(): string {
    if (this.#text.length <= SHOWN_CHARACTERS) return this.#text;
    return `${this.#text.slice(0, SHOWN_CHARACTERS)}…`;
  }
}

function parseError(why: string): BlockError {
  return new BlockError("EINVAL", `JSON parse error, ${why}`);
}
