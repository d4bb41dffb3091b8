/**
 * Bytes as a person reads and types them.
 *
 *   00000200  45 46 49 20 50 41 52 54  |EFI PART|
 *   offset    hex                       ASCII, a dot for what does not print
 */

export interface DumpRow {
  readonly offset: string;
  readonly hex: string;
  readonly ascii: string;
}

/** @param offset bytes, of the first byte on the disk */
export function dumpRows(bytes: Uint8Array, offset: number, bytesPerRow: number): DumpRow[] {
  const width = Math.max(8, (offset + bytes.length).toString(16).length);
  const rows: DumpRow[] = [];
  for (let at = 0; at < bytes.length; at += bytesPerRow) {
    const row = bytes.subarray(at, at + bytesPerRow);
    rows.push({
      offset: (offset + at).toString(16).padStart(width, "0"),
      hex: formatHex(row),
      ascii: Array.from(row, printable).join(""),
    });
  }
  return rows;
}

/** "45 46 49", small letters. */
export function formatHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

/** The text of an editor: lines of `bytesPerRow` bytes. */
export function hexLines(bytes: Uint8Array, bytesPerRow: number): string {
  return dumpRows(bytes, 0, bytesPerRow)
    .map((row) => row.hex)
    .join("\n");
}

/**
 * Pairs of hex digits; blanks, line ends and commas between pairs do not count.
 *
 * @returns the bytes, or what is wrong with the text
 */
export function parseHex(text: string): Uint8Array<ArrayBuffer> | string {
  const words = text.split(/[\s,]+/).filter((word) => word !== "");
  const bytes: number[] = [];
  for (const word of words) {
    if (!/^[0-9a-f]+$/i.test(word)) return `'${word}' is not hex: use the digits 0-9 and a-f`;
    if (word.length % 2 !== 0) return `'${word}' has half a byte: write two digits for each`;
    for (let at = 0; at < word.length; at += 2) {
      bytes.push(Number.parseInt(word.slice(at, at + 2), 16));
    }
  }
  return Uint8Array.from(bytes);
}

function printable(byte: number): string {
  return byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : ".";
}
