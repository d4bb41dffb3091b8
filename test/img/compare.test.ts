/** `img compare` and the real qemu-img, told the same: what they say and how they end. */

import { writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { hasQemu } from "../drivers/format/rig.ts";
import { eachTestsFolders, makeDisks } from "./moving.ts";
import { expectSame, qemuIo } from "./rig.ts";

const folders = eachTestsFolders();
const tell = async (...words: string[]) => {
  const pair = await folders.now.both("compare", ...words);
  expectSame(pair);
  return pair.ours;
};

function image(name: string, format: string, ...commands: string[]): void {
  folders.now.make("create", "-q", "-f", format, `@/${name}`, "3M");
  for (const path of folders.each(name)) qemuIo(path, format, ...commands);
}

describe.skipIf(!hasQemu)("img compare", () => {
  it("finds the first difference where qemu-img finds it", async () => {
    image("a.qcow2", "qcow2", "write -P 1 64k 128k", "write -P 2 2M 100");
    image("same.raw", "raw", "write -P 1 64k 128k", "write -P 2 2M 100");
    image("byte.raw", "raw", "write -P 1 64k 128k", "write -P 2 2M 99");
    image("sector.raw", "raw", "write -P 1 64k 128k", "write -P 3 65636 10", "write -P 2 2M 100");
    image("more.qcow2", "qcow2", "write -P 1 64k 128k", "write -P 2 2M 100", "write -P 9 1049k 1");
    image("zero.qcow2", "qcow2", "write -P 1 64k 128k", "write -P 2 2M 100", "write -z 1M 64k");
    image("lone.raw", "raw", "write -P 1 64k 128k", "write -P 2 2M 100", "write -P 9 1600001 1");
    const others = ["same.raw", "byte.raw", "sector.raw", "more.qcow2", "zero.qcow2", "lone.raw"];
    for (const name of others) {
      await tell("@/a.qcow2", `@/${name}`);
      await tell(`@/${name}`, "@/a.qcow2");
    }
    expect((await tell("-q", "@/a.qcow2", "@/more.qcow2")).status).toBe(1);
  });

  it("takes a longer disk for the same if the rest is zeroes", async () => {
    image("short.raw", "raw", "write -P 1 0 1M");
    for (const path of folders.each("long.raw")) {
      const bytes = new Uint8Array(5_000_000);
      bytes.fill(1, 0, 1 << 20);
      writeFileSync(path, bytes);
    }
    await tell("-f", "raw", "-F", "raw", "@/short.raw", "@/long.raw");
    await tell("-f", "raw", "-F", "raw", "@/long.raw", "@/short.raw");
    await tell("-s", "-f", "raw", "-F", "raw", "@/long.raw", "@/short.raw");
    for (const path of folders.each("long.raw")) qemuIo(path, "raw", "write -P 7 4881k 1k");
    await tell("-f", "raw", "-F", "raw", "@/short.raw", "@/long.raw");
  });

  it("compares strictly what is allocated, too", async () => {
    image("a.qcow2", "qcow2", "write -P 1 64k 128k");
    image("b.qcow2", "qcow2", "write -P 1 64k 128k");
    image("zero.qcow2", "qcow2", "write -P 1 64k 128k", "write -z 1M 64k");
    image("full.qcow2", "qcow2", "write -P 1 64k 128k", "write -P 0 1M 64k");
    image("packed.qcow2", "qcow2", "write -c -P 1 64k 64k", "write -c -P 1 128k 64k");
    for (const name of ["b.qcow2", "zero.qcow2", "full.qcow2", "packed.qcow2"]) {
      await tell("-s", "@/a.qcow2", `@/${name}`);
      await tell("-s", `@/${name}`, `@/${name}`);
    }
  });

  it("ends with 2 where an image cannot be opened, with 4 where it cannot be read", async () => {
    makeDisks(folders.each("a.raw"), 500_000, 1);
    for (const path of folders.each("packed.raw")) {
      writeFileSync(
        path,
        new Uint8Array(500_224).map((_, i) => i % 251),
      );
    }
    folders.now.make("convert", "-c", "-f", "raw", "-O", "qcow2", "@/packed.raw", "@/torn.qcow2");
    for (const path of folders.each("torn.qcow2")) qemuIo(path, "raw", "write -P 255 320k 4k");
    expect((await tell("@/a.raw", "@/nope.raw")).status).toBe(2);
    expect((await tell("-F", "nope", "@/a.raw", "@/a.raw")).status).toBe(2);
    expect((await tell("-T", "nope", "@/a.raw", "@/a.raw")).status).toBe(2);
    expect((await tell("@/packed.raw", "@/torn.qcow2")).status).toBe(4);
    for (const words of [[], ["@/a.raw"], ["@/a.raw", "@/a.raw", "@/a.raw"], ["--nope"]]) {
      expect((await tell(...words)).status).toBe(1);
    }
  });
});
