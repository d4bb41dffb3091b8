import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { nodeHost } from "../../src/cli/img.ts";
import { img } from "../../src/img/img.ts";
import { hasQemu } from "../drivers/format/rig.ts";

const folder = mkdtempSync(join(tmpdir(), "blocktab-img-luks-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const at = (name: string) => join(folder, name);
const SECRET = ["--object", "secret,id=s,data=hunter2"];
const NEXT = ["--object", '{"qom-type": "secret", "id": "t", "data": "hunter3"}'];
const opts = (secret: string) =>
  `driver=qcow2,file.filename=${at("disk.qcow2")},encrypt.key-secret=${secret}`;

async function run(...argv: string[]): Promise<{ status: number; out: string; problem: string }> {
  let [out, problem] = ["", ""];
  const host = await nodeHost({
    print: async (text) => {
      out += text;
    },
    complain: async (text) => {
      problem += text;
    },
  });
  return { status: await img(argv, host), out, problem };
}

const succeeds = async (...argv: string[]) => {
  const result = await run(...argv);
  expect(result.problem).toBe("");
  expect(result.status).toBe(0);
  return result.out;
};

it.skipIf(!hasQemu)(
  "img makes, tells of and amends encrypted images as qemu-img does",
  async () => {
    const image = at("disk.qcow2");
    const how = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1";
    await succeeds("create", "-q", ...SECRET, "-f", "qcow2", "-o", how, image, "1M");
    const ours = JSON.parse(await succeeds("info", "--output=json", image));
    expect(ours.encrypted).toBe(true);
    expect(ours["format-specific"].data.encrypt).toMatchObject({
      format: "luks",
      "hash-alg": "sha256",
    });
    const qemu = (...args: string[]) => execFileSync("qemu-img", args, { encoding: "utf8" });
    qemu("map", ...SECRET, "--image-opts", opts("s"));
    const added = "encrypt.state=active,encrypt.new-secret=t,encrypt.iter-time=1";
    await succeeds("amend", ...SECRET, ...NEXT, "--image-opts", "-o", added, opts("s"));
    qemu("map", "--object", "secret,id=t,data=hunter3", "--image-opts", opts("t"));
    expect(
      await run("map", "--object", "secret,id=s,data=wrong", "--image-opts", opts("s")),
    ).toMatchObject({ status: 1, problem: expect.stringMatching(/fits no key slot/) });
  },
);

it("img takes a secret from a file, and repeats none in what it complains about", async () => {
  writeFileSync(at("passphrase"), "hunter2");
  const made = [
    "-f",
    "qcow2",
    "-o",
    "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1",
  ];
  const file = `secret,id=s,file=${at("passphrase")}`;
  await succeeds("create", "-q", "--object", file, ...made, at("disk.qcow2"), "1M");
  await succeeds("map", ...SECRET, "--image-opts", opts("s"));
  for (const bad of [
    "secret,id=s,data=hunter2,format=base64x",
    "secret,id=s,data=hunter2!,format=base64",
    "secret,data=hunter2",
    "throttle-group,id=hunter",
    '{"qom-type": "secret", "id": "s", "data": "hunter2"',
  ]) {
    const { status, problem } = await run("map", "--object", bad, "--image-opts", opts("s"));
    expect(status).toBe(1);
    expect(problem).not.toMatch(/hunter2/);
  }
});
