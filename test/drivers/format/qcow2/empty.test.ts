/** Overlays that are emptied after a commit, and snapshots that are read from. */

import { statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../../../src/base/bytes.ts";
import { Perm } from "../../../../src/block/permissions.ts";
import {
  chainOptions,
  firstDifference,
  hasQemu,
  openDisk,
  qemuImg,
  qemuIo,
  qemuRaw,
  readAll,
  testFolder,
  testGraph,
} from "../rig.ts";

const folder = testFolder();

function makeChain(top: string, ...options: string[]): void {
  qemuImg(folder, "create", "-q", "-f", "qcow2", "base.qcow2", "4M");
  qemuIo(folder, "base.qcow2", "write -P 9 0 1M");
  qemuImg(
    folder,
    "create",
    "-q",
    "-f",
    "qcow2",
    ...options,
    "-b",
    "base.qcow2",
    "-F",
    "qcow2",
    top,
  );
  qemuIo(folder, top, "write -P 1 64k 192k", "write -z 512k 256k", "write -c -P 2 2M 128k");
}

async function empty(...files: string[]): Promise<void> {
  const graph = await testGraph();
  const disk = await openDisk(graph, chainOptions(folder, files));
  await graph.drained([disk.node], () => disk.node.state.makeEmpty!());
  expect(firstDifference(await readAll(disk), await below())).toBe(-1);
  // It is a disk like any other.
  await disk.backend.write(new Uint8Array(100 * KiB).fill(5), 3 * MiB);
  await disk.close();

  async function below() {
    const base = await openDisk(await testGraph(), chainOptions(folder, ["base.qcow2"], true));
    const bytes = await readAll(base);
    await base.close();
    return bytes;
  }
}

describe.skipIf(!hasQemu)("an image that is emptied", () => {
  for (const options of [
    ["-o", "cluster_size=64k"],
    ["-o", "cluster_size=4k,refcount_bits=1"],
    ["-o", "compat=0.10"],
    ["-o", "extended_l2=on,cluster_size=128k"],
  ]) {
    it(`shows what is below, and is clean (${options[1]})`, async () => {
      makeChain("top.qcow2", ...options);
      await empty("top.qcow2", "base.qcow2");
      qemuImg(folder, "check", "top.qcow2");
      const map = JSON.parse(qemuImg(folder, "map", "--output=json", "top.qcow2"));
      expect(map.filter(({ depth }: { depth: number }) => depth === 0)).toMatchObject([
        { start: 3 * MiB, data: true },
      ]);
    });
  }

  it("gives back the room in its file", async () => {
    qemuImg(folder, "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "full.qcow2");
    qemuIo(folder, "full.qcow2", "write -P 5 0 4M");
    await empty("full.qcow2", "base.qcow2");
    // What empty() writes, and the tables.
    expect(statSync(join(folder, "full.qcow2")).size).toBeLessThan(MiB);
    qemuImg(folder, "check", "full.qcow2");
  });

  it("keeps its snapshots", async () => {
    makeChain("snap.qcow2");
    qemuImg(folder, "snapshot", "-c", "before", "snap.qcow2");
    const before = qemuRaw(folder, "snap.qcow2");
    await empty("snap.qcow2", "base.qcow2");
    qemuImg(folder, "check", "snap.qcow2");
    qemuImg(folder, "snapshot", "-a", "before", "snap.qcow2");
    expect(firstDifference(qemuRaw(folder, "snap.qcow2"), before)).toBe(-1);
    qemuImg(folder, "check", "snap.qcow2");
  });
});

describe.skipIf(!hasQemu)("a snapshot that is read from", () => {
  it("reads as the disk was, and is as long as it was", async () => {
    qemuImg(folder, "create", "-q", "-f", "qcow2", "s.qcow2", "2M");
    qemuIo(folder, "s.qcow2", "write -P 1 0 1M");
    const before = qemuRaw(folder, "s.qcow2");
    qemuImg(folder, "snapshot", "-c", "one", "s.qcow2");
    qemuImg(folder, "resize", "-q", "s.qcow2", "5M");
    qemuIo(folder, "s.qcow2", "write -P 2 512k 4M");
    const graph = await testGraph();
    const node = await graph.add({
      driver: "qcow2",
      "node-name": "s",
      "read-only": true,
      file: { driver: "file", filename: join(folder, "s.qcow2") },
      backing: null,
    });
    node.state.snapshots!.load("1");
    const backend = graph.openBackend(node, {
      name: "",
      description: "the test",
      permissions: { take: Perm.consistentRead, share: Perm.all },
    });
    const bytes = new Uint8Array(backend.length);
    await backend.read(bytes, 0);
    expect(firstDifference(bytes, before)).toBe(-1);
    await graph.closeBackend(backend);
    await graph.remove("s");
  });
});
