/** Encrypted images: made, told of, read with `--object secret`, and never with a wrong one. */

import { writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { expectBothRefuse, expectSame, ours, qemuImg, theirs, useFolders } from "./rig.ts";
import { asOld } from "./versions.ts";

const folders = useFolders();
const SECRET = ["--object", "secret,id=s,data=open,,sesame"];
const LUKS = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
const named = (name: string) => `driver=qcow2,file.filename=${name},encrypt.key-secret=s`;

describe("an encrypted image", () => {
  it("is made for qemu-img, and told of as by it", async () => {
    const { mine } = folders();
    const made = await ours(["create", ...SECRET, "-f", "qcow2", "-o", LUKS, `${mine}/a`, "1M"]);
    expect(made.status, made.stderr).toBe(0);
    const words = ["map", "--output=json", ...SECRET, "--image-opts", named(`${mine}/a`)];
    expect(asOld("map", (await ours(words)).stdout)).toBe(qemuImg(...words));
    for (const output of ["human", "json"]) {
      const info = ["info", `--output=${output}`, `${mine}/a`];
      expect(asOld("info", (await ours(info)).stdout)).toBe(qemuImg(...info));
    }
    const check = ["check", "--output=json", `${mine}/a`];
    expect(JSON.parse((await ours(check)).stdout)).toMatchObject({ "check-errors": 0 });
  });

  it("of qemu-img is read with its secret alone", async () => {
    const { mine } = folders();
    qemuImg("create", "-q", ...SECRET, "-f", "qcow2", "-o", LUKS, `${mine}/a`, "1M");
    writeFileSync(`${mine}/secret`, "b3BlbixzZXNhbWU=\n");
    const objects = [
      SECRET,
      ["--object", '{"qom-type":"secret","id":"s","data":"open,sesame"}'],
      ["--object", `secret,id=s,format=base64,file=${mine}/secret`],
    ];
    for (const object of objects) {
      const { status, stderr } = await ours(["map", ...object, "--image-opts", named(`${mine}/a`)]);
      expect(status, stderr).toBe(0);
    }
    const wrong = ["--object", "secret,id=s,data=guessed"];
    const refused = await ours(["map", ...wrong, "--image-opts", named(`${mine}/a`)]);
    expect(refused.status).toBe(1);
    expect(refused.stderr).not.toContain("guessed");
    expect((await ours(["map", `${mine}/a`])).status).toBe(1);
  });

  it("gets another key, and loses the first", async () => {
    const { mine } = folders();
    qemuImg("create", "-q", ...SECRET, "-f", "qcow2", "-o", LUKS, `${mine}/a`, "1M");
    const other = ["--object", "secret,id=n,data=other"];
    const added = "encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=10";
    const image = ["--image-opts", named(`${mine}/a`)];
    const add = await ours(["amend", ...SECRET, ...other, "-o", added, ...image]);
    expect(add.status, add.stderr).toBe(0);
    const removed = "encrypt.state=inactive,encrypt.old-secret=s";
    const remove = await ours(["amend", ...SECRET, "-o", removed, ...image]);
    expect(remove.status, remove.stderr).toBe(0);
    expect(theirs(["map", ...SECRET, ...image]).status).toBe(1);
    qemuImg("map", "--object", "secret,id=s,data=other", ...image);
  });

  it("comes to as many bytes as with qemu-img", async () => {
    const at = folders();
    for (const more of ["", ",encrypt.cipher-alg=aes-128", ",cluster_size=4k"]) {
      const words = ["-O", "qcow2", "-o", `${LUKS}${more}`, "--size", "1M"];
      expectSame(await at.both("measure", ...SECRET, ...words));
    }
  });
});

it.each([
  ["secret,data=x"],
  ["secret,id=s"],
  ["secret,id=s,data=x,file=y"],
  ["secret,id=s,data=x,nope=1"],
  ["secret,id=s,format=base64,data=!"],
  ["secret,id=s,file=/no/such/file"],
  ["nope,id=s"],
  ["{"],
])("--object %s is refused", async (object) => {
  const at = folders();
  at.make("create", "-q", "-f", "qcow2", "@/a", "1M");
  expectBothRefuse(await at.both("info", "--object", object, "@/a"));
});
