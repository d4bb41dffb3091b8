/** `resize` and `amend` leave what qemu-img would leave, and refuse the same. */

import { statSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { expectBothRefuse, expectSame, type Folders, qemuImg, qemuIo, useFolders } from "./rig.ts";

const folders = useFolders();

function prepare(at: Folders): void {
  at.make("create", "-q", "-f", "qcow2", "@/a", "1M");
  at.make("create", "-q", "-f", "raw", "@/raw", "1M");
  for (const folder of [at.mine, at.real]) qemuIo(`${folder}/a`, "qcow2", "write -P 1 0 1M");
}

const sizeOf = (folder: string) =>
  JSON.parse(qemuImg("info", "--output=json", `${folder}/a`))["virtual-size"];

describe("resize", () => {
  const SERIES: readonly (readonly (readonly string[])[])[] = [
    [
      ["@/a", "2M"],
      ["@/a", "+1M"],
      ["-q", "@/a", "3M"],
    ],
    [["@/a", "+0"]],
    [["@/a", "3M", "--shrink"]],
    [["--image-opts", "driver=qcow2,file.filename=@/a", "1.5M"]],
    [
      ["-f", "raw", "@/raw", "+100"],
      ["-f", "raw", "--shrink", "@/raw", "-1k"],
    ],
  ];
  it.each(
    SERIES.map((series) => [series.map((words) => words.join(" ")).join("; "), series] as const),
  )("%s", async (_, series) => {
    const at = folders();
    prepare(at);
    for (const words of series) {
      const pair = await at.both("resize", ...words);
      // The older one takes the size only as the last word.
      if (words.at(-1) === "--shrink") expect(pair.ours.status).toBe(0);
      else expectSame(pair);
    }
    if (series[0]!.at(-1) !== "--shrink") expect(sizeOf(at.mine)).toBe(sizeOf(at.real));
    expect(statSync(`${at.mine}/raw`).size).toBe(statSync(`${at.real}/raw`).size);
    expect(qemuImg("check", `${at.mine}/a`)).toContain("No errors");
  });

  const REFUSED: readonly (readonly string[])[] = [
    ["@/a"],
    ["@/a", "1M", "2M"],
    ["@/a", "512k"],
    ["@/a", "-512k"],
    ["--shrink", "@/a", "-100M"],
    ["--shrink", "@/a", "0"],
    ["@/a", "+1000"],
    ["@/a", "x"],
    ["-6", "@/a"],
    ["@/a", "9E"],
    ["--preallocation=bogus", "@/a", "+1M"],
    ["--preallocation=full", "--shrink", "@/a", "512k"],
    ["@/nowhere", "1M"],
  ];
  it.each(REFUSED.map((words) => [words.join(" "), words] as const))(
    "refuses '%s'",
    async (_, words) => {
      const at = folders();
      prepare(at);
      expectBothRefuse(await at.both("resize", ...words));
      expect(sizeOf(at.mine)).toBe(1 << 20);
    },
  );
});

describe("amend", () => {
  const DONE: readonly (readonly string[])[] = [
    ["-f", "qcow2", "-o", "compat=0.10", "@/a"],
    ["-o", "lazy_refcounts=on", "@/a"],
    ["-p", "-o", "refcount_bits=64", "@/a"],
    ["-q", "-o", "size=2M,compat=v3", "@/a"],
  ];
  it.each(DONE.map((words) => [words.join(" "), words] as const))("%s", async (_, words) => {
    const at = folders();
    prepare(at);
    const { ours: mine, theirs: real } = await at.both("amend", ...words);
    expect(mine, mine.stderr).toMatchObject({ status: 0 });
    // How often it tells on its way is its own business.
    const last = (text: string) => text.slice(text.lastIndexOf("\r", text.length - 3) + 1);
    expect(last(mine.stdout)).toBe(last(real.stdout));
    const data = (folder: string) =>
      JSON.parse(qemuImg("info", "--output=json", `${folder}/a`))["format-specific"].data;
    expect(data(at.mine)).toEqual(data(at.real));
    expect(sizeOf(at.mine)).toBe(sizeOf(at.real));
    expect(qemuImg("check", `${at.mine}/a`)).toContain("No errors");
  });

  const REFUSED: readonly (readonly string[])[] = [
    ["@/a"],
    ["-o", "nope=1", "@/a"],
    ["-o", "cluster_size=4k", "@/a"],
    ["-o", "refcount_bits=3", "@/a"],
    ["-o", "compat=3", "@/a"],
    ["-o", "compat=0.10", "-t", "nope", "@/a"],
    ["-f", "raw", "-o", "size=2M", "@/raw"],
    ["-o", "compat=0.10", "@/nowhere"],
  ];
  it.each(REFUSED.map((words) => [words.join(" "), words] as const))(
    "refuses '%s'",
    async (_, words) => {
      const at = folders();
      prepare(at);
      expectBothRefuse(await at.both("amend", ...words));
    },
  );
});
