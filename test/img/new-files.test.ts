/** A new image takes the place of what had its name: never of what it stands on, never for nothing. */

import {
  existsSync,
  linkSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { describe, expect, it } from "vitest";
import { ours, qemuImg, useFolders } from "./rig.ts";

const folders = useFolders();

/** base.qcow2 ◀── mid.qcow2 ◀── ov.qcow2, and hard.qcow2, another name of ov.qcow2. */
function chain(): string {
  const { mine } = folders();
  const qcow2 = ["create", "-q", "-f", "qcow2"];
  qemuImg(...qcow2, `${mine}/base.qcow2`, "1M");
  for (const [top, below] of [
    ["mid", "base"],
    ["ov", "mid"],
  ]) {
    qemuImg(...qcow2, "-b", `${below}.qcow2`, "-F", "qcow2", `${mine}/${top}.qcow2`);
  }
  linkSync(`${mine}/ov.qcow2`, `${mine}/hard.qcow2`);
  return mine;
}

describe("what a new image stands on is not overwritten", () => {
  const NAMES = ["base.qcow2", "mid.qcow2", "ov.qcow2"];
  it.each([
    "create -f qcow2 -b hard.qcow2 -F qcow2 @/ov.qcow2",
    "create -f qcow2 -b ./ov.qcow2 -F qcow2 @/ov.qcow2",
    "create -f qcow2 -u -b ./ov.qcow2 @/ov.qcow2 1M",
    "create -f qcow2 -b ov.qcow2 -F qcow2 @/mid.qcow2",
    "create -f qcow2 -b ov.qcow2 -F qcow2 @/base.qcow2",
    "create -f qcow2 -u -b ov.qcow2 -F qcow2 @/base.qcow2 1M",
    "create -f qcow2 -o data_file=@/ov.qcow2 -b ov.qcow2 -F qcow2 @/new",
    "create -f qcow2 -o data_file=@/base.qcow2 -b ov.qcow2 -F qcow2 @/new",
    "create -f qcow2 -o data_file=@/hard.qcow2 @/ov.qcow2 1M",
    "convert -O qcow2 -B ov.qcow2 -F qcow2 @/other @/base.qcow2",
  ])("%s", async (line) => {
    const at = chain();
    qemuImg("create", "-q", "-f", "qcow2", `${at}/other`, "1M");
    const before = NAMES.map((name) => readFileSync(`${at}/${name}`));
    const { status, stderr } = await ours(line.replaceAll("@", at).split(" "));
    expect(status, stderr).toBe(1);
    expect(stderr).toMatch(/^blocktab img: .+\n$/);
    const after = NAMES.map((name) => readFileSync(`${at}/${name}`));
    expect(after.map((bytes, i) => bytes.equals(before[i]!))).toEqual([true, true, true]);
  });

  it("a data file in the chain is one of its files", async () => {
    const { mine: at } = folders();
    qemuImg("create", "-q", "-f", "qcow2", "-o", `data_file=${at}/data`, `${at}/base`, "1M");
    const before = readFileSync(`${at}/data`);
    const words = ["create", "-f", "qcow2", "-b", "base", "-F", "qcow2", `${at}/data`];
    expect(await ours(words)).toMatchObject({ status: 1 });
    expect(readFileSync(`${at}/data`).equals(before)).toBe(true);
  });

  it("a chain with a name that is not followed is not taken for one without the file", async () => {
    const at = chain();
    qemuImg("rebase", "-u", "-b", `${at}/base.qcow2`, "-F", "qcow2", `${at}/ov.qcow2`);
    qemuImg("rebase", "-u", "-b", "../nowhere", "-F", "qcow2", `${at}/mid.qcow2`);
    writeFileSync(`${at}/there`, "something");
    const over = (name: string) => ["-q", "-b", "mid.qcow2", "-F", "qcow2", `${at}/${name}`];
    const refused = await ours(["create", "-f", "qcow2", ...over("there")]);
    expect(refused.stderr).toContain("--trust-names");
    expect(readFileSync(`${at}/there`, "utf8")).toBe("something");
    // Nothing can be lost.
    expect(await ours(["create", "-f", "qcow2", ...over("new")])).toMatchObject({ status: 0 });
    expect(existsSync(`${at}/new`)).toBe(true);
  });

  it("what is not in the chain is made anew", async () => {
    const at = chain();
    const words = ["create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2"];
    expect(await ours([...words, `${at}/hard.qcow2`])).toMatchObject({ status: 0, stderr: "" });
    const info = JSON.parse(qemuImg("info", "--output=json", `${at}/ov.qcow2`));
    expect(info).toMatchObject({ "backing-filename": "base.qcow2" });
  });
});

describe("a file that is there is emptied only for options that are right", () => {
  it.each([
    "-o cluster_size=3000",
    "-o encrypt.format=aes",
    "-o encryption=on",
    "-o encrypt.format=luks",
    "-o compat=0.10,refcount_bits=1",
    "-o data_file_raw=on",
    "-o cluster_size=512,size=1E",
  ])("%s", async (options) => {
    const { mine: at } = folders();
    writeFileSync(`${at}/there`, "something");
    const size = options.includes("size=1E") ? [] : ["1M"];
    const { status, stderr } = await ours(
      ["create", "-f", "qcow2", ...options.split(" "), `${at}/there`].concat(size),
    );
    expect(status, stderr).toBe(1);
    expect(readFileSync(`${at}/there`, "utf8")).toBe("something");
  });
});

describe("a failure leaves no file that was not there", () => {
  it.each([
    "create -f qcow2 -o cluster_size=3000 @/new 1M",
    "create -f qcow2 -o encrypt.format=aes @/new 1M",
    "create -f qcow2 -o cluster_size=3000,data_file=@/data @/new 1M",
    "create -f qcow2 -o data_file=@/new @/new 1M",
    "create -f qcow2 -o data_file=@/no/such @/new 1M",
    "create -f raw -o preallocation=nope @/new 1M",
    "convert -O qcow2 -o cluster_size=3000 @/old @/new",
    "dd -O qcow2 if=@/old of=@/no/new",
  ])("%s", async (line) => {
    const { mine: at } = folders();
    writeFileSync(`${at}/old`, new Uint8Array(512));
    const { status, stderr } = await ours(line.replaceAll("@", at).split(" "));
    expect(status, stderr).toBe(1);
    expect(readdirSync(at)).toEqual(["old"]);
  });

  it("when it is called off half way, either", async () => {
    const { mine: at } = folders();
    for (const format of ["qcow2", "raw"]) {
      const ending = new AbortController();
      const words = ["create", "-f", format, "-o", "preallocation=full", `${at}/new`, "1G"];
      // It prints just before it begins, and takes longer than this.
      const print = async () => void setTimeout(() => ending.abort(), 20);
      expect(await ours(words, { print, signal: ending.signal })).toMatchObject({ status: 1 });
      expect(readdirSync(at)).toEqual([]);
    }
  });

  it("and takes away what a link leads to, not the link", async () => {
    const { mine: at } = folders();
    symlinkSync("place", `${at}/link`);
    const words = ["create", "-f", "qcow2", "-o", "cluster_size=3000", `${at}/link`, "1M"];
    expect(await ours(words)).toMatchObject({ status: 1 });
    expect(readdirSync(at)).toEqual(["link"]);
  });

  it("but all that was", async () => {
    const { mine: at } = folders();
    for (const name of ["new", "data"]) writeFileSync(`${at}/${name}`, "something");
    const options = `cluster_size=3000,data_file=${at}/data`;
    expect(await ours(["create", "-f", "qcow2", "-o", options, `${at}/new`, "1M"])).toMatchObject({
      status: 1,
    });
    for (const name of ["new", "data"]) {
      expect(readFileSync(`${at}/${name}`, "utf8")).toBe("something");
    }
  });
});
