/** docs/img.md: its examples run, through the real command, and its tables have what the command has. */

import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ROOT } from "../../scripts/setup.mjs";
import { COMMANDS } from "../../src/img/commands/index.ts";
import { ours, qemuImg, useFolders } from "./rig.ts";

const folders = useFolders();
const document = readFileSync(join(ROOT, "docs", "img.md"), "utf8");
const blocks = [...document.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, lines]) =>
  lines!.trim().split("\n"),
);

it("each example for a page is code that is compiled", () => {
  const source = readFileSync(join(ROOT, "test", "engine", "img-examples.ts"), "utf8");
  const examples = [...document.matchAll(/```ts\n([\s\S]*?)```/g)];
  expect(examples).toHaveLength(2);
  for (const [, code] of examples) expect(source).toContain(code);
});

function blocktab(folder: string, words: readonly string[]) {
  const argv = [join(ROOT, "bin", "blocktab.mjs"), ...words];
  return spawnSync(process.execPath, argv, { cwd: folder, encoding: "utf8" });
}

describe("the examples", () => {
  it("of a disk's life leave good images", () => {
    const { mine } = folders();
    for (const line of blocks[0]!) {
      const { status, stderr } = blocktab(mine, line.split(" ").slice(1));
      expect(status, `${line}: ${stderr}`).toBe(0);
    }
    expect(qemuImg("check", `${mine}/disk.qcow2`)).toContain("No errors");
    expect(JSON.parse(qemuImg("info", "--output=json", `${mine}/disk.qcow2`))).toMatchObject({
      "virtual-size": 12 * 2 ** 30,
      snapshots: [{ name: "before" }],
      "format-specific": { data: { "lazy-refcounts": true, bitmaps: [{ name: "backup" }] } },
    });
  });

  it("of names follow what would not be followed", () => {
    const { mine } = folders();
    mkdirSync(`${mine}/elsewhere`);
    mkdirSync(`${mine}/here`);
    qemuImg("create", "-q", "-f", "qcow2", `${mine}/elsewhere/base.qcow2`, "1M");
    const base = `${mine}/elsewhere/base.qcow2`;
    qemuImg("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", `${mine}/here/top.qcow2`);
    const refused = blocktab(`${mine}/here`, ["img", "map", "top.qcow2"]);
    expect(refused).toMatchObject({ status: 1, stdout: "" });
    expect(refused.stderr).toContain("--trust-names");
    for (const line of blocks[1]!) {
      const words = line.replace("elsewhere/", "../elsewhere/").split(" ").slice(1);
      const { status, stderr } = blocktab(`${mine}/here`, words);
      expect(status, `${line}: ${stderr}`).toBe(0);
    }
  });
});

describe("the table of subcommands", () => {
  const rows = [...document.matchAll(/^\| `(\w+)` \| (.*?) \|/gm)];

  it("has every subcommand that is there, and says so of those that are not", () => {
    const there = COMMANDS.map(({ name }) => name);
    expect(rows.map(([, name]) => name)).toEqual([...there, "bench"].sort());
  });

  it.each(COMMANDS.map(({ name }) => name))("has the options of %s", (name) => {
    const command = COMMANDS.find((one) => one.name === name)!;
    const [, , cell] = rows.find(([, row]) => row === name)!;
    const told = [...cell!.matchAll(/`(--?[a-zA-Z-]+)`/g)].map(([, option]) => option);
    const taken = command.options.map((option) =>
      told.includes(`--${option.name}`) ? `--${option.name}` : `-${option.short}`,
    );
    expect([...told].sort()).toEqual([...taken].sort());
  });
});

describe("help", () => {
  it("is shown by the command, by each subcommand, and where something is wrong", async () => {
    const general = await ours(["--help"]);
    expect(general.status).toBe(0);
    for (const { name, options } of COMMANDS) {
      expect(general.stdout).toContain(`  ${name}`);
      const { status, stdout } = await ours([name, "--help"]);
      expect(status).toBe(0);
      for (const option of options) expect(stdout).toContain(`--${option.name}`);
    }
    expect((await ours([])).stderr).toContain("--help");
    expect((await ours(["frob"])).stderr).toContain("'frob'");
    expect((await ours(["info", "--frob"])).stderr).toContain("blocktab img info --help");
    expect(await ours(["--version"])).toMatchObject({ status: 0, stderr: "" });
  });

  it("lists what -o takes, whose names are qemu-img's", async () => {
    const names = (text: string) => [...text.matchAll(/^ {2}([\w.-]+)=/gm)].map(([, name]) => name);
    for (const words of [
      ["create", "-f", "qcow2", "-o", "help"],
      ["create", "-f", "qcow2", "-o", "?", "x"],
      ["create", "-f", "raw", "-o", "help", "x"],
      ["amend", "-f", "qcow2", "-o", "help"],
    ]) {
      const mine = await ours(words);
      expect(mine.status).toBe(0);
      expect(names(mine.stdout)).toEqual(names(qemuImg(...words)));
    }
  });
});
