/** `measure` comes to the numbers that qemu-img comes to. */

import { describe, it } from "vitest";
import { seededRandom } from "../../src/base/random.ts";
import { expectBothRefuse, expectSame, useFolders } from "./rig.ts";
import { makeChain, makeSample, SAMPLES } from "./samples.ts";

const folders = useFolders();

describe("measure of a size", () => {
  const WORDS: readonly (readonly string[])[] = [
    ["--size", "1M"],
    ["--size=1", "-O", "raw", "--output=json"],
    ["--size", "0", "-O", "qcow2"],
    ["--size", "1", "-O", "qcow2", "--output", "json"],
    ["-O", "qcow2", "-o", "preallocation=full", "--size", "1G"],
    ["-O", "qcow2", "-o", "preallocation=metadata,size=3G", "--size", "1G"],
    ["-O", "qcow2", "-o", "extended_l2=on", "--size", "1G"],
    ["-O", "qcow2", "-o", "data_file=x", "--size", "1M"],
    ["-O", "qcow2", "-o", "preallocation=full,nocow=on", "--size", "1M"],
    ["-O", "raw", "-o", "preallocation=full", "--size", "1M"],
    [
      "--object",
      "secret,id=s,data=x",
      "-O",
      "qcow2",
      "-o",
      "encrypt.format=luks,encrypt.key-secret=s",
      "--size",
      "1M",
    ],
  ];
  it.each(WORDS.map((words) => [words.join(" "), words] as const))(
    "with '%s'",
    async (_, words) => {
      expectSame(await folders().both("measure", ...words));
    },
  );

  it("is the same for many shapes", async () => {
    const random = seededRandom(5);
    const at = folders();
    for (let round = 0; round < 40; round++) {
      const clusterBits = 9 + random.below(13);
      const refcountBits = 2 ** random.below(7);
      const size = random.below(2 ** Math.min(32, 2 * clusterBits)) * 2 ** random.below(20);
      const options = `cluster_size=${2 ** clusterBits},refcount_bits=${refcountBits}`;
      const words = ["-O", "qcow2", "-o", options, "--size", String(size)];
      expectSame(await at.both("measure", ...words));
    }
  });
});

describe.each(Object.keys(SAMPLES))("measure of an image %s", (name) => {
  it("is the same", async () => {
    const at = folders();
    makeSample(name, at);
    for (const words of [
      [],
      ["-O", "qcow2"],
      ["-O", "qcow2", "-o", "cluster_size=4k", "--output=json"],
    ]) {
      expectSame(await at.both("measure", ...words, "@/image"));
    }
  });
});

it("measure of a chain is the same", async () => {
  const at = folders();
  makeChain(at);
  expectSame(await at.both("measure", "-O", "qcow2", "@/top.q"));
  expectSame(await at.both("measure", "-O", "qcow2", "-o", "backing_file=x", "@/top.q"));
});

it.each(["first", "2", "snapshot.name=first", "snapshot.id=1"])(
  "measure of snapshot %s is the same",
  async (snapshot) => {
    const at = folders();
    makeSample("with snapshots", at);
    expectSame(await at.both("measure", "-O", "qcow2", "-l", snapshot, "@/image"));
  },
);

describe("measure refuses", () => {
  const REFUSED: readonly (readonly string[])[] = [
    [],
    ["--size", "1M", "@/a"],
    ["--size", "x"],
    ["-O", "nope", "--size", "1M"],
    ["-O", "raw", "-o", "foo=1", "--size", "1M"],
    ["-O", "qcow2", "-o", "cluster_size=3", "--size", "1M"],
    ["-O", "qcow2", "-o", "compat=0.10,refcount_bits=8", "--size", "1M"],
    ["-O", "qcow2", "-o", "preallocation=some", "--size", "1M"],
    ["-O", "qcow2", "--size", "7P"],
    ["-O", "qcow2", "--size", "1M", "-l", "s"],
    ["-f", "raw", "--size", "1M"],
    ["-l", "nope", "@/a"],
    ["@/nowhere"],
  ];
  it.each(REFUSED.map((words) => [words.join(" "), words] as const))("'%s'", async (_, words) => {
    const at = folders();
    at.make("create", "-q", "-f", "qcow2", "@/a", "1M");
    expectBothRefuse(await at.both("measure", ...words));
  });
});

it("measure refuses options that no new image could have", async () => {
  const at = folders();
  for (const options of [
    "help",
    "encrypt.format=luks",
    "encrypt.format=luks,encrypt.key-secret=nobody",
    "extended_l2=on,cluster_size=4k",
    "compat=0.10,refcount_bits=8",
  ]) {
    expectBothRefuse(await at.both("measure", "-O", "qcow2", "-o", options, "--size", "1M"));
  }
});
