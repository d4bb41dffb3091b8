/** `check` counts and says what qemu-img does, ends the same, and what it mends is mended. */

import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import {
  expectBothRefuse,
  expectSame,
  type Folders,
  qemuImg,
  qemuIo,
  theirs,
  useFolders,
} from "./rig.ts";
import { makeSample, SAMPLES } from "./samples.ts";

const folders = useFolders();

describe.each(Object.keys(SAMPLES))("check of an image %s", (name) => {
  it("is the same as text and as JSON", async () => {
    const at = folders();
    makeSample(name, at);
    expectSame(await at.both("check", "@/image"));
    expectSame(await at.both("check", "--output=json", "-U", "@/image"));
    expectSame(await at.both("check", "-q", "-f", "qcow2", "@/image"));
  });
});

/** Sets 16-bit refcounts of clusters. */
function makeBroken(at: Folders, counts: Readonly<Record<number, number>>): void {
  qemuImg("create", "-q", "-f", "qcow2", `${at.real}/a`, "1M");
  qemuIo(`${at.real}/a`, "qcow2", "write -P 1 0 256k", "discard 128k 64k");
  const bytes = readFileSync(`${at.real}/a`);
  const block = Number(bytes.readBigUInt64BE(Number(bytes.readBigUInt64BE(48))));
  for (const [cluster, count] of Object.entries(counts)) {
    bytes.writeUInt16BE(count, block + Number(cluster) * 2);
  }
  writeFileSync(`${at.real}/a`, bytes);
  copyFileSync(`${at.real}/a`, `${at.mine}/a`);
}

describe("check of a broken image", () => {
  const BROKEN: readonly (readonly [string, Readonly<Record<number, number>>])[] = [
    ["with a leak", { 7: 1 }],
    ["with a cluster that nobody counts", { 5: 0 }],
    ["with both", { 5: 0, 7: 1 }],
    ["with counts that are too high", { 5: 2, 6: 3 }],
  ];
  it.each(BROKEN)("%s is the same, before and after a repair", async (_, counts) => {
    const at = folders();
    makeBroken(at, counts);
    expectSame(await at.both("check", "@/a"));
    const json = await at.both("check", "--output=json", "@/a");
    expectSame(json);
    expect(json.ours.status).toBeGreaterThan(1);
    // How refcounts are rebuilt is each one's own business, and with it where the image ends.
    const repaired = (await at.both("check", "-r", "all", "@/a")).ours;
    expect(repaired.status, repaired.stderr).toBe(0);
    expect(repaired.stdout).toMatch(/^The following inconsistencies were found and repaired:\n/);
    expect(repaired.stdout).toContain("No errors were found on the image.\n");
    expect(theirs(["check", `${at.mine}/a`]).status).toBe(0);
    qemuIo(`${at.mine}/a`, "qcow2", "read -P 1 0 128k", "read -P 1 192k 64k");
  });

  it("mends leaks alone if that is asked for", async () => {
    const at = folders();
    makeBroken(at, { 7: 1 });
    expectSame(await at.both("check", "-r", "leaks", "@/a"));
    expectSame(await at.both("check", "--output=json", "@/a"));
  });
});

describe("check refuses", () => {
  it("formats that it does not know how to check, with a status of their own", async () => {
    const at = folders();
    at.make("create", "-q", "@/raw", "1M");
    const { ours: mine, theirs: real } = await at.both("check", "@/raw");
    expect([mine.status, real.status]).toEqual([63, 63]);
    expectSame(await at.both("check", "--output=json", "-f", "raw", "@/raw"));
  });

  const REFUSED: readonly (readonly string[])[] = [
    [],
    ["-r", "some", "@/a"],
    ["-r"],
    ["-U", "-r", "all", "@/a"],
    ["-T", "nope", "@/a"],
    ["@/nowhere"],
    ["@/a", "@/a"],
  ];
  it.each(REFUSED.map((words) => [words.join(" "), words] as const))("'%s'", async (_, words) => {
    const at = folders();
    at.make("create", "-q", "-f", "qcow2", "@/a", "1M");
    expectBothRefuse(await at.both("check", ...words));
  });
});
