import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { alignUp, KiB, MiB } from "../../../../src/base/bytes.ts";
import { type Random, seededRandom } from "../../../../src/base/random.ts";
import { Graph } from "../../../../src/block/graph.ts";
import { qcow2Driver } from "../../../../src/drivers/format/qcow2/index.ts";
import { MemoryStore, memoryDriver } from "../../../../src/drivers/protocol/memory.ts";
import { crashState } from "../../../crash/states.ts";
import { LogStore, logStoreDriver } from "../log-store.ts";
import {
  type Disk,
  hasQemu,
  openDisk,
  qemuCheck,
  qemuImg,
  qemuRaw,
  testFolder,
  testWorld,
} from "../rig.ts";

const folder = testFolder();
const LEAKS = 3;

interface Options {
  readonly size: number;
  readonly clusterBytes: number;
  readonly extendedL2?: boolean;
  readonly open?: Record<string, unknown>;
}

/** A new image in memory. */
async function makeDisk(options: Options): Promise<{ store: MemoryStore; disk: Disk }> {
  const stores = new Map([["m", new MemoryStore()]]);
  const store = stores.get("m")!;
  const graph = new Graph(await testWorld(), [qcow2Driver(), memoryDriver(stores)] as never);
  const file = { driver: "memory", name: "m" };
  const raw = await openDisk(graph, { ...file, "node-name": "new" });
  await qcow2Driver().create!({
    world: graph.world,
    file: raw.backend.edge,
    options: {
      size: options.size,
      "cluster-size": options.clusterBytes,
      "extended-l2": options.extendedL2 ?? false,
    },
  });
  await raw.close();
  const disk = await openDisk(graph, { driver: "qcow2", file, backing: null, ...options.open });
  return { store, disk };
}

function bytesOf(store: MemoryStore): Uint8Array {
  const bytes = new Uint8Array(alignUp(store.length, 64 * KiB));
  for (const [page, content] of store.pages) bytes.set(content, page * 64 * KiB);
  return bytes.subarray(0, store.length);
}

function expectClean(store: MemoryStore): void {
  writeFileSync(join(folder, "m.qcow2"), bytesOf(store));
  const { status, text } = qemuCheck(folder, "m.qcow2");
  expect(status, text).toBe(0);
}

/** A guest that keeps files: writes some, deletes some, and flushes now and then. */
class Guest {
  readonly #random: Random;
  readonly #disk: Disk;
  readonly #clusterBytes: number;
  readonly #live = new Set<number>();
  /** Most clusters in use, those among them that a flush has yet to free. */
  peak = 0;
  #freed = 0;

  constructor(random: Random, disk: Disk, clusterBytes: number) {
    this.#random = random;
    this.#disk = disk;
    this.#clusterBytes = clusterBytes;
  }

