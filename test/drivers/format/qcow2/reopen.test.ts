import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { MiB } from "../../../../src/base/bytes.ts";
import type { BlockBackend } from "../../../../src/block/backend.ts";
import type { Graph } from "../../../../src/block/graph.ts";
import type { BlockNode } from "../../../../src/block/node.ts";
import { Perm } from "../../../../src/block/permissions.ts";
import {
  chainOptions,
  createImage,
  hasQemu,
  qemuCheck,
  qemuImg,
  qemuRaw,
  testFolder,
  testGraph,
  writeRaw,
} from "../rig.ts";

const folder = testFolder();

describe.skipIf(!hasQemu)("a qcow2 image reopened", () => {
  it("is a whole image as soon as it is read-only, and can be written again", async () => {
    await createImage(folder, "a.qcow2", { size: 8 * MiB, "cluster-size": 4096 });
    const { graph, node } = await opened("a.qcow2");
    const model = new Uint8Array(8 * MiB);
    for (let round = 0; round < 4; round++) {
      const piece = new Uint8Array(1 * MiB).fill(round + 1);
      const offset = round * (1 * MiB + 4321);
      await writing(graph, node, (write) => write(piece, offset));
      model.set(piece, offset);
      // Refcounts that go down come last of all.
      await writing(graph, node, (_write, backend) => backend.discard(offset + 4321, 200_000));
      const start = Math.ceil((offset + 4321) / 4096) * 4096;
      const end = Math.floor((offset + 4321 + 200_000) / 4096) * 4096;
      model.fill(0, start, end);
      await graph.reopen(node, { readOnly: true });
      // The real one reads it while we still have it open.
      expect(qemuCheck(folder, "a.qcow2").status).toBe(0);
      expect(Buffer.compare(qemuRaw(folder, "a.qcow2"), model)).toBe(0);
      await graph.reopen(node, { readOnly: false });
    }
    await graph.remove("disk");
    expect(qemuCheck(folder, "a.qcow2").status).toBe(0);
    expect(Buffer.compare(qemuRaw(folder, "a.qcow2"), model)).toBe(0);
  });

  it("is repaired before it is made writable when it is marked dirty", async () => {
    await createImage(folder, "dirty.qcow2", { size: 1 * MiB });
    const bytes = new Uint8Array(readFileSync(join(folder, "dirty.qcow2")));
    bytes[79] = 1;
    writeRaw(folder, "dirty.qcow2", bytes);
    const { graph, node } = await opened("dirty.qcow2", true);
    await graph.reopen(node, { readOnly: false });
    await graph.remove("disk");
    bytes[79] = 0;
    expect(Buffer.compare(readFileSync(join(folder, "dirty.qcow2")), bytes)).toBe(0);
  });

  it.each([["corrupt", 72, 2, "is marked corrupt"]])(
    "is not made writable when it is %s, and is read as before",
    async (name, at, bit, text) => {
      await createImage(folder, `${name}.qcow2`, { size: 1 * MiB });
      const bytes = new Uint8Array(readFileSync(join(folder, `${name}.qcow2`)));
      bytes[at + 7] = bit;
      writeRaw(folder, `${name}.qcow2`, bytes);
      const { graph, node } = await opened(`${name}.qcow2`, true);
      const attempt = graph.reopen(node, { readOnly: false });
      await expect(attempt).rejects.toMatchObject({ errno: "EPERM" });
      await expect(attempt).rejects.toThrow(text);
      expect(node.readOnly).toBe(true);
      await reading(graph, node);
      await graph.remove("disk");
      expect(Buffer.compare(readFileSync(join(folder, `${name}.qcow2`)), bytes)).toBe(0);
    },
  );

  it("keeps its data file with it", async () => {
    const options = "data_file=d.raw,data_file_raw=on";
    qemuImg(folder, "create", "-f", "qcow2", "-o", options, "d.qcow2", "1M");
    const graph = await testGraph();
    const node = await graph.add({
      driver: "qcow2",
      "node-name": "disk",
      "read-only": true,
      file: { driver: "file", filename: join(folder, "d.qcow2") },
      "data-file": { driver: "file", filename: join(folder, "d.raw") },
    });
    await graph.reopen(node, { readOnly: false });
    await writing(graph, node, (write) => write(new Uint8Array(65536).fill(5), 65536));
    await graph.reopen(node, { readOnly: true });
    expect(readFileSync(join(folder, "d.raw"))[65536]).toBe(5);
    expect(qemuCheck(folder, "d.qcow2").status).toBe(0);
    await graph.remove("disk");
  });
});

async function opened(name: string, readOnly = false): Promise<{ graph: Graph; node: BlockNode }> {
  const graph = await testGraph();
  const options = { ...chainOptions(folder, [name], readOnly), file: undefined };
  const node = await graph.add({
    ...options,
    "node-name": "disk",
    file: { driver: "file", filename: join(folder, name) },
  });
  return { graph, node };
}

async function writing(
  graph: Graph,
  node: BlockNode,
  work: (
    write: (buf: Uint8Array, offset: number) => Promise<void>,
    backend: BlockBackend,
  ) => Promise<void>,
): Promise<void> {
  const permissions = { take: Perm.consistentRead | Perm.write, share: Perm.all };
  const backend = graph.openBackend(node, { name: "w", description: "w", permissions });
  await work((buf, offset) => backend.write(buf, offset), backend);
  await graph.closeBackend(backend);
}

async function reading(graph: Graph, node: BlockNode): Promise<void> {
  const permissions = { take: Perm.consistentRead, share: Perm.all };
  const backend = graph.openBackend(node, { name: "r", description: "r", permissions });
  await backend.read(new Uint8Array(1000), 500);
  await graph.closeBackend(backend);
}
