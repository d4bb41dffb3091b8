import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../../../src/base/bytes.ts";
import { seededRandom } from "../../../../src/base/random.ts";
import { breakpoint, removeBreak, waitBreak } from "../../../../src/block/debug.ts";
import { Graph } from "../../../../src/block/graph.ts";
import { blkdebug } from "../../../../src/drivers/filter/blkdebug.ts";
import { qcow2Driver } from "../../../../src/drivers/format/qcow2/index.ts";
import { LogStore, logStoreDriver } from "../log-store.ts";
import { type Disk, hasQemu, openDisk, qemuImg, qemuIo, testFolder, testWorld } from "../rig.ts";

const folder = testFolder();
const SEED = 31;
const DISK_BYTES = 64 * MiB;
const WRITE_BYTES = 4 * KiB;

async function open(options: string, ...prepare: (() => void)[]): Promise<[Disk, LogStore]> {
  qemuImg(folder, "create", "-q", "-f", "qcow2", "-o", options, "f.qcow2", `${DISK_BYTES}`);
  for (const step of prepare) step();
  const store = new LogStore(new Uint8Array(readFileSync(join(folder, "f.qcow2"))));
  const graph = new Graph(await testWorld(), [qcow2Driver(), logStoreDriver(store)] as never);
  const file = { driver: "log-store" };
  return [await openDisk(graph, { driver: "qcow2", file, backing: null }), store];
}

/** All of the first half is there, and a snapshot has it too. */
function overSnapshot(): void {
  qemuIo(folder, "f.qcow2", "write -P 1 0 32M");
  qemuImg(folder, "snapshot", "-c", "kept", "f.qcow2");
}

const flushesOf = ({ log }: LogStore) => log.filter(({ kind }) => kind === "flush").length;

async function writeAtRandom(disk: Disk, count: number, seed: number): Promise<void> {
  const random = seededRandom(seed);
  const data = new Uint8Array(WRITE_BYTES).fill(9);
  const places = Array.from(
    { length: count },
    () => WRITE_BYTES * random.below(DISK_BYTES / WRITE_BYTES),
  );
  await Promise.all(places.map((place) => disk.backend.write(data, place)));
}

describe.skipIf(!hasQemu)("store flushes of a guest's flush", () => {
  it.each([
    ["new clusters", "cluster_size=64k", []],
    ["clusters that a snapshot has too", "cluster_size=64k", [overSnapshot]],
    ["small clusters that a snapshot has too", "cluster_size=4k", [overSnapshot]],
    ["subclusters", "cluster_size=64k,extended_l2=on", [overSnapshot]],
  ])("are two, whatever the number of writes: %s", async (_what, options, prepare) => {
    const [disk, store] = await open(options, ...prepare);
    // What is rare comes first: the place where refcount blocks end, and what a first change marks.
    await writeAtRandom(disk, 1, SEED);
    await disk.backend.flush();
    const seen: number[] = [];
    for (const [round, count] of [1, 10, 100, 500].entries()) {
      const before = flushesOf(store);
      await writeAtRandom(disk, count, SEED + 1 + round);
      expect(flushesOf(store) - before, `seed ${SEED}, writes alone`).toBe(0);
      await disk.backend.flush();
      seen.push(flushesOf(store) - before);
    }
    expect(Math.max(...seen), `seed ${SEED}`).toBeLessThanOrEqual(2);
    await disk.close();
  });

  it("are one where nothing new becomes reachable", async () => {
    const [disk, store] = await open("cluster_size=64k", () =>
      qemuIo(folder, "f.qcow2", "write -P 1 0 64M"),
    );
    for (let i = 0; i < 5; i++) {
      const before = flushesOf(store);
      await writeAtRandom(disk, 100, SEED + i);
      await disk.backend.flush();
      expect(flushesOf(store) - before).toBe(1);
    }
    await disk.close();
  });

  it("are one more for each time that new refcount blocks are needed", async () => {
    // 512 B clusters: a block counts 256 of them, 128 KiB.
    const [disk, store] = await open("cluster_size=512");
    await writeAtRandom(disk, 1, SEED);
    await disk.backend.flush();
    let most = 0;
    for (let i = 0; i < 20; i++) {
      const before = flushesOf(store);
      await writeAtRandom(disk, 40, SEED + i);
      await disk.backend.flush();
      most = Math.max(most, flushesOf(store) - before);
    }
    expect(most, `seed ${SEED}`).toBe(3);
    await disk.close();
  });
});

describe.skipIf(!hasQemu)("a flush of much that was written", () => {
  it("does not keep others from new clusters while the store writes it", async () => {
    qemuImg(folder, "create", "-q", "-f", "qcow2", "much.qcow2", `${DISK_BYTES}`);
    const store = new LogStore(new Uint8Array(readFileSync(join(folder, "much.qcow2"))));
    const drivers = [qcow2Driver(), blkdebug, logStoreDriver(store)];
    const graph = new Graph(await testWorld(), drivers as never);
    const file = { driver: "blkdebug", image: { driver: "log-store" } };
    const disk = await openDisk(graph, { driver: "qcow2", file, backing: null });
    await disk.backend.write(new Uint8Array(32 * MiB).fill(1), 0);
    breakpoint(disk.node, "flush_to_disk", "slow");
    const flush = disk.backend.flush();
    await waitBreak(disk.node, "slow");
    await disk.backend.write(new Uint8Array(MiB).fill(2), 40 * MiB);
    removeBreak(disk.node, "slow");
    await flush;
    await disk.close();
  });
});
