/** What `img` says when something is wrong: it names files as the user does, and says what to do. */

import { mkdirSync, rmSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { hasQemu } from "../drivers/format/rig.ts";
import { ours, qemuImg, useFolders } from "./rig.ts";

const folders = useFolders();

async function complaint(...words: string[]): Promise<string> {
  const { status, stderr } = await ours(words);
  expect(status).not.toBe(0);
  return stderr;
}

describe("a complaint", () => {
  it("says once what is not there", async () => {
    const at = `${folders().mine}/nope`;
    for (const words of [
      ["info"],
      ["map"],
      ["check"],
      ["snapshot", "-l"],
      ["snapshot", "-c", "a"],
    ]) {
      const said = await complaint(...words, at);
      expect(said).toBe(`blocktab img: Could not open '${at}': no such file or directory\n`);
    }
  });

  it("names the image, not a node of ours", async () => {
    const at = `${folders().mine}/a.qcow2`;
    await ours(["create", "-q", "-f", "qcow2", at, "1M"]);
    await ours(["snapshot", "-c", "one", at]);
    const twice = await complaint("snapshot", "-c", "one", at);
    expect(twice).toContain(`'${at}' has a snapshot 'one' already`);
    expect(await complaint("bitmap", "--remove", at, "zz")).toContain(`'${at}' has no bitmap 'zz'`);
    expect(twice).not.toContain("#block");
  });

  it("tells an option that comes too late from one that there is not", async () => {
    const at = `${folders().mine}/a.qcow2`;
    await ours(["create", "-q", "-f", "qcow2", at, "1M"]);
    const late = await complaint("amend", "-o", "cluster_size=4k", at);
    expect(late).toContain("'cluster_size': it is for new images only\n");
    expect(await complaint("amend", "-o", "nonsense=4k", at)).toContain("'nonsense'\n");
  });

  it("lists the formats that an image can have", async () => {
    const said = await complaint("create", "-f", "qcow", `${folders().mine}/a`, "1M");
    expect(said).toContain("there are: qcow2, raw\n");
  });
});

describe.skipIf(!hasQemu)("of a chain", () => {
  it("says which image's backing or data file is missing, and what to do", async () => {
    const { mine } = folders();
    const top = `${mine}/top.qcow2`;
    const of = ["-f", "qcow2", "-F", "qcow2"];
    qemuImg("create", "-q", "-f", "qcow2", `${mine}/base.qcow2`, "1M");
    qemuImg("create", "-q", ...of, "-b", "base.qcow2", `${mine}/mid.qcow2`);
    qemuImg("create", "-q", ...of, "-b", "mid.qcow2", top);
    rmSync(`${mine}/base.qcow2`);
    const said = await complaint("map", top);
    expect(said).toContain(
      `The backing file 'base.qcow2' of '${mine}/mid.qcow2' cannot be opened: no such file`,
    );
    expect(said).toContain("rebase -u");
    expect(said).toContain("--image-opts");

    const data = `${mine}/data.qcow2`;
    qemuImg("create", "-q", "-f", "qcow2", "-o", `data_file=${mine}/bytes`, data, "1M");
    rmSync(`${mine}/bytes`);
    expect(await complaint("map", data)).toContain(`The data file '${mine}/bytes' of '${data}'`);
  });

  it("does not advise to trust a name that is never followed", async () => {
    const top = `${folders().mine}/top.qcow2`;
    for (const name of ["nbd://there/disk", 'json:{"driver":"null-co"}']) {
      qemuImg("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", name, top, "1M");
      const said = await complaint("map", top);
      expect(said).toContain("no plain file");
      expect(said).not.toContain("--trust-names");
    }
  });

  it("is heard when a name is written that is not followed afterwards", async () => {
    const { mine } = folders();
    mkdirSync(`${mine}/a`);
    qemuImg("create", "-q", "-f", "qcow2", `${mine}/a/base`, "1M");
    const make = (name: string, backing: string) =>
      ours(["create", "-f", "qcow2", "-F", "qcow2", "-b", backing, `${mine}/${name}`]);
    mkdirSync(`${mine}/b`);
    const away = await make("b/top", "../a/base");
    expect(away).toMatchObject({ status: 0, stderr: expect.stringContaining("--trust-names") });
    expect(await make("top", "a/base")).toMatchObject({ status: 0, stderr: "" });
  });
});
