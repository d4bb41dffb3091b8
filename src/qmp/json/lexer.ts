/**
 * Cuts bytes into JSON tokens, one at a time, wherever the pieces that they come in are cut.
 *
 *      { "execute" :  12.5e1  }  …           a token ends where its grammar ends; for numbers and
 *      ^ ^         ^  ^       ^              words that is known one byte later
 *
 * The rules are QEMU's (qobject/json-lexer.c): strings also in single quotes, words of small letters,
 * numbers as in JSON, with no exponent after a bare 0. A byte that fits nowhere is an error token;
 * after it everything is skipped up to the next bracket, colon, comma, control character other than
 * a tab, or a byte that UTF-8 cannot have (0xFE, 0xFF): there good input may begin again.
 *
 * Time is linear in the input. Of a token that is longer than the limit nothing is kept.
 */

export type TokenKind =
  | "{"
  | "}"
  | "["
  | "]"
  | ":"
  | ","
  | "string"
  | "integer"
  | "float"
  | "word"
  /** Bytes that begin no token, or do not go on with it. */
  | "stray"
  /** A token that is too long; what follows is lexed anew. */
  | "too-long";

export interface Token {
  readonly kind: TokenKind;
  /** As they came, quotes included. Only good until the next call. */
  readonly bytes: Uint8Array;
}

const NONE: Uint8Array = new Uint8Array(0);

/** Where the lexer is in the current token. */
const STATES = [
  "start",
  "skipping",
  "double-quoted",
  "double-quoted-escape",
  "single-quoted",
  "single-quoted-escape",
  "minus",
  "zero",
  "digits",
  "point",
  "fraction",
  "exponent",
  "exponent-sign",
  "exponent-digits",
  "letters",
] as const;
type State = (typeof STATES)[number];

/** Ends of a token: after the byte that was looked at ("}"), or before it ("integer"). */
const KINDS = [
  "{",
  "}",
  "[",
  "]",
  ":",
  ",",
  "string",
  "integer",
  "float",
  "word",
  "stray",
] as const;

/** In a table entry: what comes next is a kind, not a state. */
const ENDS = 0x40;
/** In a table entry: the byte is not part of it, and is looked at again. */
const AGAIN = 0x80;

/** Which bytes lead where. Ranges are written "09"; what is not named is stray. */
type Rules = Readonly<Record<string, State | (typeof KINDS)[number]>>;

const STRING_BYTES = "\u0020\u00fd";
const RULES: Readonly<Record<State, Rules>> = {
  start: {
    "  ": "start",
    "\t\n": "start",
    "\r\r": "start",
    '""': "double-quoted",
    "''": "single-quoted",
    "--": "minus",
    "00": "zero",
    "19": "digits",
    az: "letters",
    ...Object.fromEntries(["{", "}", "[", "]", ":", ","].map((one) => [one + one, one])),
  },
  skipping: { "\u0020\u00fd": "skipping", "\t\t": "skipping" },
  "double-quoted": {
    [STRING_BYTES]: "double-quoted",
    "\\\\": "double-quoted-escape",
    '""': "string",
  },
  "double-quoted-escape": { [STRING_BYTES]: "double-quoted" },
  "single-quoted": {
    [STRING_BYTES]: "single-quoted",
    "\\\\": "single-quoted-escape",
    "''": "string",
  },
  "single-quoted-escape": { [STRING_BYTES]: "single-quoted" },
  minus: { "00": "zero", "19": "digits" },
  zero: { "..": "point", "09": "stray" },
  digits: { "09": "digits", "..": "point", ee: "exponent", EE: "exponent" },
  point: { "09": "fraction" },
  fraction: { "09": "fraction", ee: "exponent", EE: "exponent" },
  exponent: { "++": "exponent-sign", "--": "exponent-sign", "09": "exponent-digits" },
  "exponent-sign": { "09": "exponent-digits" },
  "exponent-digits": { "09": "exponent-digits" },
  letters: { az: "letters" },
};

