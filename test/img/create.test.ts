/** `create` makes what qemu-img makes, tells of it in the same words, and refuses the same. */

import { readFileSync, statSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { expectBothRefuse, expectSame, qemuImg, useFolders } from "./rig.ts";

const folders = useFolders();

describe("create", () => {
  const MADE: readonly (readonly string[])[] = [
    ["create", "-f", "qcow2", "@/a", "1M"],
    ["create", "-fqcow2", "-ocluster_size=8192,refcount_bits=64", "@/a", "1.5G"],
    ["create", "-f", "qcow2", "-o", "compat=0.10", "-o", "cluster_size=512", "@/a", "3M"],
    ["create", "-f", "qcow2", "@/a", "-o", "size=64k,extended_l2=on,lazy_refcounts"],
    [
      "create",
      "-f",
      "qcow2",
      "-o",
      "compat=v3,compression_type=zstd,nolazy_refcounts",
      "@/a",
      "1G",
    ],
    ["create", "-f", "qcow2", "-o", "preallocation=metadata", "@/a", "3M"],
    ["create", "-f", "qcow2", "-o", "preallocation=full", "@/a", "1M"],
    ["create", "-f", "qcow2", "-u", "-b", "nowhere,x", "-F", "raw", "@/a", "1M"],
    ["create", "--object", "secret,id=s,data=x", "-f", "qcow2", "@/a", "0"],
    ["create", "-qf", "qcow2", "@/a", "--", "1331"],
    ["create", "@/a", "1000"],
    ["create", "-f", "raw", "-o", "preallocation=full", "@/a", "0x1000"],
    ["create", "file:@/a", "1k"],
  ];
  it.each(MADE.map((words) => [words.join(" "), words] as const))("%s", async (_, words) => {
    const at = folders();
    expectSame(await at.both(...words));
    const [mine, real] = [at.mine, at.real].map((folder) => readFileSync(`${folder}/a`));
    if (!words.join(" ").includes("qcow2")) {
      expect(mine!.equals(real!)).toBe(true);
      return;
    }
    // Where the tables lie is each one's own business; what they say is not.
    const image = (folder: string) =>
      words.includes("-u")
        ? `driver=qcow2,file.filename=${folder}/a,backing=`
        : `driver=qcow2,file.filename=${folder}/a`;
    for (const judge of [["check"], ["map", "--output=json"]]) {
      const [of, ofReal] = [at.mine, at.real].map((folder) =>
        qemuImg(...judge, "--image-opts", image(folder)).replaceAll(folder, "@"),
      );
      expect(of).toBe(ofReal);
    }
  });

  it("has its size from the backing file", async () => {
    const at = folders();
    at.make("create", "-q", "-f", "qcow2", "@/base", "5M");
    expectSame(await at.both("create", "-f", "qcow2", "-b", "base", "-F", "qcow2", "@/a"));
    const info = JSON.parse(qemuImg("info", "--output=json", `${at.mine}/a`));
    expect(info).toMatchObject({ "virtual-size": 5 << 20, "backing-filename": "base" });
  });

  it("has whole sectors where the backing file has not", async () => {
    const at = folders();
    for (const folder of [at.mine, at.real]) writeFileSync(`${folder}/base`, "a line of text");
    expectSame(await at.both("create", "-f", "qcow2", "-b", "base", "-F", "raw", "@/a"));
  });

  it("makes a data file of the disk's size", async () => {
    const at = folders();
    const options = "data_file=@/data,data_file_raw=on";
    expectSame(await at.both("create", "-f", "qcow2", "-o", options, "@/a", "3M"));
    expect(statSync(`${at.mine}/data`).size).toBe(statSync(`${at.real}/data`).size);
    qemuImg("check", `${at.mine}/a`);
  });

  it("preallocates in a data file, too", async () => {
    const at = folders();
    const options = "data_file=@/data,preallocation=full";
    expectSame(await at.both("create", "-f", "qcow2", "-o", options, "@/a", "3M"));
    expect(statSync(`${at.mine}/data`)).toMatchObject({ size: 3 << 20, blocks: (3 << 20) / 512 });
    expect(qemuImg("check", `${at.mine}/a`)).toBe(qemuImg("check", `${at.real}/a`));
  });

  const REFUSED: readonly (readonly string[])[] = [
    [],
    ["-f", "qcow2"],
    ["-f", "qcow2", "@/a"],
    ["-f", "nope", "@/a", "1M"],
    ["-f", "qcow2", "@/a", "1Z"],
    ["-f", "qcow2", "@/a", "1.5"],
    ["-f", "qcow2", "-o", "foo=1", "@/a", "1M"],
    ["-f", "qcow2", "-o", "size=1M", "@/a", "2M"],
    ["-f", "qcow2", "-o", "size=1M,", "@/a"],
    ["-f", "qcow2", "-o", "lazy_refcounts=1", "@/a", "1M"],
    ["-f", "qcow2", "-o", "cluster_size=3k", "@/a", "1M"],
    ["-f", "qcow2", "-o", "compat=0.10,refcount_bits=1", "@/a", "1M"],
    ["-f", "qcow2", "-o", "encrypt.format=luks", "@/a", "1M"],
    ["-f", "qcow2", "-b", "nowhere", "-F", "qcow2", "@/a", "1M"],
    ["-f", "qcow2", "-F", "qcow2", "@/a", "1M"],
    ["-f", "qcow2", "-u", "-b", "nowhere", "-F", "qcow2", "@/a"],
    ["-f", "qcow2", "-u", "-b", "nowhere", "@/a", "1M"],
    ["-f", "raw", "-b", "x", "-F", "raw", "@/a", "1M"],
    ["@/a", "1M", "extra"],
    ["nope:a", "1M"],
    ["@/no/such/folder", "1M"],
    ["-X", "@/a", "1M"],
    ["--frob", "@/a", "1M"],
    ["@/a", "-1"],
  ];
  it.each(REFUSED.map((words) => [words.join(" "), words] as const))(
    "refuses %s",
    async (_, words) => {
      expectBothRefuse(await folders().both("create", ...words));
    },
  );
});
