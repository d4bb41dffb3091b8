/**
 * What a string token says: escapes and UTF-8, with QEMU's strictness (qobject/json-parser.c,
 * util/unicode.c). Not taken: bytes that are no UTF-8, lone surrogates, and the code points that
 * Unicode sets aside as no characters. NUL may come as \u0000, or as UTF-8 that is one byte too long
 * (0xC0 0x80), since QEMU's strings end at a plain one.
 */

const BACKSLASH = 0x5c;

/** Escapes of one letter, and what they stand for. */
const ESCAPES = new Map(
  Object.entries({
    '"': '"',
    "'": "'",
    "\\": "\\",
    "/": "/",
    b: "\b",
    f: "\f",
    n: "\n",
    r: "\r",
    t: "\t",
  }).map(([letter, meaning]) => [letter.charCodeAt(0), meaning.charCodeAt(0)]),
);
const U = "u".charCodeAt(0);

/** UTF-16 units made into a string at once; more are too many arguments for a call. */
const UNITS_AT_ONCE = 8192;

/** @returns the text, or what is wrong with it */
export function stringOf(token: Uint8Array): { text: string } | { error: string } {
  // No code point takes more units than it takes bytes.
  const units = new Uint16Array(token.length);
  let count = 0;
  const end = token.length - 1;
  for (let at = 1; at < end; ) {
    const byte = token[at]!;
    let code: number;
    if (byte === BACKSLASH) {
      const escaped = escapeAt(token, at + 1);
      if (!escaped) return { error: "invalid escape sequence in string" };
      ({ code } = escaped);
      at += 1 + escaped.bytes;
      if (code < 0) return { error: "an escape in a string is not a Unicode character" };
    } else if (byte < 0x80) {
      code = byte;
      at++;
    } else {
      const bytes = sequenceBytes(byte);
      code = codePointAt(token, at, bytes);
      if (code < 0) return { error: "invalid UTF-8 sequence in string" };
      at += bytes;
    }
    if (code > 0xffff) {
      units[count++] = 0xd800 + ((code - 0x10000) >> 10);
      units[count++] = 0xdc00 + ((code - 0x10000) & 0x3ff);
    } else {
      units[count++] = code;
    }
  }
  return { text: textOf(units.subarray(0, count)) };
}

/** @returns null if there is no such escape; code -1 if it stands for no character */
function escapeAt(token: Uint8Array, at: number): { code: number; bytes: number } | null {
  const letter = token[at]!;
  const plain = ESCAPES.get(letter);
  if (plain !== undefined) return { code: plain, bytes: 1 };
  if (letter !== U) return null;
  const first = hexAt(token, at + 1);
  const isLeading = first >= 0xd800 && first <= 0xdbff;
  if (isLeading && token[at + 5] === BACKSLASH && token[at + 6] === U) {
    const second = hexAt(token, at + 7);
    if (second < 0xdc00 || second > 0xdfff) return { code: -1, bytes: 5 };
    return { code: checked(0x10000 + ((first & 0x3ff) << 10) + (second & 0x3ff)), bytes: 11 };
  }
  return { code: checked(first), bytes: 5 };
}

/** Four hexadecimal digits, or -1. */
function hexAt(token: Uint8Array, at: number): number {
  let value = 0;
  for (let i = at; i < at + 4; i++) {
    const digit = Number.parseInt(String.fromCharCode(token[i] ?? 0), 16);
    if (Number.isNaN(digit)) return -1;
    value = value * 16 + digit;
  }
  return value;
}

/** How many bytes a sequence has that begins with this one, by its leading bits; 0 if none does. */
function sequenceBytes(first: number): number {
  if (first < 0xc0 || first > 0xfd) return 0;
  let bytes = 2;
  for (let bit = 0x20; first & bit; bit >>= 1) bytes++;
  return bytes;
}

/** Least code point that needs so many bytes. */
const LEAST = [0, 0, 0x80, 0x800, 0x10000, 0x200000, 0x4000000];

function codePointAt(token: Uint8Array, at: number, bytes: number): number {
  if (bytes === 0) return -1;
  let code = token[at]! & (0x7f >> bytes);
  for (let i = 1; i < bytes; i++) {
    const next = token[at + i] ?? 0;
    if ((next & 0xc0) !== 0x80) return -1;
    // Not <<: a sequence of six may have 31 bits.
    code = code * 64 + (next & 0x3f);
  }
  const isNul = code === 0 && bytes === 2;
  return code < LEAST[bytes]! && !isNul ? -1 : checked(code);
}

/** The code point, or -1 if it is a surrogate, no character, or none at all. */
function checked(code: number): number {
  const isSurrogate = code >= 0xd800 && code <= 0xdfff;
  const isNoCharacter = (code >= 0xfdd0 && code <= 0xfdef) || (code & 0xfffe) === 0xfffe;
  return code < 0 || code > 0x10ffff || isSurrogate || isNoCharacter ? -1 : code;
}

function textOf(units: Uint16Array): string {
  let text = "";
  for (let at = 0; at < units.length; at += UNITS_AT_ONCE) {
    text += String.fromCharCode(...units.subarray(at, at + UNITS_AT_ONCE));
  }
  return text;
}
