/** `img rebase` and the real qemu-img, told the same. */

import { describe, expect, it } from "vitest";
import { hasQemu } from "../drivers/format/rig.ts";
import { eachTestsFolders, expectDone, makeDisks } from "./moving.ts";
import { expectBothRefuse, qemuImg, qemuIo } from "./rig.ts";

const folders = eachTestsFolders();

/** a.raw <── mid.qcow2 <── top.qcow2; b.raw and short.raw beside; what top reads as in whole.raw. */
function makeChain(...options: string[]): void {
  makeDisks(folders.each("a.raw"), 1_048_576, 1);
  makeDisks(folders.each("b.raw"), 2_097_152, 2);
  makeDisks(folders.each("short.raw"), 300_032, 1);
  const create = ["create", "-q", "-f", "qcow2", ...options];
  folders.now.make(...create, "-b", "a.raw", "-F", "raw", "@/mid.qcow2");
  folders.now.make(...create, "-b", "mid.qcow2", "-F", "qcow2", "@/top.qcow2", "2M");
  for (const path of folders.each("mid.qcow2")) qemuIo(path, "qcow2", "write -P 1 100k 200k");
  for (const path of folders.each("top.qcow2")) {
    qemuIo(path, "qcow2", "write -P 3 200k 200k", "write -z 576k 64k", "write -P 4 1900k 64k");
  }
  folders.now.make("convert", "-O", "raw", "@/top.qcow2", "@/whole.raw");
}

function backingOf(path: string): unknown[] {
  const info = JSON.parse(qemuImg("info", "-U", "--output=json", path));
  return [info["backing-filename"], info["backing-filename-format"]];
}

async function rebased(...words: string[]): Promise<void> {
  expectDone(await folders.now.both("rebase", "-f", "qcow2", ...words, "@/top.qcow2"));
  const [mine, real] = folders.each("top.qcow2");
  expect(backingOf(mine!)).toEqual(backingOf(real!));
}

function expectUnchanged(): void {
  for (const path of folders.each("top.qcow2")) {
    qemuImg("compare", "-F", "raw", path, folders.each("whole.raw")[0]!);
  }
}

describe.skipIf(!hasQemu)("img rebase", () => {
  for (const options of [[], ["-o", "extended_l2=on,cluster_size=128k"], ["-o", "compat=0.10"]]) {
    it(`changes nothing that the image reads as ${options.join(" ")}`, async () => {
      for (const words of [
        ["-b", "a.raw", "-F", "raw"],
        ["-b", "b.raw", "-F", "raw"],
        ["-b", "short.raw", "-F", "raw"],
        ["-b", ""],
        ["-p", "-q", "-b", "@/a.raw", "-F", "raw"],
      ]) {
        makeChain(...options);
        if (words[0] === "-p") await folders.now.both("rebase", ...words, "@/top.qcow2");
        else await rebased(...words);
        expectUnchanged();
        qemuImg("check", folders.each("top.qcow2")[0]!);
      }
    });
  }

  it("packs what it copies with -c", async () => {
    makeChain();
    // The real tool of before 8.2 knows no -c.
    const { ours } = await folders.now.both("rebase", "-c", "-b", "", "@/top.qcow2");
    expect(ours).toEqual({ status: 0, stdout: "", stderr: "" });
    const [mine] = folders.each("top.qcow2");
    qemuImg("compare", "-F", "raw", mine!, folders.each("whole.raw")[0]!);
    const check = JSON.parse(qemuImg("check", "--output=json", mine!));
    expect(check["compressed-clusters"]).toBeGreaterThan(0);
  });

  it("writes the name alone with -u", async () => {
    makeChain();
    await rebased("-u", "-b", "nowhere.raw", "-F", "raw");
    await rebased("-u", "-b", "mid.qcow2", "-F", "qcow2");
    qemuImg("check", folders.each("top.qcow2")[0]!);
    expectUnchanged();
    await rebased("-u", "-b", "");
    makeChain();
    await rebased("-u");
  });

  it("refuses what qemu-img refuses, and changes nothing then", async () => {
    makeChain();
    for (const words of [
      ["@/top.qcow2"],
      ["-b", "b.raw", "@/top.qcow2"],
      ["-u", "-b", "b.raw", "@/top.qcow2"],
      ["-b", "nope.raw", "-F", "raw", "@/top.qcow2"],
      ["-b", "b.raw", "-F", "nope", "@/top.qcow2"],
      ["-f", "raw", "-b", "b.raw", "-F", "raw", "@/a.raw"],
      ["-b", "top.qcow2", "-F", "qcow2", "@/top.qcow2"],
      ["-b", "", "@/nope.qcow2"],
      [],
    ]) {
      expectBothRefuse(await folders.now.both("rebase", ...words));
    }
    expectUnchanged();
    expect(backingOf(folders.each("top.qcow2")[0]!)).toEqual(["mid.qcow2", "qcow2"]);
  });
});
