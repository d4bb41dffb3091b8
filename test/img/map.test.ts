/** `map` says what qemu-img says, run by run. */

import { writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { expectBothRefuse, expectSame, useFolders } from "./rig.ts";
import { makeChain, makeSample, SAMPLES } from "./samples.ts";
import { asOld } from "./versions.ts";

const folders = useFolders();
const old = (stdout: string) => asOld("map", stdout);

describe.each(Object.keys(SAMPLES))("map of an image %s", (name) => {
  it("is the same as text and as JSON", async () => {
    const at = folders();
    makeSample(name, at);
    expectSame(await at.both("map", "@/image"), old);
    expectSame(await at.both("map", "--output=json", "@/image"), old);
  });
});

describe("map of a chain", () => {
  const PARTS: readonly (readonly string[])[] = [
    [],
    ["--output=json"],
    ["--output=json", "--start-offset=100k", "--max-length=3M"],
    ["--output=json", "--start-offset", "100M"],
    ["--output=json", "--max-length=0"],
    ["--start-offset=1.5M", "--max-length", "1M"],
  ];
  it.each(PARTS.map((words) => [words.join(" "), words] as const))(
    "with '%s'",
    async (_, words) => {
      const at = folders();
      makeChain(at);
      expectSame(await at.both("map", ...words, "@/top.q"), old);
      expectSame(await at.both("map", ...words, "@/mid.q"), old);
    },
  );
});

it.each([0, 3, 512, 70_000])("map of a raw file of %i bytes is the same", async (bytes) => {
  const at = folders();
  for (const folder of [at.mine, at.real])
    writeFileSync(`${folder}/r`, new Uint8Array(bytes).fill(1));
  expectSame(await at.both("map", "-f", "raw", "@/r"), old);
  expectSame(await at.both("map", "-f", "raw", "--output=json", "@/r"), old);
});

it("map refuses what is no offset", async () => {
  const at = folders();
  at.make("create", "-q", "-f", "qcow2", "@/a", "1M");
  expectBothRefuse(await at.both("map", "--start-offset=-1", "@/a"));
  expectBothRefuse(await at.both("map", "--max-length=x", "@/a"));
  expect((await at.both("map", "--max-length=1", "@/a")).ours.status).toBe(0);
});
