/** `img dd` and the real qemu-img, told the same. */

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { hasQemu } from "../drivers/format/rig.ts";
import { eachTestsFolders, makeDisks } from "./moving.ts";
import { expectBothRefuse, qemuImg } from "./rig.ts";

const folders = eachTestsFolders();

describe.skipIf(!hasQemu)("img dd", () => {
  it("copies the blocks that qemu-img copies", async () => {
    makeDisks(folders.each("a.raw"), 1_000_100, 1);
    folders.now.make("convert", "-f", "raw", "-O", "qcow2", "@/a.raw", "@/a.qcow2");
    for (const words of [
      [],
      ["bs=1M"],
      ["bs=1000", "count=3"],
      ["bs=1k", "skip=100"],
      ["bs=64k", "skip=1", "count=3"],
      ["bs=64k", "skip=5", "count=2"],
      ["bs=4k", "skip=10000"],
      ["count=1"],
    ]) {
      for (const [input, format] of [
        ["a.raw", "raw"],
        ["a.qcow2", "qcow2"],
      ]) {
        const { ours, theirs } = await folders.now.both(
          ...["dd", "-f", format!, ...words, `if=@/${input}`, "of=@/out.raw"],
        );
        expect([ours.status, ours.stdout], String(words)).toEqual([theirs.status, theirs.stdout]);
        const [mine, real] = folders.each("out.raw").map((path) => readFileSync(path));
        expect(Buffer.compare(mine!, real!), String(words)).toBe(0);
      }
    }
  });

  it("makes an output of another format", async () => {
    makeDisks(folders.each("a.raw"), 500_000, 2);
    const words = ["dd", "-f", "raw", "-O", "qcow2", "bs=1M", "if=@/a.raw", "of=@/out.qcow2"];
    const { ours } = await folders.now.both(...words);
    expect(ours).toEqual({ status: 0, stdout: "", stderr: "" });
    qemuImg("compare", ...folders.each("out.qcow2"));
    qemuImg("check", folders.each("out.qcow2")[0]!);
  });

  it("refuses what qemu-img refuses", async () => {
    makeDisks(folders.each("a.raw"), 10_240, 3);
    for (const words of [
      [],
      ["if=@/a.raw"],
      ["of=@/x.raw"],
      ["if=@/a.raw", "of=@/x.raw", "bs=0"],
      ["if=@/a.raw", "of=@/x.raw", "bs=3G"],
      ["if=@/a.raw", "of=@/x.raw", "bs="],
      ["if=@/a.raw", "of=@/x.raw", "count=k"],
      ["if=@/a.raw", "of=@/x.raw", "conv=sync"],
      ["if=@/nope.raw", "of=@/x.raw"],
      ["-O", "nope", "if=@/a.raw", "of=@/x.raw"],
    ]) {
      expectBothRefuse(await folders.now.both("dd", ...words));
    }
  });

  it("does not make its input anew", async () => {
    makeDisks(folders.each("a.raw"), 10_240, 4);
    const { ours } = await folders.now.both("dd", "-f", "raw", "if=@/a.raw", "of=@/a.raw");
    expect(ours.status).toBe(1);
    expect(readFileSync(folders.each("a.raw")[0]!).length).toBe(10_240);
  });
});
