import { describe, expect, it } from "vitest";
import { seededRandom } from "../../src/base/random.ts";
import { settleAll } from "../../src/base/settle.ts";
import type { BlockBackend } from "../../src/block/backend.ts";
import type { BlockDriver } from "../../src/block/driver.ts";
import { Graph } from "../../src/block/graph.ts";
import { Perm } from "../../src/block/permissions.ts";
import { chainStatus } from "../../src/block/status.ts";
import { copyOnRead } from "../../src/drivers/filter/copy-on-read.ts";
import { memoryDriver } from "../../src/drivers/protocol/memory.ts";
import { faultyDriver } from "../blockjob/faulty.ts";
import { testWorld } from "../world.ts";
import { tinyFormat } from "./tiny-format.ts";

describe("block I/O", () => {
  it("reads what was written, zeroes elsewhere, and the backing file through the holes", async () => {
    const { disk, layer } = await chain([
      [1000, 64, "base"],
      [1000, 128, "top"],
    ]);
    await layer("base").write(filled(1000, 0xbb), 0);
    await disk.write(filled(10, 0x11), 123);
    expect(await bytes(disk, 120, 16)).toEqual([
      ...Array(3).fill(0xbb),
      ...Array(10).fill(0x11),
      ...Array(3).fill(0xbb),
    ]);
  });

  it("reads zeroes past the end of a shorter backing file", async () => {
    const { disk, layer } = await chain([
      [100, 64, "base"],
      [1000, 128, "top"],
    ]);
    await layer("base").write(filled(100, 0xbb), 0);
    expect(await bytes(disk, 98, 4)).toEqual([0xbb, 0xbb, 0, 0]);
    await disk.write(filled(1, 0x11), 127);
    expect(await bytes(disk, 98, 4)).toEqual([0xbb, 0xbb, 0, 0]);
  });

  it("tells of a failed run only when all others are over, and only once", async () => {
    // An unhandled rejection in between, which stops an engine, would fail this run of tests.
    const faulty = faultyDriver("faulty");
    const { graph, layer } = await chain(
      [
        [1000, 64, "base"],
        [1000, 128, "top"],
      ],
      faulty,
    );
    await layer("base").write(filled(1000, 0xbb), 0);
    faulty.fault = { op: "read", errno: "EIO", offset: 0 };
    const buf = new Uint8Array(1000);
    await expect(layer("top").read(buf, 0)).rejects.toMatchObject({ errno: "EIO" });
    expect(graph.get("base").isIdle).toBe(true);
  });

  it("refuses to write past the end, and on a read-only node, by name", async () => {
    const { disk, graph } = await chain([[1000, 64, "top"]]);
    await expect(disk.write(filled(2, 1), 999)).rejects.toMatchObject({ errno: "EINVAL" });
    await expect(disk.read(new Uint8Array(2), 999)).rejects.toMatchObject({ errno: "EINVAL" });
    const node = await graph.add({
      driver: "memory",
      "node-name": "ro",
      "read-only": true,
      size: 9,
    });
    expect(() =>
      graph.openBackend(node, {
        name: "vdb",
        description: "device 'vdb'",
        permissions: { take: Perm.write, share: Perm.all },
      }),
    ).toThrow("read-only");
  });

  it("copies up whole clusters, once, and leaves the layers below alone", async () => {
    const { disk, layer, graph } = await chain([
      [1000, 64, "base"],
      [1000, 256, "top"],
    ]);
    await layer("base").write(filled(1000, 0xbb), 0);
    await disk.copyUp(300, 1);
    const top = graph.get("top");
    const run = await chainStatus(top, null, 256, 744);
    expect(run).toMatchObject({ node: top, bytes: 256 });
    expect(await chainStatus(top, null, 0, 256)).toMatchObject({ node: graph.get("base") });
    expect(await bytes(disk, 0, 1000)).toEqual(Array(1000).fill(0xbb));
  });

  it("copies zeroes up as zero clusters, not as data", async () => {
    const { disk, layer, graph } = await chain([
      [4096, 512, "base"],
      [4096, 1024, "top"],
    ]);
    await layer("base").write(filled(2048, 0), 0);
    await disk.copyUp(0, 4096);
    const run = await chainStatus(graph.get("top"), null, 0, 1024);
    expect(run).toMatchObject({ node: graph.get("top"), zero: true });
  });

  it("lets a layer that ends early hide what is below it, with zeroes", async () => {
    const { disk, layer, graph } = await chain([
      [1000, 64, "base"],
      [500, 64, "mid"],
      [1000, 64, "top"],
    ]);
    await layer("base").write(filled(1000, 0xbb), 0);
    const [top, mid, base] = ["top", "mid", "base"].map((name) => graph.get(name));
    const run = await chainStatus(top!, base!, 600, 100);
    expect(run).toMatchObject({ node: mid, zero: true, bytes: 40 });
    await disk.copyUp(0, 1000);
    expect(await bytes(disk, 498, 4)).toEqual([0xbb, 0xbb, 0, 0]);
    expect(await chainStatus(top!, null, 640, 64)).toMatchObject({ node: top, zero: true });
  });

  it("loses no write of a guest to a copy that is under way (seeded)", async () => {
    for (let seed = 1; seed <= 12; seed++) {
      const random = seededRandom(seed);
      const size = 3000;
      const { disk, layer } = await chain([
        [2000, 64, "base"],
        [2500, 32, "mid"],
        [size, 128, "top"],
      ]);
      const model = new Uint8Array(size);
      const base = randomBytes(random, 2000);
      await layer("base").write(base, 0);
      model.set(base);
      const mid = randomBytes(random, 700);
      await layer("mid").write(mid, 300);
      model.fill(0, 2000);
      model.set(mid, 300);

      const copying = (async () => {
        for (let at = 0; at < size; at += 100) await disk.copyUp(at, Math.min(100, size - at));
      })();
      const guest = (async () => {
        for (let i = 0; i < 60; i++) {
          const offset = random.below(size);
          const length = 1 + random.below(Math.min(300, size - offset));
          if (random.below(4) === 0) {
            model.fill(0, offset, offset + length);
            await disk.writeZeroes(offset, length);
          } else if (random.below(3) === 0) {
            const seen = await bytes(disk, offset, length);
            expect(seen, `seed ${seed}`).toEqual([...model.subarray(offset, offset + length)]);
          } else {
            const data = randomBytes(random, length);
            model.set(data, offset);
            await disk.write(data, offset);
          }
        }
      })();
      await settleAll([copying, guest]);
      expect(await bytes(disk, 0, size), `seed ${seed}`).toEqual([...model]);
    }
  });

  it("keeps overlapping writes whole: each byte is of the last writer (seeded)", async () => {
    for (let seed = 1; seed <= 10; seed++) {
      const random = seededRandom(seed);
      const { disk } = await chain([[1024, 64, "top"]]);
      const writes = Array.from({ length: 20 }, (_, i) => {
        const offset = random.below(900);
        return disk.write(filled(1 + random.below(120), i + 1), offset);
      });
      await settleAll(writes);
      const seen = await bytes(disk, 0, 1024);
      const again = await bytes(disk, 0, 1024);
      expect(seen, `seed ${seed}`).toEqual(again);
      expect(seen.some((byte) => byte !== 0)).toBe(true);
    }
  });

  it("makes a read through a copy-on-read filter local, down to `bottom`", async () => {
    const { graph, layer } = await chain([
      [1000, 64, "base"],
      [1000, 64, "mid"],
      [1000, 64, "top"],
    ]);
    await layer("base").write(filled(1000, 0xbb), 0);
    await layer("mid").write(filled(64, 0xcc), 64);
    const top = graph.get("top");
    await graph.insertFilter({ driver: "copy-on-read", "node-name": "cor", bottom: "mid" }, top);
    const device = graph.openBackend(graph.get("cor"), {
      name: "cor0",
      description: "device 'cor0'",
      permissions: { take: Perm.consistentRead, share: Perm.all },
    });
    expect(await bytes(device, 0, 192)).toEqual([
      ...Array(64).fill(0xbb),
      ...Array(64).fill(0xcc),
      ...Array(64).fill(0xbb),
    ]);
    expect(await chainStatus(top, null, 64, 64)).toMatchObject({ node: top });
    expect(await chainStatus(top, null, 0, 64)).toMatchObject({ node: graph.get("base") });
  });
});

