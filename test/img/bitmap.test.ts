/** `bitmap` leaves the bitmaps that qemu-img would leave. */

import { copyFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { expectBothRefuse, expectSame, type Folders, qemuImg, qemuIo, useFolders } from "./rig.ts";

const folders = useFolders();

function bitmapsOf(folder: string): unknown {
  const info = JSON.parse(qemuImg("info", "--output=json", `${folder}/a`));
  return info["format-specific"].data.bitmaps;
}

/** Image a with bitmap b, in which something is dirty, and image o, the same. */
function prepare(at: Folders): void {
  at.make("create", "-q", "-f", "qcow2", "@/a", "1M");
  at.make("bitmap", "--add", "@/a", "b");
  for (const folder of [at.mine, at.real]) {
    qemuIo(`${folder}/a`, "qcow2", "write 64k 128k");
    copyFileSync(`${folder}/a`, `${folder}/o`);
  }
}

describe("bitmap", () => {
  const SERIES: readonly (readonly (readonly string[])[])[] = [
    [["--add", "@/a", "c"]],
    [
      ["--add", "-g", "512", "@/a", "c"],
      ["--merge", "b", "@/a", "c"],
    ],
    [["--add", "--disable", "-g128k", "@/a", "c"]],
    [["--clear", "--disable", "@/a", "b"]],
    [["--remove", "--add", "@/a", "b"]],
    [["--add", "--clear", "--remove", "@/a", "c"]],
    [
      ["--disable", "@/a", "b"],
      ["--enable", "@/a", "b"],
    ],
    [
      ["--clear", "@/a", "b"],
      ["--merge", "b", "-b", "@/o", "-F", "qcow2", "@/a", "b"],
    ],
    [
      ["--add", "@/a", "c"],
      ["--merge", "b", "--merge", "b", "-b", "@/o", "@/a", "c"],
    ],
    [["--add", "--image-opts", "driver=qcow2,file.filename=@/a", "c"]],
  ];
  it.each(
    SERIES.map((series) => [series.map((words) => words.join(" ")).join("; "), series] as const),
  )("%s", async (_, series) => {
    const at = folders();
    prepare(at);
    for (const words of series) expectSame(await at.both("bitmap", ...words));
    expect(bitmapsOf(at.mine)).toEqual(bitmapsOf(at.real));
    expect(qemuImg("check", `${at.mine}/a`)).toContain("No errors");
    // What is dirty, asked of the real tool: a merge into an empty one, as the exports would show it.
    expect(qemuImg("measure", "-O", "qcow2", "--output=json", `${at.mine}/a`)).toBe(
      qemuImg("measure", "-O", "qcow2", "--output=json", `${at.real}/a`),
    );
  });

  const REFUSED: readonly (readonly string[])[] = [
    ["@/a", "b"],
    ["--add", "@/a"],
    ["--add", "@/a", "b"],
    ["--add", "-g", "3", "@/a", "c"],
    ["--add", "-g", "4G", "@/a", "c"],
    ["--merge", "nope", "@/a", "b"],
    ["--merge", "b", "-b", "@/nowhere", "@/a", "b"],
    ["--merge", "b", "-b", "@/a", "-F", "qcow2", "@/a", "b"],
    ["-g", "64k", "--clear", "@/a", "b"],
    ["-F", "qcow2", "--clear", "@/a", "b"],
    ["-b", "@/o", "--clear", "@/a", "b"],
    ["--remove", "@/a", "nope"],
    ["--add", "-f", "raw", "@/a", "c"],
    ["--add", "--remove", "--clear", "@/a", "c"],
  ];
  it.each(REFUSED.map((words) => [words.join(" "), words] as const))(
    "refuses '%s'",
    async (_, words) => {
      const at = folders();
      prepare(at);
      expectBothRefuse(await at.both("bitmap", ...words));
      expect(bitmapsOf(at.mine)).toEqual(bitmapsOf(at.real));
    },
  );
});
