import { expect, test } from "vitest";
import { dumpRows, hexLines, parseHex } from "../../web/hex.ts";

test("a dump shows offset, hex and what prints", () => {
  const bytes = new TextEncoder().encode("EFI PART\0\x7f\xff");
  expect(dumpRows(bytes, 512, 8)).toEqual([
    { offset: "00000200", hex: "45 46 49 20 50 41 52 54", ascii: "EFI PART" },
    { offset: "00000208", hex: "00 7f c3 bf", ascii: "...." },
  ]);
});

test("offsets past 4 GiB keep all their digits", () => {
  expect(dumpRows(new Uint8Array(16), 2 ** 42, 16)[0]!.offset).toBe("40000000000");
});

test("what the editor shows, it reads back", () => {
  const bytes = Uint8Array.from({ length: 512 }, (_, i) => i % 256);
  expect(parseHex(hexLines(bytes, 16))).toEqual(bytes);
  expect(parseHex("dead BEEF, 01")).toEqual(Uint8Array.of(0xde, 0xad, 0xbe, 0xef, 1));
  expect(parseHex("")).toEqual(new Uint8Array(0));
});

test("says which word is not hex", () => {
  expect(parseHex("00 xy")).toMatch(/'xy' is not hex/);
  expect(parseHex("00 1")).toMatch(/'1' has half a byte/);
});