/** Tokens that end before a byte that does not belong to them. */
const COMPLETE: Readonly<Partial<Record<State, (typeof KINDS)[number]>>> = {
  zero: "integer",
  digits: "integer",
  fraction: "float",
  "exponent-digits": "float",
  letters: "word",
};

/** Bytes at which skipping ends, looked at again. */
const RESUMED_AT = "{}[]:,";

const TABLE = buildTable();

function buildTable(): Uint8Array {
  const table = new Uint8Array(STATES.length * 256);
  for (const [i, state] of STATES.entries()) {
    const complete = COMPLETE[state];
    const otherwise = complete ? AGAIN | ENDS | KINDS.indexOf(complete) : entry("stray");
    table.fill(state === "skipping" ? AGAIN | entry("start") : otherwise, i * 256, i * 256 + 256);
    for (const [range, target] of Object.entries(RULES[state])) {
      table.fill(entry(target), i * 256 + range.charCodeAt(0), i * 256 + range.charCodeAt(1) + 1);
    }
  }
  for (const one of RESUMED_AT) {
    table[STATES.indexOf("skipping") * 256 + one.charCodeAt(0)] = AGAIN | entry("start");
  }
  return table;
}

function entry(target: State | (typeof KINDS)[number]): number {
  const state = STATES.indexOf(target as State);
  return state >= 0 ? state : ENDS | KINDS.indexOf(target as (typeof KINDS)[number]);
}

const START = STATES.indexOf("start");
const SKIPPING = STATES.indexOf("skipping");

export class Lexer {
  readonly #bytesMax: number;
  #input = NONE;
  #at = 0;
  #state = START;
  /** What earlier pieces had of the current token, and room for more. */
  #held = NONE;
  #heldBytes = 0;

  /** @param bytesMax most bytes of one token */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** The next piece; only when the one before it is used up. It is borrowed until then. */
  take(piece: Uint8Array): void {
    this.#input = piece;
    this.#at = 0;
  }

  /** The next token, or null if the input is used up. */
  next(): Token | null {
    const input = this.#input;
    let state = this.#state;
    let begin = this.#at;
    // One byte more than a token may have: then it is too long.
    const room = this.#bytesMax - this.#heldBytes + 1;
    for (let at = begin; at < input.length; at++) {
      const next = TABLE[state * 256 + input[at]!]!;
      if (next & ENDS) {
        const kind = KINDS[next & ~(ENDS | AGAIN)]!;
        this.#at = next & AGAIN ? at : at + 1;
        this.#state = kind === "stray" ? SKIPPING : START;
        return { kind, bytes: this.#whole(input.subarray(begin, this.#at)) };
      }
      state = next & ~AGAIN;
      if (next & AGAIN) at--;
      else if (state === START || state === SKIPPING) begin = at + 1;
      else if (at + 1 - begin >= room) return this.#tooLong(at + 1);
    }
    if (begin < input.length) this.#hold(input.subarray(begin));
    this.#state = state;
    this.#at = input.length;
    return null;
  }

  #tooLong(at: number): Token {
    this.#at = at;
    this.#state = START;
    this.#forget();
    return { kind: "too-long", bytes: NONE };
  }

  /** The token's bytes: a view of the piece, where it is not cut. */
  #whole(last: Uint8Array): Uint8Array {
    if (this.#heldBytes === 0) return last;
    this.#hold(last);
    const whole = this.#held.subarray(0, this.#heldBytes);
    this.#forget();
    return whole;
  }

  /** Copies: the piece is only borrowed. */
  #hold(bytes: Uint8Array): void {
    const needed = this.#heldBytes + bytes.length;
    if (needed > this.#held.length) {
      // Doubled, so that a token in pieces of one byte does not cost its square.
      const larger = new Uint8Array(Math.max(needed, this.#held.length * 2));
      larger.set(this.#held.subarray(0, this.#heldBytes));
      this.#held = larger;
    }
    this.#held.set(bytes, this.#heldBytes);
    this.#heldBytes = needed;
  }

  #forget(): void {
    this.#held = NONE;
    this.#heldBytes = 0;
  }
}