/** A chain of tiny images, base first: [size, cluster size, node name]. `disk` is the top's device. */
async function chain(
  layers: [size: number, clusterSize: number, name: string][],
  store: BlockDriver = memoryDriver() as BlockDriver,
) {
  const world = await testWorld();
  const graph = new Graph(world, [memoryDriver(), store, tinyFormat, copyOnRead]);
  const devices = new Map<string, BlockBackend>();
  let below: string | null = null;
  for (const [size, clusterSize, name] of layers) {
    const node = await graph.add({
      driver: "tiny",
      "node-name": name,
      file: { driver: store.name, size: 0 },
      size,
      "cluster-size": clusterSize,
      ...(below !== null && { backing: below }),
    });
    const device = graph.openBackend(node, {
      name: `${name}-device`,
      description: `device '${name}-device'`,
      permissions: { take: Perm.consistentRead | Perm.write, share: Perm.all },
    });
    devices.set(name, device);
    below = name;
  }
  const layer = (name: string) => devices.get(name)!;
  return { graph, layer, disk: layer(layers.at(-1)![2]) };
}

function filled(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

function randomBytes(random: ReturnType<typeof seededRandom>, length: number): Uint8Array {
  const buf = new Uint8Array(length);
  random.fill(buf);
  return buf;
}

async function bytes(disk: BlockBackend, offset: number, length: number): Promise<number[]> {
  const buf = new Uint8Array(length).fill(0xee);
  await disk.read(buf, offset);
  return [...buf];
}
