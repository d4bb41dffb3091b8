import { createHash } from "node:crypto";
import { copyFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { MiB } from "../../../../src/base/bytes.ts";
import {
  chainOptions,
  hasQemu,
  openDisk,
  qemuCheck,
  testFolder,
  testGraph,
  writeRaw,
} from "../rig.ts";

const GOLDEN = new URL("../../../golden/", import.meta.url);
const folder = testFolder();

/** file → [sha256, raw sha256], out of the table in MANIFEST.md. */
const sums = new Map(
  [
    ...readFileSync(new URL("MANIFEST.md", GOLDEN), "utf8").matchAll(
      /^\| (\S+\.qcow2) \|.*\| `(\w{64})` \| `(\w{64})` \|$/gm,
    ),
  ].map(([, file, stored, raw]) => [file!, [stored!, raw!]] as const),
);

function take(file: string): string {
  copyFileSync(new URL(file, GOLDEN), join(folder, file));
  const stored = createHash("sha256")
    .update(readFileSync(join(folder, file)))
    .digest("hex");
  expect(stored, "the stored file is the one in MANIFEST.md").toBe(sums.get(file)![0]);
  return file;
}

async function rawSum(files: string[]): Promise<string> {
  const disk = await openDisk(await testGraph(), chainOptions(folder, files, true));
  const hash = createHash("sha256");
  const buf = new Uint8Array(8 * MiB);
  for (let at = 0; at < disk.backend.length; at += buf.length) {
    const piece = buf.subarray(0, Math.min(buf.length, disk.backend.length - at));
    await disk.backend.read(piece, at);
    hash.update(piece);
  }
  await disk.close();
  return hash.digest("hex");
}

describe("images written by other programs", () => {
  it("are all in the manifest", () => expect(sums.size).toBe(5));

  it.each(["dfvfs-ext2.qcow2", "plaso-image.qcow2", "vasi-test.qcow2"])("%s", async (file) => {
    take(file);
    expect(await rawSum([file])).toBe(sums.get(file)![1]);
  });

  it.each([[["cirros-snapshot1.qcow2"]], [["cirros-snapshot2.qcow2", "cirros-snapshot1.qcow2"]]])(
    "%s over a base of zeroes",
    async (files) => {
      writeRaw(folder, "cirros.raw", new Uint8Array(46137344));
      for (const file of files) take(file);
      expect(await rawSum([...files, "cirros.raw"])).toBe(sums.get(files[0]!)![1]);
    },
  );

  it.skipIf(!hasQemu)("take our writes and stay clean", async () => {
    for (const file of ["dfvfs-ext2.qcow2", "plaso-image.qcow2", "vasi-test.qcow2"]) {
      take(file);
      const disk = await openDisk(await testGraph(), chainOptions(folder, [file]));
      await disk.backend.write(new Uint8Array(70_000).fill(3), 512);
      await disk.backend.writeZeroes(1024, 20_000);
      await disk.close();
      const check = qemuCheck(folder, file);
      expect(check.status, check.text).toBe(0);
    }
  });
});
