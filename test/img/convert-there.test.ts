/** `convert -n`: what it leaves of an image that was there, entry by entry as the real one does. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { expectBothRefuse, expectSame, ours, qemuImg, qemuIo, theirs, useFolders } from "./rig.ts";
import { asOld } from "./versions.ts";

const fresh = useFolders();

const KINDS: { readonly [name: string]: string } = {
  "version 3": "compat=1.1",
  "version 2": "compat=0.10",
  "small clusters": "cluster_size=4k",
  subclusters: "extended_l2=on",
  "a data file": "data_file=@/data",
  "a raw data file": "data_file=@/data,data_file_raw=on",
};

it.each(Object.keys(KINDS))("convert -n marks zeroes as written, in %s", async (kind) => {
  const at = fresh();
  for (const folder of [at.mine, at.real]) {
    const options = KINDS[kind]!.replaceAll("@", folder);
    qemuImg("create", "-q", "-f", "qcow2", "-o", options, `${folder}/there`, "2M");
    qemuIo(`${folder}/there`, "qcow2", "write -P 1 128k 256k", "write -z 1M 64k");
    qemuImg("create", "-q", "-f", "qcow2", `${folder}/source`, "1M");
    qemuIo(`${folder}/source`, "qcow2", "write -P 2 256k 256k");
  }
  expectSame(await at.both("convert", "-n", "-O", "qcow2", "@/source", "@/there"));
  const [mine, real] = [at.mine, at.real].map(
    (folder) => theirs(["map", "--output=json", join(folder, "there")]).stdout,
  );
  expect(mine).toBe(real);
  expectSame(await at.both("map", "--output=json", "@/there"), (text) => asOld("map", text));
  qemuImg("check", `${at.mine}/there`);
});

it("zeroes that were written stay when the image gets a backing file", async () => {
  const { mine } = fresh();
  const [base, source, there] = ["base", "source", "there"].map((name) => join(mine, name));
  qemuImg("create", "-q", "-f", "qcow2", base!, "1M");
  qemuIo(base!, "qcow2", "write -P 1 0 1M");
  for (const path of [source!, there!]) qemuImg("create", "-q", "-f", "qcow2", path, "1M");
  expect((await ours(["convert", "-n", "-O", "qcow2", source!, there!])).status).toBe(0);
  expect((await ours(["rebase", "-u", "-b", base!, "-F", "qcow2", there!])).status).toBe(0);
  qemuImg("compare", source!, there!);
});

const UNFIT: readonly (readonly string[])[] = [
  ["--bitmaps", "@/old"],
  ["--bitmaps", "@/small"],
  ["--bitmaps", "@/large"],
  ["--bitmaps", "@/taken"],
  ["@/small"],
];
it.each(UNFIT.map((words) => [words.join(" "), words] as const))(
  "what cannot take the source is as it was, and is not called incomplete: convert -n '%s'",
  async (_, words) => {
    const at = fresh();
    at.make("create", "-q", "-f", "qcow2", "@/source", "1M");
    at.make("bitmap", "--add", "@/source", "b0");
    for (const folder of [at.mine, at.real]) qemuIo(`${folder}/source`, "qcow2", "write -P 1 0 1M");
    at.make("create", "-q", "-f", "qcow2", "-o", "compat=0.10", "@/old", "1M");
    at.make("create", "-q", "-f", "qcow2", "@/small", "512k");
    at.make("create", "-q", "-f", "qcow2", "@/large", "2M");
    at.make("create", "-q", "-f", "qcow2", "@/taken", "1M");
    at.make("bitmap", "--add", "@/taken", "b0");
    const target = join(at.mine, words.at(-1)!.replace("@/", ""));
    const before = readFileSync(target);
    const pair = await at.both(
      "convert",
      "-n",
      "-O",
      "qcow2",
      ...words.slice(0, -1),
      "@/source",
      words.at(-1)!,
    );
    expectBothRefuse(pair);
    expect(pair.ours.stderr).not.toContain("not complete");
    expect(Buffer.compare(readFileSync(target), before)).toBe(0);
  },
);

it("bitmaps that a new image cannot keep are told of before anything is copied", async () => {
  const at = fresh();
  at.make("create", "-q", "-f", "qcow2", "@/source", "1M");
  at.make("bitmap", "--add", "@/source", "b0");
  for (const folder of [at.mine, at.real]) qemuIo(`${folder}/source`, "qcow2", "write -P 1 0 1M");
  const words = ["--bitmaps", "-O", "qcow2", "-o", "compat=0.10", "@/source", "@/new"];
  expectBothRefuse(await at.both("convert", ...words));
  const [run] = JSON.parse(qemuImg("map", "--output=json", `${at.mine}/new`));
  expect(run).toMatchObject({ length: 1 << 20, present: false });
});
