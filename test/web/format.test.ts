import { expect, test } from "vitest";
import * as format from "../../web/format.ts";

test.each([
  [0, "0 B"],
  [512, "512 B"],
  [1023, "1023 B"],
  [1024, "1 KiB"],
  [1536, "1.5 KiB"],
  [1048575, "1.0 MiB"],
  [256 * 2 ** 20, "256 MiB"],
  [8 * 2 ** 40, "8 TiB"],
])("%d bytes read '%s'", (bytes, text) => {
  expect(format.formatBytes(bytes)).toBe(text);
});

test.each([
  [0, "0 s"],
  [0.2, "1 s"],
  [59.5, "1 min 0 s"],
  [125, "2 min 5 s"],
  [7260, "2 h 1 min"],
  [400_000, "4 days"],
])("%d seconds read '%s'", (seconds, text) => {
  expect(format.formatSeconds(seconds)).toBe(text);
});

test.each([
  ["4096", 4096],
  ["0x1000", 4096],
  [" 4k ", 4096],
  ["4 KiB", 4096],
  ["4KB", 4096],
  ["1.5 MiB", 1572864],
  ["8 T", 8 * 2 ** 40],
  ["512 B", 512],
])("'%s' is %d bytes", (text, bytes) => {
  expect(format.parseSize(text)).toBe(bytes);
});

test.each(["", "k", "-1", "1.3", "1e9", "4 XiB", "9007199254740993", "0x", "1 2"])(
  "'%s' is no size",
  (text) => {
    expect(format.parseSize(text)).toBeUndefined();
  },
);

test("a speed may say per second, and unlimited is 0 as in QMP", () => {
  expect(format.parseSpeed("8 MiB/s")).toBe(8 * 2 ** 20);
  expect(format.parseSpeed("1000000")).toBe(1_000_000);
  expect(format.parseSpeed("unlimited")).toBe(0);
  expect(format.parseSpeed("0")).toBe(0);
  expect(format.parseSpeed("fast")).toBeUndefined();
  expect(format.formatSpeed(0)).toBe("unlimited");
});

test("what formatSpeed() writes, parseSpeed() reads", () => {
  for (const speed of [0, 512, 2 ** 20, 8 * 2 ** 20, 32 * 2 ** 20]) {
    expect(format.parseSpeed(format.formatSpeed(speed))).toBe(speed);
  }
});

test("100 percent is said only of a job with nothing left", () => {
  expect(format.percentOf(0, 0)).toBe(100);
  expect(format.percentOf(999, 1000)).toBe(99);
  expect(format.percentOf(1000, 1000)).toBe(100);
});