  async step(most: number): Promise<void> {
    const { backend } = this.#disk;
    const all = backend.length / this.#clusterBytes;
    const first = this.#random.below(all);
    const count = Math.min(all - first, 1 + this.#random.below(24));
    const [offset, bytes] = [first * this.#clusterBytes, count * this.#clusterBytes];
    if (this.#live.size < most && this.#random.below(3) > 0) {
      await backend.write(new Uint8Array(bytes).fill(1 + this.#random.below(255)), offset);
      for (let i = first; i < first + count; i++) this.#live.add(i);
    } else if (this.#random.below(2)) await backend.discard(offset, bytes);
    else await backend.writeZeroes(offset, bytes, { mayUnmap: true });
    for (let i = first; i < first + count; i++) {
      if (this.#live.has(i) && !(await this.#isData(i)) && this.#live.delete(i)) this.#freed++;
    }
    this.peak = Math.max(this.peak, this.#live.size + this.#freed);
    if (this.#random.below(8) > 0) return;
    await backend.flush();
    this.#freed = 0;
  }

  async #isData(index: number): Promise<boolean> {
    const { zero } = await this.#disk.backend.status(index * this.#clusterBytes, 1);
    return !zero;
  }
}

describe.skipIf(!hasQemu)("room that a disk gives up", () => {
  it.each([
    { clusterBytes: 512, size: 1 * MiB, extendedL2: false },
    { clusterBytes: 65536, size: 64 * MiB, extendedL2: false },
    { clusterBytes: 16384, size: 16 * MiB, extendedL2: true },
  ])(
    "is used again: a file grows no longer than its disk was full, with $clusterBytes B clusters",
    async (options) => {
      const { clusterBytes, size } = options;
      const seed = 41;
      const random = seededRandom(seed);
      const { store, disk } = await makeDisk(options);
      const guest = new Guest(random, disk, clusterBytes);
      const most = size / clusterBytes / 4;
      // Tables of a full disk: entries, refcounts, and what lies in front.
      const tables = 8 + Math.ceil(((size / clusterBytes) * 16 * 2) / clusterBytes);
      for (let i = 0; i < 800; i++) {
        await guest.step(most);
        const clusters = Math.ceil(store.length / clusterBytes);
        expect(clusters, `seed ${seed}, step ${i}`).toBeLessThanOrEqual(guest.peak + tables);
      }
      await disk.backend.discard(0, size);
      await disk.backend.flush();
      // Small tables are many, and stay where they were made, up to the end of what was full once.
      if (clusterBytes > 512) expect(store.length / clusterBytes).toBeLessThanOrEqual(tables);
      await disk.close();
      expectClean(store);
      expect(qemuRaw(folder, "m.qcow2").every((byte) => byte === 0)).toBe(true);
    },
  );

  it("goes from the end of the file at the next flush", async () => {
    const { store, disk } = await makeDisk({ size: 64 * MiB, clusterBytes: 65536 });
    await disk.backend.write(new Uint8Array(4 * MiB).fill(1), 0);
    await disk.backend.flush();
    const full = store.length;
    await disk.backend.discard(MiB, 3 * MiB);
    expect(store.length).toBe(full);
    await disk.backend.flush();
    expect(store.length).toBe(full - 3 * MiB);
    await disk.close();
    expectClean(store);
  });

  it("goes with the refcount block that counted it", async () => {
    // One block counts 256 clusters, 128 KiB.
    const { store, disk } = await makeDisk({ size: MiB, clusterBytes: 512 });
    await disk.backend.write(new Uint8Array(512).fill(1), 0);
    await disk.backend.flush();
    const before = store.length;
    await disk.backend.write(new Uint8Array(30 * KiB).fill(2), 512);
    await disk.backend.write(new Uint8Array(MiB - 32 * KiB).fill(3), 32 * KiB);
    await disk.backend.flush();
    expect(store.length).toBeGreaterThan(MiB);
    await disk.backend.discard(512, MiB - 512);
    await disk.backend.flush();
    // L2 tables stay: one for each 32 KiB of the disk, and the space between them.
    expect(store.length).toBeLessThan(before + MiB);
    await disk.backend.truncate(512);
    expect(store.length).toBeLessThanOrEqual(before);
    await disk.close();
    expectClean(store);
  });

  it.each([
    ["in the middle of the file it is discarded there", {}, false],
    ["unless pass-discard-request says no", { "pass-discard-request": false }, true],
  ])("%s", async (_name, open, stays) => {
    const { store, disk } = await makeDisk({ size: 64 * MiB, clusterBytes: 65536, open });
    await disk.backend.write(new Uint8Array(4 * MiB).fill(1), 0);
    await disk.backend.flush();
    const full = store.pages.size;
    await disk.backend.discard(MiB, 2 * MiB);
    await disk.backend.flush();
    expect(store.pages.size).toBe(stays ? full : full - 32);
    await disk.close();
    expectClean(store);
  });

  it("a snapshot's goes with the snapshot", async () => {
    const { store, disk } = await makeDisk({ size: 16 * MiB, clusterBytes: 65536 });
    await disk.backend.write(new Uint8Array(MiB).fill(1), 0);
    await disk.backend.flush();
    const before = store.length;
    const { snapshots } = disk.node.state;
    const { id } = await snapshots!.create("one", { seconds: 1, nanoseconds: 0 });
    await disk.backend.write(new Uint8Array(MiB).fill(2), 0);
    await disk.backend.flush();
    expect(store.length).toBeGreaterThanOrEqual(before + MiB);
    await snapshots!.apply(id);
    await snapshots!.delete(id);
    // All of it could be what the rebuilds had to have at the same time: a table or two.
    expect(store.length).toBeLessThanOrEqual(before + 12 * 65536);
    await disk.close();
    expectClean(store);
  });

  it("is found from the end of a sparse file of 2^52 bytes in no time", async () => {
    const { store, disk } = await makeDisk({ size: MiB, clusterBytes: 512 });
    await disk.backend.write(new Uint8Array(KiB).fill(1), 0);
    await disk.backend.flush();
    const before = store.length;
    store.length = 2 ** 52;
    // What shrinks cuts off what others have put behind it, too: one by one the clusters would take hours.
    await disk.backend.truncate(MiB - 512);
    expect(store.length).toBeLessThanOrEqual(before);
    await disk.close();
    expectClean(store);
  });

  it("that cannot be cut off is no failure of what was asked for", async () => {
    const { store: made, disk: first } = await makeDisk({ size: MiB, clusterBytes: 512 });
    await first.backend.write(new Uint8Array(256 * KiB).fill(1), 0);
    await first.backend.flush();
    await first.node.state.snapshots!.create("one", { seconds: 1, nanoseconds: 0 });
    await first.backend.write(new Uint8Array(512 * KiB).fill(2), 0);
    // Its tables come last now, and go with the next one.
    await first.node.state.snapshots!.apply("1");
    await first.backend.write(new Uint8Array(512).fill(2), 0);
    await first.close();
    const start = bytesOf(made);
    const apply = async (store: LogStore, failAt: number) => {
      const graph = new Graph(await testWorld(), [qcow2Driver(), logStoreDriver(store)] as never);
      const file = { driver: "log-store" };
      const disk = await openDisk(graph, { driver: "qcow2", file, backing: null });
      store.failAt = failAt;
      const failed = await disk.node.state.snapshots!.apply("1").then(
        () => false,
        () => true,
      );
      const byte = new Uint8Array(1);
      await disk.backend.read(byte, 0);
      const { changes } = store;
      await disk.close();
      return { failed, byte: byte[0], changes };
    };
    const { changes } = await apply(new LogStore(start), 0);
    let cuts = 0;
    for (let step = changes; step > Math.max(0, changes - 40); step--) {
      const store = new LogStore(start);
      const { failed, byte } = await apply(store, step);
      expect(byte, `a failure at change ${step}`).toBe(failed ? 2 : 1);
      if (!failed) cuts++;
      writeFileSync(join(folder, "m.qcow2"), store.bytes);
      const { status, text } = qemuCheck(folder, "m.qcow2");
      expect([0, LEAKS], text).toContain(status);
    }
    expect(cuts).toBeGreaterThan(3);
    expect(cuts).toBeLessThan(40);
  });

  it("keeps its place in the file with discard-no-unref", async () => {
    const open = { "discard-no-unref": true };
    const { store, disk } = await makeDisk({ size: 16 * MiB, clusterBytes: 65536, open });
    await disk.backend.write(new Uint8Array(MiB).fill(1), 0);
    await disk.backend.flush();
    const before = store.length;
    await disk.backend.discard(0, MiB);
    await disk.close();
    expect(store.length).toBe(before);
    expectClean(store);
    const [entry] = JSON.parse(qemuImg(folder, "map", "--output=json", "m.qcow2"));
    expect(entry).toMatchObject({ start: 0, length: MiB, zero: true, offset: 327680 });
  });
});

describe.skipIf(!hasQemu)("a refcount block that counts nothing any more", () => {
  it("is not begun anew while the file may still lead to it", async () => {
    const seed = 7;
    const random = seededRandom(seed);
    const bytes = 320 * KiB;
    const { store: made, disk: maker } = await makeDisk({ size: bytes, clusterBytes: 512 });
    // The L2 tables come first, so that the last refcount blocks count data alone.
    for (let at = 0; at < bytes; at += 32 * KiB) {
      await maker.backend.write(new Uint8Array(512).fill(1), at);
    }
    await maker.backend.write(new Uint8Array(bytes).fill(1), 0);
    await maker.close();
    const start = bytesOf(made).slice();
    let cuts = 0;
    for (let failAt = 1, failed = true; failed; failAt++) {
      const store = new LogStore(start);
      const graph = new Graph(await testWorld(), [qcow2Driver(), logStoreDriver(store)] as never);
      const file = { driver: "log-store" };
      const disk = await openDisk(graph, { driver: "qcow2", file, backing: null });
      await disk.backend.discard(0, bytes);
      store.failAt = store.changes + failAt;
      await disk.backend.flush().catch(() => {});
      failed = store.changes >= store.failAt;
      cuts += store.bytes.length < start.length ? 1 : 0;
      const first = store.log.length;
      store.failAt = 0;
      await disk.backend.write(new Uint8Array(bytes).fill(2), 0);
      const last = store.log.length;
      await disk.close();
      for (let end = last; end >= first; end -= 1 + random.below(16)) {
        writeFileSync(join(folder, "m.qcow2"), crashState(start, store.log, end, random));
        const { status, text } = qemuCheck(folder, "m.qcow2");
        const told = text.slice(-400);
        expect([0, LEAKS], `seed ${seed}, failed at ${failAt}: ${told}`).toContain(status);
      }
    }
    expect(cuts).toBeGreaterThan(0);
  });
});
