/**
 * Sizes as command lines have them, and as people read them (QEMU: util/cutils.c, qemu_strtosz() and
 * size_to_str()).
 */

import { BlockError } from "../base/errors.ts";

const UNITS = "bkmgtpe";
const NUMBER = /^\s*\+?(?:(0x[0-9a-f]+)|([0-9]+)?(\.[0-9]*)?([bkmgtpe])?)$/i;

/**
 * `64k`, `1.5G`, `512`, `0x200`: a number, and a unit of 1024, 1024^2, and so on.
 *
 * @param what for the error text: "Image size"
 * @throws BlockError EINVAL; EFBIG from 2^53 on
 */
export function parseSize(text: string, what: string): number {
  const bytes = sizeOf(text);
  if (bytes === null) {
    throw new BlockError(
      "EINVAL",
      `${what} is '${text}'; it takes a number with one of the suffixes b, k, M, G, T, P, E or none`,
    );
  }
  if (bytes <= Number.MAX_SAFE_INTEGER) return bytes;
  throw new BlockError("EFBIG", `${what} is '${text}'; it has to be less than 2^53 bytes`);
}

/** null if the text is no size. */
export function sizeOf(text: string): number | null {
  const [whole, hex, digits, fraction, unit] = NUMBER.exec(text) ?? [];
  if (whole === undefined) return null;
  if (hex !== undefined) return Number(hex);
  if (digits === undefined && (fraction === undefined || fraction === ".")) return null;
  const scale = 1024 ** UNITS.indexOf((unit ?? "b").toLowerCase());
  const part = Number(`0${fraction ?? ""}0`);
  if (part !== 0 && scale === 1) return null;
  return Number(digits ?? 0) * scale + Math.floor(part * scale + 0.5);
}

const PREFIXES = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/** `1.5 GiB`: three digits. */
export function humanSize(bytes: number): string {
  let power = 0;
  // Below 1000 of a unit it is told in that.
  while (bytes / 1024 ** power >= 1000 && power < PREFIXES.length - 1) power++;
  const value = threeDigits(bytes / 1024 ** power);
  const text = value.includes("e") ? "1e+03" : String(Number(value));
  return `${text} ${PREFIXES[power]}B`;
}

/** As C does it: what lies in the middle goes to the even digit (2.125 is 2.12). */
function threeDigits(value: number): string {
  const scale = 10 ** Math.max(0, 2 - Math.floor(Math.log10(Math.max(value, 1))));
  const scaled = value * scale;
  const whole = Math.floor(scaled);
  const isMiddle = scaled - whole === 0.5 && value >= 1;
  return (isMiddle && whole % 2 === 0 ? whole / scale : value).toPrecision(3);
}
