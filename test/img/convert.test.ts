/** `img convert` and the real qemu-img, told the same: bytes, maps, exit codes. */

import { existsSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { seededRandom } from "../../src/base/random.ts";
import { hasQemu } from "../drivers/format/rig.ts";
import { writePatchy } from "./loop-rig.ts";
import { mapOf } from "./moving.ts";
import { type Folders, ours, qemuImg, qemuIo, theirs, useFolders } from "./rig.ts";

const fresh = useFolders();
let folders: Folders;
beforeEach(() => {
  folders = fresh();
});

/** The same random disk in both folders. */
function disk(name: string, bytes: number, seed: number): void {
  for (const folder of both(folders)) writePatchy(seededRandom(seed), join(folder, name), bytes);
}

function both({ mine, real }: Folders): string[] {
  return [mine, real];
}

/** Both made it, and it is the same by content and by what is allocated. */
async function same(target: string, ...words: string[]): Promise<void> {
  const { ours: mine, theirs: real } = await folders.both("convert", ...words, `@/${target}`);
  expect({ ...mine, stderr: "" }).toEqual({ ...real, stderr: "" });
  expect(mine.stderr).toBe("");
  const [a, b] = both(folders).map((folder) => join(folder, target)) as [string, string];
  qemuImg("compare", a, b);
  expect(mapOf(a)).toEqual(mapOf(b));
  if (target.endsWith(".qcow2")) qemuImg("check", a);
  else expect(statSync(a).size).toBe(statSync(b).size);
}

describe.skipIf(!hasQemu)("img convert", () => {
  it("makes what qemu-img makes, of raw and qcow2, sparse, full and packed", async () => {
    disk("a.raw", 3_000_001, 1);
    await same("a.qcow2", "-f", "raw", "-O", "qcow2", "@/a.raw");
    await same("b.raw", "-f", "qcow2", "@/a.qcow2");
    await same("c.qcow2", "-c", "-O", "qcow2", "@/a.raw");
    await same("c.raw", "-O", "raw", "@/c.qcow2");
    await same(
      "z.qcow2",
      "-c",
      "-O",
      "qcow2",
      "-o",
      "compression_type=zlib,cluster_size=4k",
      "@/a.raw",
    );
    await same("s0.qcow2", "-S", "0", "-O", "qcow2", "@/a.raw");
    await same("s64k.qcow2", "-S", "64k", "-O", "qcow2", "-o", "cluster_size=4k", "@/a.raw");
    await same("v2.qcow2", "-W", "-m", "3", "-O", "qcow2", "-o", "compat=0.10", "@/a.raw");
    await same("x.qcow2", "-O", "qcow2", "-o", "extended_l2=on,cluster_size=128k", "@/a.raw");
  });

  it("makes a target whose places are taken in advance", async () => {
    disk("a.raw", 1_000_001, 1);
    for (const preallocation of ["metadata", "falloc", "full"]) {
      const words = ["-O", "qcow2", "-o", `preallocation=${preallocation}`, "@/a.raw", "@/p.qcow2"];
      const { ours: mine } = await folders.both("convert", ...words);
      expect(mine).toEqual({ status: 0, stdout: "", stderr: "" });
      qemuImg("compare", join(folders.mine, "a.raw"), join(folders.real, "p.qcow2"));
      qemuImg("compare", join(folders.mine, "a.raw"), join(folders.mine, "p.qcow2"));
      qemuImg("check", join(folders.mine, "p.qcow2"));
    }
  });

  it("puts sources behind each other", async () => {
    disk("1.raw", 100_001, 2);
    disk("2.raw", 200_704, 3);
    folders.make("convert", "-O", "qcow2", "@/2.raw", "@/2.qcow2");
    await same("12.qcow2", "-O", "qcow2", "@/1.raw", "@/2.qcow2", "@/1.raw");
    await same("12c.qcow2", "-c", "-O", "qcow2", "@/1.raw", "@/2.qcow2", "@/1.raw");
  });

  it("leaves to a backing file what the source inherits", async () => {
    disk("base.raw", 1_000_448, 4);
    folders.make("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "@/top.qcow2", "2M");
    for (const folder of both(folders)) {
      qemuIo(join(folder, "top.qcow2"), "qcow2", "write -P 3 64k 100k", "write -z 512k 128k");
      qemuIo(join(folder, "top.qcow2"), "qcow2", "write -P 4 1500k 64k");
    }
    await same("flat.qcow2", "-O", "qcow2", "@/top.qcow2");
    await same("over.qcow2", "-O", "qcow2", "-B", "base.raw", "-F", "raw", "@/top.qcow2");
    await same(
      "overo.qcow2",
      ...["-O", "qcow2", "-o", "backing_file=base.raw,backing_fmt=raw", "@/top.qcow2"],
    );
    await same("overc.qcow2", "-c", "-O", "qcow2", "-B", "base.raw", "-F", "raw", "@/top.qcow2");
  });

  it("leaves it to one that was there, too, if that is said", async () => {
    disk("base.raw", 1_048_576, 4);
    for (const name of ["top", "there"]) {
      const path = `@/${name}.qcow2`;
      folders.make("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", path, "2M");
    }
    for (const folder of both(folders)) {
      qemuIo(join(folder, "top.qcow2"), "qcow2", "write -P 3 64k 100k", "write -P 4 1500k 64k");
    }
    const words = ["-n", "-B", "base.raw", "-F", "raw", "-O", "qcow2", "@/top.qcow2"];
    const { ours: mine } = await folders.both("convert", ...words, "@/there.qcow2");
    expect(mine).toEqual({ status: 0, stdout: "", stderr: "" });
    const [top, ...there] = [
      join(folders.mine, "top.qcow2"),
      ...both(folders).map((folder) => join(folder, "there.qcow2")),
    ];
    for (const image of there) qemuImg("compare", top, image);
    expect(mapOf(there[0]!)).toEqual(mapOf(top));
    qemuImg("check", there[0]!);
  });

  it("writes into what is there, and over all of what was in it", async () => {
    disk("n.raw", 1_048_576, 5);
    for (const folder of both(folders)) {
      writeFileSync(join(folder, "there.raw"), new Uint8Array(1_048_576).fill(9));
      qemuImg(
        "convert",
        "-f",
        "raw",
        "-O",
        "qcow2",
        join(folder, "there.raw"),
        join(folder, "there.qcow2"),
      );
    }
    const words = ["convert", "-n", "-f", "raw", "@/n.raw"];
    for (const [format, name] of [
      ["raw", "there.raw"],
      ["qcow2", "there.qcow2"],
    ]) {
      const { ours: mine } = await folders.both(...words, "-O", format!, `@/${name}`);
      expect(mine).toEqual({ status: 0, stdout: "", stderr: "" });
      qemuImg(
        "compare",
        "-f",
        "raw",
        "-F",
        format!,
        join(folders.mine, "n.raw"),
        join(folders.mine, name!),
      );
    }
    const options = `driver=raw,file.filename=@/there.raw`;
    const { ours: mine } = await folders.both(...words, "--target-image-opts", options);
    expect(mine.status).toBe(0);
  });

  it("reads an internal snapshot by id, by name, or both", async () => {
    folders.make("create", "-q", "-f", "qcow2", "@/snap.qcow2", "1M");
    for (const folder of both(folders)) {
      const path = join(folder, "snap.qcow2");
      qemuIo(path, "qcow2", "write -P 1 0 300k");
      qemuImg("snapshot", "-c", "first", path);
      qemuIo(path, "qcow2", "write -P 2 100k 700k");
      qemuImg("snapshot", "-c", "1st", path);
      qemuIo(path, "qcow2", "write -P 3 0 1M");
    }
    for (const wanted of ["first", "1", "1st", "2", "snapshot.id=2", "snapshot.name=first"]) {
      await same("snap.raw", "-l", wanted, "-O", "raw", "@/snap.qcow2");
    }
    const { ours: mine, theirs: real } = await folders.both(
      ...["convert", "-l", "no", "-O", "raw", "@/snap.qcow2", "@/no.raw"],
    );
    expect([mine.status, real.status]).toEqual([1, 1]);
  });

  it("takes bitmaps over, with their bits", async () => {
    folders.make("create", "-q", "-f", "qcow2", "@/bits.qcow2", "4M");
    folders.make("bitmap", "--add", "-g", "64k", "@/bits.qcow2", "on");
    folders.make("bitmap", "--add", "-g", "4k", "--disable", "@/bits.qcow2", "off");
    for (const folder of both(folders)) {
      qemuIo(join(folder, "bits.qcow2"), "qcow2", "write -P 1 64k 300k", "write -P 2 3M 5k");
    }
    await same("bits2.qcow2", "--bitmaps", "-O", "qcow2", "@/bits.qcow2");
    const bits = (path: string) => {
      const { "format-specific": specific } = JSON.parse(qemuImg("info", "--output=json", path));
      return specific.data.bitmaps;
    };
    const [a, b] = both(folders).map((folder) => join(folder, "bits2.qcow2")) as [string, string];
    expect(bits(a)).toEqual(bits(b));
    // Merged into one that is empty the bits have to be all there.
    for (const path of [a, b]) {
      qemuImg("bitmap", "--add", "-g", "64k", path, "sum");
      qemuImg("bitmap", "--merge", "on", path, "sum");
    }
    qemuImg("check", a);
  });

  it("refuses what qemu-img refuses, and writes nothing then", async () => {
    disk("r.raw", 100_000, 6);
    folders.make("convert", "-f", "raw", "-O", "qcow2", "@/r.raw", "@/r.qcow2");
    const target = "@/none";
    for (const words of [
      ["-n", "-o", "size=1M", "@/r.raw", target],
      ["--target-is-zero", "@/r.raw", target],
      ["-C", "-c", "-O", "qcow2", "@/r.raw", target],
      ["-C", "-S", "4k", "@/r.raw", target],
      ["-c", "@/r.raw", target],
      ["-m", "17", "@/r.raw", target],
      ["-m", "0", "@/r.raw", target],
      ["-S", "100", "@/r.raw", target],
      ["-S", "32M", "@/r.raw", target],
      ["-B", "r.raw", "-O", "qcow2", "@/r.raw", target],
      ["-B", "r.raw", "-F", "raw", "@/r.raw", target],
      ["-B", "r.raw", "-F", "raw", "-O", "qcow2", "@/r.raw", "@/r.raw", target],
      ["--skip-broken-bitmaps", "@/r.raw", target],
      ["--bitmaps", "@/r.raw", target],
      ["--bitmaps", "-O", "qcow2", "@/r.qcow2", "@/r.qcow2", target],
      ["-l", "no", "@/r.raw", target],
      ["-l", "no", "@/r.raw", "@/r.raw", target],
      ["-O", "nope", "@/r.raw", target],
      ["-f", "nope", "@/r.raw", target],
      ["-n", "@/r.raw", target],
      ["-r", "much", "@/r.raw", target],
      ["--target-image-opts", "@/r.raw", "driver=raw,file.filename=@/none"],
      ["-f", "raw", "--image-opts", "driver=raw,file.filename=@/r.raw", target],
      ["-o", "nope=1", "@/r.raw", target],
      ["-c", "-O", "qcow2", "-o", "preallocation=metadata", "@/r.raw", target],
      ["@/nope.raw", target],
      ["@/r.raw"],
      [],
      ["--nope", "@/r.raw", target],
    ]) {
      const { ours: mine, theirs: real } = await folders.both("convert", ...words);
      expect(mine.status, `${words}: ${mine.stderr}`).toBe(real.status);
      expect(mine.stderr).toMatch(/^blocktab img: /);
      expect(existsSync(join(folders.mine, "none")), String(words)).toBe(false);
    }
  });

  it("does not write to an image that it reads, by whatever name", async () => {
    disk("self.raw", 100_000, 7);
    const { ours: mine, theirs: real } = await folders.both(
      "convert",
      "@/self.raw",
      "@/./self.raw",
    );
    expect([mine.status, real.status]).toEqual([1, 1]);
    expect(statSync(join(folders.mine, "self.raw")).size).toBe(100_000);
  });

  it("says that a target is not complete, and ends with 1, when a source cannot be read", async () => {
    for (const folder of both(folders)) {
      const bytes = new Uint8Array(1_000_000).map((_, i) => i % 251);
      writeFileSync(join(folder, "whole.raw"), bytes);
    }
    folders.make("convert", "-c", "-f", "raw", "-O", "qcow2", "@/whole.raw", "@/torn.qcow2");
    for (const folder of both(folders)) tearPacked(join(folder, "torn.qcow2"));
    const words = ["-f", "qcow2", "-O", "raw", "@/torn.qcow2"];
    const { ours: mine, theirs: real } = await folders.both("convert", ...words, "@/torn.raw");
    expect([mine.status, real.status]).toEqual([1, 1]);
    expect(mine.stderr).toContain("not complete");
    const salvaged = await folders.both("convert", "--salvage", ...words, "@/saved.raw");
    expect([salvaged.ours.status, salvaged.theirs.status]).toEqual([0, 0]);
    // One for each run that cannot be read, however many sectors it has.
    expect(salvaged.ours.stderr.match(/warning: error while reading \d+ bytes at/g)).toHaveLength(
      1,
    );
    expect(salvaged.theirs.stderr.match(/warning: /g)!.length).toBeGreaterThan(100);
    const quiet = await ours(
      ["convert", "-q", "--salvage", ...words, "@/saved.raw"].map((word) =>
        word.replaceAll("@", folders.mine),
      ),
    );
    expect(quiet).toEqual({ status: 0, stdout: "", stderr: "" });
    qemuImg(
      ...["compare", "-f", "raw", "-F", "raw"],
      ...both(folders).map((folder) => join(folder, "saved.raw")),
    );
  });

  it("ends with 1 when the target is full, and leaves an image that is clean or leaks", async () => {
    disk("f.raw", 2_000_000, 10);
    folders.make("create", "-q", "-f", "qcow2", "@/full.qcow2", "4M");
    const error = "file.inject-error.0";
    const target = [
      "driver=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename=@/full.qcow2",
      `${error}.event=write_aio,${error}.errno=28`,
    ].join(",");
    const words = ["convert", "-n", "-f", "raw", "--target-image-opts", "@/f.raw", target];
    const { ours: mine, theirs: real } = await folders.both(...words);
    expect([mine.status, real.status]).toEqual([1, 1]);
    expect(mine.stderr).toContain("not complete");
    expect([0, 3]).toContain(theirs(["check", join(folders.mine, "full.qcow2")]).status);
  });

  it("shows how far it is", async () => {
    disk("p.raw", 5_000_000, 9);
    const { ours: mine } = await folders.both("convert", "-p", "-f", "raw", "@/p.raw", "@/p2.raw");
    expect(mine.stdout).toMatch(
      /^ {4}\(0\.00\/100%\)\r( {4}\([0-9.]+\/100%\)\r)* {4}\(100\.00\/100%\)\r\n$/,
    );
  });
});

/** All packed data but the first becomes nonsense: it lies behind header, refcounts and tables. */
function tearPacked(path: string): void {
  const from = 5 * 65536 + 1024;
  qemuIo(
    path,
    "raw",
    `write -P 255 ${from} ${Math.floor((statSync(path).size - from) / 512) * 512}`,
  );
}
