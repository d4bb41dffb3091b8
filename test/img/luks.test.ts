import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { seededRandom } from "../../src/base/random.ts";
import { nodeHost } from "../../src/cli/img.ts";
import { img } from "../../src/img/img.ts";
import { hasQemu } from "../drivers/format/rig.ts";
import { qemuImg } from "./rig.ts";

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
    qemuImg("map", ...SECRET, "--image-opts", opts("s"));
    const added = "encrypt.state=active,encrypt.new-secret=t,encrypt.iter-time=1";
    await succeeds("amend", ...SECRET, ...NEXT, "--image-opts", "-o", added, opts("s"));
    qemuImg("map", "--object", "secret,id=t,data=hunter3", "--image-opts", opts("t"));
    expect(
      await run("map", "--object", "secret,id=s,data=wrong", "--image-opts", opts("s")),
    ).toMatchObject({ status: 1, problem: expect.stringMatching(/fits no key slot/) });
  },
);

it.skipIf(!hasQemu)(
  "img converts into an encrypted image that qemu-img reads, and back",
  async () => {
    const random = seededRandom(7);
    const raw = new Uint8Array(MiB + 300 * 512);
    // Data, holes, data: what is a hole stays one.
    for (let at = 0; at < raw.length; at += 64 * KiB) {
      if (random.below(2)) random.fill(raw.subarray(at, at + 64 * KiB));
    }
    writeFileSync(at("in.raw"), raw);
    const how = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1";
    const into = ["-O", "qcow2", "-o", how, at("in.raw"), at("disk.qcow2")];
    await succeeds("convert", ...SECRET, "-f", "raw", ...into);

    // No cluster holds what the disk holds.
    const image = readFileSync(at("disk.qcow2"));
    const data = raw.findIndex((byte) => byte !== 0);
    expect(image.indexOf(raw.subarray(data, data + 512))).toBe(-1);

    qemuImg("check", ...SECRET, "--image-opts", opts("s"));
    const asRaw = `driver=raw,file.filename=${at("in.raw")}`;
    expect(qemuImg("compare", ...SECRET, "--image-opts", opts("s"), asRaw)).toContain("identical");
    const seen = qemuImg("map", "--output=json", ...SECRET, "--image-opts", opts("s"));
    expect((JSON.parse(seen) as { data: boolean }[]).some(({ data }) => !data)).toBe(true);

    await succeeds("convert", ...SECRET, "--image-opts", "-O", "raw", opts("s"), at("back.raw"));
    expect(Buffer.compare(readFileSync(at("back.raw")), raw)).toBe(0);
    expect((await run("convert", "-f", "raw", ...into)).problem).toMatch(/secret.*'s'|'s'.*secret/);
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
