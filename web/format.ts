/** Bytes, rates, times and sizes as people write them. */

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] as const;

/** 1536 -> "1.5 KiB". Powers of 1024, three digits at most before the unit. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  // What rounds to 1024 is one of the next unit: 1048575 is "1 MiB", not "1024 KiB".
  while (Math.round(value) >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  const digits = Number.isInteger(value) || value >= 100 ? 0 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** Bytes per second. */
export function formatRate(bytesPerSecond: number): string {
  return `${formatBytes(bytesPerSecond)}/s`;
}

/** A speed limit as QMP has it: 0 is none. */
export function formatSpeed(bytesPerSecond: number): string {
  return bytesPerSecond === 0 ? "unlimited" : formatRate(bytesPerSecond);
}

/** 125 -> "2 min 5 s". Rounded up: what is left never reads as nothing. */
export function formatSeconds(seconds: number): string {
  const whole = Math.ceil(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const hours = Math.floor(whole / 3600);
  if (hours < 48) return `${hours} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(hours / 24)} days`;
}

/** Whole percent, and 100 only when nothing is left. 0 of 0 is everything. */
export function percentOf(done: number, total: number): number {
  if (total === 0) return 100;
  return Math.min(Math.floor((done / total) * 100), 100);
}

const SIZE = /^(0x[0-9a-f]+|\d+(?:\.\d+)?)\s*(?:([kmgtp])?(?:i?b)?)?$/i;

/**
 * "4096", "0x1000", "4k", "4 KiB", "1.5 GiB" -> bytes. A letter is always a power of 1024, as in
 * qemu-img.
 *
 * @returns undefined if it is not a size, or not a whole number of bytes up to 2^53
 */
export function parseSize(text: string): number | undefined {
  const match = SIZE.exec(text.trim());
  if (match === null) return undefined;
  const power = match[2] === undefined ? 0 : "kmgtp".indexOf(match[2].toLowerCase()) + 1;
  const bytes = Number(match[1]) * 1024 ** power;
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

/** As parseSize(), with or without "/s"; "unlimited" and "0" are 0, no limit. */
export function parseSpeed(text: string): number | undefined {
  const bare = text.trim().replace(/\/s(ec)?$/i, "");
  return /^(unlimited|none|max)$/i.test(bare) ? 0 : parseSize(bare);
}
