/** The progress line on a terminal, and in a log. */

import { describe, expect, it } from "vitest";
import { drawProgress, ProgressLine } from "../../scripts/terminal.ts";

/** What begins a line anew. */
const ERASE = "\r\x1b[K";

describe("drawProgress", () => {
  it("draws a part, nothing and all", () => {
    expect(drawProgress({ offset: 1 << 20, len: 4 << 20, notes: ["2 s left"] })).toBe(
      "██████░░░░░░░░░░░░░░░░░░   25 %  1 MiB of 4 MiB  2 s left",
    );
    expect(drawProgress({ offset: 0, len: 100 })).toMatch(/^░{24} {4}0 %/);
    expect(drawProgress({ offset: 100, len: 100 })).toMatch(/^█{24} {2}100 %/);
    expect(drawProgress({ offset: 0, len: 0 })).toMatch(/^█{24} {2}100 %/);
  });

  it("is full only at the very end", () => {
    expect(drawProgress({ offset: 9999, len: 10000 })).toContain("░");
  });
});

describe("ProgressLine", () => {
  it("moves on a terminal, and makes room for other lines", () => {
    const out = new Out(true);
    const line = new ProgressLine(out.stream, "");
    line.show({ offset: 0, len: 100 });
    line.say("wrote a sector");
    line.end();
    expect(out.text.replaceAll(ERASE, "<erase>")).toMatch(
      /^<erase>░+[^\n]*<erase>wrote a sector\n░+[^\n]*\n$/,
    );
  });

  it("is cut to the terminal's width", () => {
    const out = new Out(true);
    out.columns = 20;
    new ProgressLine(out.stream, "").show({ offset: 0, len: 100 });
    expect(out.text.replace(ERASE, "")).toHaveLength(19);
  });

  it("writes whole lines elsewhere, not one for every step, and always the last", () => {
    const out = new Out(false);
    const line = new ProgressLine(out.stream, "");
    for (let offset = 0; offset <= 100; offset++) line.show({ offset, len: 100 });
    line.end();
    const lines = out.text.trimEnd().split("\n");
    expect(lines.length).toBeLessThan(20);
    expect(lines[0]).toContain("  0 %");
    expect(lines.at(-1)).toContain("100 %");
    expect(out.text).not.toContain("\r");
  });
});

class Out {
  readonly isTTY: boolean;
  columns = 200;
  text = "";

  constructor(isTTY: boolean) {
    this.isTTY = isTTY;
  }

  write(text: string): void {
    this.text += text;
  }

  get stream(): NodeJS.WriteStream {
    return this as unknown as NodeJS.WriteStream;
  }
}
