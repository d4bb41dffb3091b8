import { statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../../../src/base/bytes.ts";
import { seededRandom } from "../../../../src/base/random.ts";
import { Graph } from "../../../../src/block/graph.ts";
import { create } from "../../../../src/drivers/format/qcow2/create.ts";
import { qcow2Driver } from "../../../../src/drivers/format/qcow2/index.ts";
import { nodeZlib } from "../../../../src/engine/node-zlib.ts";
import { LogStore, logStoreDriver } from "../log-store.ts";
import { pattern } from "../model.ts";
import {
  chainOptions,
  createImage,
  type Disk,
  firstDifference,
  hasQemu,
  mixedData,
  openDisk,
  qemuCheck,
  qemuImg,
  qemuIo,
  qemuRaw,
  readAll,
  testFolder,
  testGraph,
  testWorld,
  writeRaw,
} from "../rig.ts";

const folder = testFolder();
const SEED = 77;

async function writePacked(disk: Disk, data: Uint8Array, clusterBytes: number): Promise<void> {
  for (let at = 0; at < data.length; at += clusterBytes) {
    await disk.backend.writeCompressed(data.subarray(at, at + clusterBytes), at);
  }
}

describe.skipIf(!hasQemu)("whole disks of packed clusters", () => {
  const sizes = [512, 4 * KiB, 64 * KiB, 2 * MiB];
  const packers = [
    { packer: "pako", packing: "zlib", host: undefined },
    { packer: "Node's zlib", packing: "zlib", host: nodeZlib },
    { packer: "zstd", packing: "zstd", host: undefined },
  ] as const;
  const cases = packers.flatMap((packer) =>
    sizes.map((clusterBytes) => ({ ...packer, clusterBytes })),
  );

  it.each(cases)(
    "$packer, clusters of $clusterBytes: QEMU reads them, and we read QEMU's",
    async ({ packing, clusterBytes, host }) => {
      const where = `seed ${SEED}`;
      const length = clusterBytes === 512 ? 60 * KiB : 3 * MiB + 512;
      const data = mixedData(seededRandom(SEED), length);
      await createImage(folder, "c.qcow2", {
        size: length,
        "cluster-size": clusterBytes,
        "compression-type": packing,
      });
      let disk = await openDisk(await testGraph(host), chainOptions(folder, ["c.qcow2"]));
      await writePacked(disk, data, clusterBytes);
      expect(firstDifference(await readAll(disk), data), where).toBe(-1);
      await disk.close();
      const check = qemuCheck(folder, "c.qcow2");
      expect(check.status, check.text).toBe(0);
      expect(firstDifference(qemuRaw(folder, "c.qcow2"), data), where).toBe(-1);

      writeRaw(folder, "data.raw", data);
      const options = `compression_type=${packing},cluster_size=${clusterBytes}`;
      qemuImg(folder, "convert", "-c", "-O", "qcow2", "-o", options, "data.raw", "q.qcow2");
      disk = await openDisk(await testGraph(host), chainOptions(folder, ["q.qcow2"]));
      expect(firstDifference(await readAll(disk, 700), data), where).toBe(-1);
      // QEMU's packed clusters are rewritten, packed by us and not, and ours by QEMU.
      await disk.backend.writeCompressed(data.subarray(0, clusterBytes), 0);
      await disk.backend.write(data.subarray(clusterBytes, clusterBytes + 700), clusterBytes);
      await disk.close();
      qemuIo(folder, "q.qcow2", `write -P 9 0 ${clusterBytes - 12}`);
      data.fill(9, 0, clusterBytes - 12);
      expect(qemuCheck(folder, "q.qcow2").status).toBe(0);
      expect(firstDifference(qemuRaw(folder, "q.qcow2"), data), where).toBe(-1);
    },
  );

  it.each(packers)(
    "$packer: data lies as close together as in QEMU's",
    async ({ packing, host }) => {
      const data = mixedData(seededRandom(SEED), 4 * MiB);
      writeRaw(folder, "data.raw", data);
      qemuImg(
        folder,
        ...["convert", "-c", "-O", "qcow2", "-S", "0", "-o", `compression_type=${packing}`],
        ...["data.raw", "q.qcow2"],
      );
      await createImage(folder, "c.qcow2", { size: data.length, "compression-type": packing });
      const disk = await openDisk(await testGraph(host), chainOptions(folder, ["c.qcow2"]));
      await writePacked(disk, data, 64 * KiB);
      await disk.close();
      const ours = statSync(join(folder, "c.qcow2")).size;
      const theirs = statSync(join(folder, "q.qcow2")).size;
      expect(ours).toBeLessThan(theirs + 2 * 64 * KiB);
    },
  );
});

describe("packed clusters of one disk", () => {
  const CLUSTER = 64 * KiB;

  /** `reads` are the places in the file that were read. */
  async function packedDisk(): Promise<{ disk: Disk; store: LogStore; reads: number[] }> {
    const store = new LogStore(new Uint8Array(0));
    const driver = logStoreDriver(store);
    const reads: number[] = [];
    const counting = {
      ...driver,
      open: async (context: never) => {
        const state = await driver.open(context);
        const pread = state.pread!.bind(state);
        return {
          ...state,
          pread: (buf: Uint8Array, offset: number) => {
            reads.push(offset);
            return pread(buf, offset, {});
          },
        };
      },
    };
    const world = { ...(await testWorld()), zlib: nodeZlib };
    const graph = new Graph(world, [qcow2Driver(), counting] as never);
    const file = await openDisk(graph, { driver: "log-store", "node-name": "file" });
    await create({ world, file: file.backend.edge, options: { size: 4 * MiB } });
    await file.close();
    const file2 = { driver: "log-store" };
    const disk = await openDisk(graph, { driver: "qcow2", file: file2, backing: null });
    return { disk, store, reads };
  }

  it("are packed side by side, and lie in the file in the order in which they came", async () => {
    const { disk, reads } = await packedDisk();
    const random = seededRandom(SEED);
    const data = new Uint8Array(32 * CLUSTER);
    // Some take far longer to pack than others.
    for (let at = 0; at < data.length; at += CLUSTER) {
      data.set(pattern(CLUSTER, at), at);
      random.fill(data.subarray(at, at + (random.below(4) * CLUSTER) / 4));
    }
    const clusters = Array.from({ length: 32 }, (_, i) => i * CLUSTER);
    await Promise.all(
      clusters.map((at) => disk.backend.writeCompressed(data.subarray(at, at + CLUSTER), at)),
    );
    await disk.backend.flush();
    const before = reads.length;
    expect(firstDifference(await readAll(disk, CLUSTER), data), `seed ${SEED}`).toBe(-1);
    const places = reads.slice(before);
    expect(places.length).toBeGreaterThanOrEqual(32);
    expect(places).toEqual([...places].sort((a, b) => a - b));
    await disk.close();
  });

  it("are unpacked once by small reads, also when they come at the same time", async () => {
    const { disk, reads } = await packedDisk();
    const data = pattern(CLUSTER, 4);
    await disk.backend.writeCompressed(data, 0);
    const before = reads.length;
    const pieces = Array.from({ length: 16 }, () => new Uint8Array(4 * KiB));
    await Promise.all(pieces.map((piece, i) => disk.backend.read(piece, i * 4 * KiB)));
    for (const [i, piece] of pieces.entries()) await disk.backend.read(piece, i * 4 * KiB);
    expect(reads.length - before).toBe(1);
    expect(firstDifference(Buffer.concat(pieces), data)).toBe(-1);
    await disk.close();
  });

  it("show what is written where they have been read, packed into the same place again", async () => {
    const { disk, store } = await packedDisk();
    const random = seededRandom(SEED);
    const model = new Uint8Array(8 * CLUSTER);
    for (let round = 0; round < 120; round++) {
      const at = random.below(8) * CLUSTER;
      // A third of it is noise: so that places are used up, given back, and used again.
      const data = pattern(CLUSTER, 2 * random.below(1000));
      random.fill(data.subarray(0, 20 * KiB));
      if (random.below(4) > 0) await disk.backend.writeCompressed(data, at);
      else await disk.backend.write(data, at);
      model.set(data, at);
      if (random.below(3) === 0) await disk.backend.flush();
      for (let i = 0; i < 3; i++) {
        const piece = new Uint8Array(512);
        const from = random.below(8 * 128) * 512;
        await disk.backend.read(piece, from);
        const wanted = model.subarray(from, from + 512);
        expect(firstDifference(piece, wanted), `seed ${SEED}, round ${round}`).toBe(-1);
      }
    }
    // Clusters were used again, or the places would never have been the same.
    expect(store.bytes.length).toBeLessThan(3 * MiB);
    await disk.close();
  });
});
