/**
 * Numbers as QEMU has them: a whole one is an int64 or else a uint64, everything else is a double.
 * In JavaScript:
 *
 *      12, -3                   number          whole, exact
 *      12345678901234567890     bigint          whole, of 64 bits, and beyond what a number holds
 *      1.5, 1e30, 2^64          number          a double
 *      1.0, 1e3                 JsonFloat       a double that happens to be whole: no integer to QEMU
 */

/** A double that is a whole number, and would be taken for an integer if it were a number. */
export class JsonFloat {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }

  toJSON(): number {
    return this.value;
  }
}

export type JsonNumber = number | bigint | JsonFloat;

const INT64_MIN = -(2n ** 63n);
const UINT64_MAX = 2n ** 64n - 1n;
/** Longer than any of 64 bits; a cheap way not to make huge bigints. */
const INTEGER_CHARACTERS_MAX = 21;

/** @param text by JSON's grammar, without point and exponent */
export function integerOf(text: string): JsonNumber {
  const value = Number(text);
  // + 0: there is no negative zero among integers.
  if (Number.isSafeInteger(value)) return value + 0;
  if (text.length > INTEGER_CHARACTERS_MAX) return value;
  const exact = BigInt(text);
  return is64Bit(exact) ? exact : value;
}

/** @param text by JSON's grammar, with point or exponent */
export function floatOf(text: string): JsonNumber {
  const value = Number(text);
  return Number.isSafeInteger(value) ? new JsonFloat(value) : value;
}

/** Fits into an int64 or a uint64. */
export function is64Bit(value: bigint): boolean {
  return value >= INT64_MIN && value <= UINT64_MAX;
}

/** As text, in QEMU's form: 17 digits, as few of them as there are (C: %.17g). */
export function numberText(value: JsonNumber): string {
  if (typeof value === "bigint") return value.toString();
  if (value instanceof JsonFloat) return doubleText(value.value);
  return Number.isSafeInteger(value) && !Object.is(value, -0) ? String(value) : doubleText(value);
}

const DIGITS = 17;

function doubleText(value: number): string {
  if (Object.is(value, -0)) return "-0";
  // QEMU says inf, which no JSON reader takes; this is read as the same number.
  if (!Number.isFinite(value)) return value < 0 ? "-1e999" : "1e999";
  const [mantissa, power] = value.toExponential(DIGITS - 1).split("e") as [string, string];
  const exponent = Number(power);
  if (exponent >= -4 && exponent < DIGITS) return withoutZeroes(value.toPrecision(DIGITS));
  const digits = String(Math.abs(exponent)).padStart(2, "0");
  return `${withoutZeroes(mantissa)}e${exponent < 0 ? "-" : "+"}${digits}`;
}

function withoutZeroes(text: string): string {
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}
