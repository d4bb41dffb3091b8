/** `info` says what qemu-img says, of every kind of image, and follows no name that it should not. */

import { mkdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { expectBothRefuse, expectSame, ours, qemuImg, useFolders } from "./rig.ts";
import { makeChain, makeSample, SAMPLES } from "./samples.ts";
import { asOld } from "./versions.ts";

const folders = useFolders();
const old = (stdout: string) => asOld("info", stdout);
/** How much room a copy takes is the file system's business. */
const withoutRoom = (stdout: string) =>
  old(stdout).replace(/(?<=disk size: |"actual-size": )[^,\n]*/g, "_");

describe.each(Object.keys(SAMPLES))("info of an image %s", (name) => {
  it("is the same as text and as JSON", async () => {
    const at = folders();
    makeSample(name, at);
    for (const words of [[], ["--output=json"], ["-U", "--output", "json", "-f", "qcow2"]]) {
      const { ours: mine, theirs: real } = await at.both("info", ...words, "@/image");
      const outcome = ({ status, stdout }: typeof mine) => ({
        status,
        stdout: withoutRoom(stdout),
      });
      expect(outcome(mine), mine.stderr).toEqual(outcome(real));
    }
  });
});

describe("info of a raw image", () => {
  it.each([0, 3, 512, 5000])("of %i bytes is the same", async (bytes) => {
    const at = folders();
    for (const folder of [at.mine, at.real])
      writeFileSync(`${folder}/r`, new Uint8Array(bytes).fill(1));
    expectSame(await at.both("info", "@/r"), old);
    expectSame(await at.both("info", "--output=json", "-f", "raw", "@/r"), old);
  });
});

describe("info of a chain", () => {
  it("is the same, image by image", async () => {
    const at = folders();
    makeChain(at);
    expectSame(await at.both("info", "@/top.q"), old);
    expectSame(await at.both("info", "--backing-chain", "@/top.q"), old);
    expectSame(await at.both("info", "--backing-chain", "--output=json", "@/top.q"), old);
    expectSame(await at.both("info", "--backing-chain", "--output=json", "@/base.q"), old);
  });

  it("finds a loop, by another name as well", async () => {
    const at = folders();
    at.make("create", "-q", "-f", "qcow2", "-u", "-b", "b", "-F", "qcow2", "@/a", "1M");
    at.make("create", "-q", "-f", "qcow2", "-u", "-b", "a", "-F", "qcow2", "@/b", "1M");
    expectBothRefuse(await at.both("info", "--backing-chain", "@/a"));
    symlinkSync("a", `${at.mine}/link`);
    const outcome = await ours(["info", "--backing-chain", `${at.mine}/link`]);
    expect(outcome).toMatchObject({ status: 1, stderr: expect.stringContaining("has no end") });
    expectSame(await at.both("info", "@/a"), old);
  });

  it("says where a name in another folder leads, and does not follow it unless it is told to", async () => {
    const at = folders();
    at.make("create", "-q", "-f", "qcow2", "@/base", "1M");
    for (const folder of [at.mine, at.real]) mkdirSync(`${folder}/sub`);
    at.make("create", "-q", "-f", "qcow2", "-b", "../base", "-F", "qcow2", "@/sub/top");
    expectSame(await at.both("info", "@/sub/top"), old);
    const words = ["info", "--backing-chain", `${at.mine}/sub/top`];
    const refused = await ours(words);
    expect(refused.status).toBe(1);
    expect(refused.stderr).toContain("--trust-names");
    const trusting = await ours(["--trust-names", ...words]);
    expect(trusting.status).toBe(0);
    expect(old(trusting.stdout)).toBe(qemuImg(...words));
  });

  it("does not take a link in the folder for a file in it", async () => {
    const at = folders();
    qemuImg("create", "-q", "-f", "qcow2", `${at.real}/secret`, "1M");
    symlinkSync(`${at.real}/secret`, `${at.mine}/base`);
    qemuImg("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", `${at.mine}/top`);
    const outcome = await ours(["info", "--backing-chain", `${at.mine}/top`]);
    expect(outcome).toMatchObject({ status: 1, stderr: expect.stringContaining("--trust-names") });
  });

  it("does not guess the format of a backing file", async () => {
    const at = folders();
    qemuImg("create", "-q", "-f", "qcow2", `${at.mine}/base`, "1M");
    qemuImg("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", `${at.mine}/top`);
    qemuImg("rebase", "-u", "-f", "qcow2", "-b", "", `${at.mine}/top`);
    // The oldest way to name a backing file: without its format.
    const bytes = readFileSync(`${at.mine}/top`);
    bytes.writeBigUInt64BE(1000n, 8);
    bytes.writeUInt32BE(4, 16);
    bytes.write("base", 1000);
    writeFileSync(`${at.mine}/top`, bytes);
    for (const words of [["info", "--backing-chain"], ["map"]]) {
      const outcome = await ours([...words, `${at.mine}/top`]);
      expect(outcome).toMatchObject({ status: 1, stderr: expect.stringContaining("which format") });
    }
  });

  it("finds a data file where qemu-img does, else beside its image", async () => {
    const at = folders();
    makeSample("with a data file", at);
    renameSync(`${at.mine}/image`, `${at.real}/other`);
    const away = ["map", `${at.real}/other`];
    expect((await ours(away)).stderr).toContain("--trust-names");
    expect((await ours(["--trust-names", ...away])).stdout).toContain(`${at.mine}/data`);
    qemuImg("amend", "-f", "qcow2", "-o", "data_file=data", `${at.real}/image`);
    expect((await ours(["map", `${at.real}/image`])).stdout).toContain(`${at.real}/data`);
  });
});

describe("info with options for a name", () => {
  const NAMES: readonly (readonly string[])[] = [
    ["--image-opts", "driver=qcow2,file.driver=file,file.filename=@/image"],
    ["--image-opts", "driver=qcow2,file.filename=@/image,lazy-refcounts=on"],
    ["--image-opts", "file.filename=@/image"],
    ['json:{"driver":"qcow2","file":{"driver":"file","filename":"@/image"}}'],
    ["file:@/image"],
  ];
  it.each(NAMES.map((words) => [words.join(" "), words] as const))("%s", async (_, words) => {
    const at = folders();
    at.make("create", "-q", "-f", "qcow2", "@/image", "1M");
    expectSame(await at.both("info", "--output=json", ...words), old);
  });
});

describe("info refuses", () => {
  const REFUSED: readonly (readonly string[])[] = [
    [],
    ["@/a", "@/b"],
    ["@/nowhere"],
    ["--output=xml", "@/raw"],
    ["-f", "qcow2", "@/raw"],
    ["-f", "nope", "@/raw"],
    ["-f", "raw", "--image-opts", "driver=raw,file.filename=@/raw"],
    ["--image-opts", "@/raw"],
    ["--image-opts", "driver=nope,file.filename=@/raw"],
    ["nbd:localhost:1"],
    ["json:{}"],
    ["json:x"],
  ];
  it.each(REFUSED.map((words) => [words.join(" "), words] as const))("%s", async (_, words) => {
    const at = folders();
    at.make("create", "-q", "@/raw", "1M");
    expectBothRefuse(await at.both("info", ...words));
  });
});
