/** `img commit` and the real qemu-img, told the same. */

import { describe, expect, it } from "vitest";
import { hasQemu } from "../drivers/format/rig.ts";
import { eachTestsFolders, expectDone, makeDisks, mapOf } from "./moving.ts";
import { expectBothRefuse, qemuImg, qemuIo } from "./rig.ts";

const folders = eachTestsFolders();

/** base.raw <── mid.qcow2 <── top.qcow2, and what top reads as in whole.raw. */
function makeChain(...options: string[]): void {
  makeDisks(folders.each("base.raw"), 1_048_576, 1);
  const create = ["create", "-q", "-f", "qcow2", ...options];
  folders.now.make(...create, "-b", "base.raw", "-F", "raw", "@/mid.qcow2", "2M");
  folders.now.make(...create, "-b", "mid.qcow2", "-F", "qcow2", "@/top.qcow2");
  for (const path of folders.each("mid.qcow2")) {
    qemuIo(path, "qcow2", "write -P 1 100k 200k", "write -z 512k 64k", "write -P 2 1500k 9k");
  }
  for (const path of folders.each("top.qcow2")) {
    qemuIo(path, "qcow2", "write -P 3 200k 200k", "write -z 576k 64k", "write -P 4 1900k 64k");
  }
  folders.now.make("convert", "-O", "raw", "@/top.qcow2", "@/whole.raw");
}

function expectEqual(name: string, like: string): void {
  for (const path of folders.each(name)) qemuImg("compare", path, folders.each(like)[0]!);
}

describe.skipIf(!hasQemu)("img commit", () => {
  for (const options of [[], ["-o", "extended_l2=on,cluster_size=128k"], ["-o", "compat=0.10"]]) {
    it(`moves the data down and leaves the overlay empty ${options.join(" ")}`, async () => {
      makeChain(...options);
      expectDone(await folders.now.both("commit", "-f", "qcow2", "@/top.qcow2"));
      expectEqual("top.qcow2", "whole.raw");
      expectEqual("mid.qcow2", "whole.raw");
      const [mine, real] = folders.each("top.qcow2").map(mapOf);
      expect(mine).toEqual(real);
      for (const name of ["top.qcow2", "mid.qcow2"]) qemuImg("check", folders.each(name)[0]!);
    });
  }

  it("leaves the overlay as it is with -d, and says nothing with -q", async () => {
    makeChain();
    const before = mapOf(folders.each("top.qcow2")[0]!).length;
    expectDone(await folders.now.both("commit", "-q", "-d", "@/top.qcow2"));
    expectEqual("mid.qcow2", "whole.raw");
    expect(mapOf(folders.each("top.qcow2")[0]!).length).toBeGreaterThanOrEqual(before - 2);
    expectEqual("top.qcow2", "whole.raw");
  });

  it("goes into a deeper image, which becomes as long as the overlay", async () => {
    makeChain();
    expectDone(await folders.now.both("commit", "-b", "base.raw", "@/top.qcow2"));
    expectEqual("base.raw", "whole.raw");
    expectEqual("top.qcow2", "whole.raw");
    makeChain();
    expectDone(await folders.now.both("commit", "-b", "@/base.raw", "@/top.qcow2"));
    expectEqual("base.raw", "whole.raw");
  });

  it("keeps the overlay's snapshots", async () => {
    makeChain();
    folders.now.make("snapshot", "-c", "s", "@/top.qcow2");
    expectDone(await folders.now.both("commit", "@/top.qcow2"));
    expectEqual("top.qcow2", "whole.raw");
    qemuImg("check", folders.each("top.qcow2")[0]!);
  });

  it("shows how far it is, at the rate that is asked for", async () => {
    makeChain();
    const { ours } = await folders.now.both("commit", "-p", "-r", "100M", "@/top.qcow2");
    expect(ours.stdout).toMatch(
      /^ {4}\(0\.00\/100%\)\r.*\(100\.00\/100%\)\r\nImage committed\.\n$/s,
    );
  });

  it("refuses an image without a backing file, and a base that is none of its", async () => {
    makeChain();
    expectBothRefuse(await folders.now.both("commit", "-f", "raw", "@/base.raw"));
    expectBothRefuse(await folders.now.both("commit", "-b", "nope", "@/top.qcow2"));
    expectBothRefuse(await folders.now.both("commit", "-b", "top.qcow2", "@/top.qcow2"));
    expectBothRefuse(await folders.now.both("commit", "@/nope.qcow2"));
    expectBothRefuse(await folders.now.both("commit"));
    expectEqual("top.qcow2", "whole.raw");
  });
});
