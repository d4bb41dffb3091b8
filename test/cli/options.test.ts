/** The command line, taken apart as getopt_long() does it. */

import { describe, expect, it } from "vitest";
import { Opts } from "../../src/base/opts.ts";
import { helpText, OPTIONS, parseCommandLine } from "../../src/cli/options.ts";

const parse = (...words: string[]) =>
  parseCommandLine(words).map(({ name, value }) => [name, value]);

describe("parseCommandLine", () => {
  it("keeps the order, and takes values from behind '=' or from the next word", () => {
    expect(parse("--chardev", "stdio,id=c", "--blockdev=raw", "--monitor", "--daemonize")).toEqual([
      ["chardev", "stdio,id=c"],
      ["blockdev", "raw"],
      ["monitor", "--daemonize"],
    ]);
  });

  it("takes names that are cut short where that is clear", () => {
    expect(parse("--blo", "x", "--daem")).toEqual([
      ["blockdev", "x"],
      ["daemonize", ""],
    ]);
  });

  it("stops at help and version, which come before what is wrong behind them", () => {
    expect(parse("-Vh", "--nonsense")).toEqual([["version", ""]]);
    expect(parse("--help", "--nonsense")).toEqual([["help", ""]]);
  });

  it("takes an empty value", () => {
    expect(parse("--blockdev=", "--monitor", "")).toEqual([
      ["blockdev", ""],
      ["monitor", ""],
    ]);
  });

  const REFUSED: [string, string[], RegExp][] = [
    ["an unknown option", ["--nonsense"], /no option '--nonsense'/],
    ["an unknown letter", ["-X"], /no option '-X'/],
    ["a missing value", ["--blockdev"], /'--blockdev' needs a value/],
    ["a value too many", ["--daemonize=on"], /'--daemonize' takes no value; got 'on'/],
    ["a word without an option", ["disk.qcow2"], /Unexpected argument 'disk.qcow2'/],
    ["a word behind --", ["--", "disk.qcow2"], /Unexpected argument 'disk.qcow2'/],
    ["a lone dash", ["-"], /Unexpected argument '-'/],
  ];
  it.each(REFUSED)("refuses %s", (_, words, why) => {
    expect(() => parseCommandLine(words)).toThrow(why);
  });
});

it("tells of every option in its help", () => {
  for (const { name } of OPTIONS) expect(helpText()).toContain(`--${name}`);
});

describe("Opts", () => {
  it("reads the implied key, short booleans and doubled commas", () => {
    const opts = new Opts("socket,path=a,,b,server,nowait,id=c", "backend");
    expect(opts.take("backend")).toBe("socket");
    expect(opts.take("path")).toBe("a,b");
    expect(opts.takeBoolean("server")).toBe(true);
    expect(opts.takeBoolean("wait")).toBe(false);
    expect(() => opts.finish()).toThrow(/Invalid parameter 'id'/);
    expect(opts.take("id")).toBe("c");
    opts.finish();
  });

  it("refuses what is no boolean or number", () => {
    const opts = new Opts("socket,wait=maybe,reconnect=1s", "backend");
    expect(() => opts.takeBoolean("wait")).toThrow(/'wait' expects 'on' or 'off'/);
    expect(() => opts.takeNumber("reconnect")).toThrow(/'reconnect' expects a number/);
  });
});
