import { copyFileSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../../../src/base/bytes.ts";
import { seededRandom } from "../../../../src/base/random.ts";
import { Graph } from "../../../../src/block/graph.ts";
import { qcow2Driver } from "../../../../src/drivers/format/qcow2/index.ts";
import { crashState } from "../../../crash/states.ts";
import { LogStore, logStoreDriver } from "../log-store.ts";
import {
  chainOptions,
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
const LEAKS = 3;

function expectClean(image: string): void {
  const check = qemuCheck(folder, image);
  expect(check.status, check.text).toBe(0);
}

function fileBytes(image: string): number {
  return statSync(join(folder, image)).size;
}

function makeImage(name: string, options: string, bytes: Uint8Array, packed = false): void {
  writeRaw(folder, "source.raw", bytes);
  const how = [...(packed ? ["-c"] : []), "-f", "raw", "-O", "qcow2", "-o", options];
  qemuImg(folder, "convert", ...how, "source.raw", name);
}

describe.skipIf(!hasQemu)("making a disk smaller", () => {
  it.each([
    ["512 B clusters, over many tables", "cluster_size=512", false],
    ["64-bit refcounts", "cluster_size=512,refcount_bits=64", false],
    ["1-bit refcounts", "cluster_size=4k,refcount_bits=1", false],
    ["64 KiB clusters", "cluster_size=64k", false],
    ["extended L2 entries", "extended_l2=on,cluster_size=16k", false],
    ["version 2", "compat=v2,cluster_size=4k", false],
    ["packed clusters", "cluster_size=8k", true],
  ])(
    "%s: what is left stays, and the file is no longer than QEMU's",
    async (_name, options, packed) => {
      const random = seededRandom(31);
      const start = mixedData(random, 3 * MiB + 1536);
      makeImage("s.qcow2", options, start, packed);
      for (const length of [2 * MiB + 512, 1 * MiB, 70 * KiB, 512, 0]) {
        copyFileSync(join(folder, "s.qcow2"), join(folder, "theirs.qcow2"));
        qemuImg(folder, "resize", "-q", "--shrink", "theirs.qcow2", String(length || 512));
        const disk = await openDisk(await testGraph(), chainOptions(folder, ["s.qcow2"]));
        await disk.backend.truncate(length);
        expect(disk.backend.length).toBe(length);
        expect(firstDifference(await readAll(disk), start.subarray(0, length))).toBe(-1);
        await disk.close();
        expectClean("s.qcow2");
        if (length > 0) {
          expect(firstDifference(qemuRaw(folder, "s.qcow2"), start.subarray(0, length))).toBe(-1);
          expect(fileBytes("s.qcow2")).toBeLessThanOrEqual(fileBytes("theirs.qcow2"));
        }
      }
    },
  );

  it.each([0, 3])(
    "subclusters past the end do not come back, %i before it have data",
    async (kept) => {
      makeImage("sub.qcow2", "extended_l2=on,cluster_size=16k", new Uint8Array(32 * KiB));
      const disk = await openDisk(await testGraph(), chainOptions(folder, ["sub.qcow2"]));
      const expected = new Uint8Array(32 * KiB).fill(1, 16 * KiB, 16 * KiB + kept * 512);
      await disk.backend.write(expected.subarray(16 * KiB, 16 * KiB + kept * 512), 16 * KiB);
      await disk.backend.write(new Uint8Array(4 * KiB).fill(2), 20 * KiB);
      await disk.backend.truncate(18 * KiB);
      await disk.backend.truncate(32 * KiB);
      expect(firstDifference(await readAll(disk), expected)).toBe(-1);
      await disk.close();
      expectClean("sub.qcow2");
      expect(firstDifference(qemuRaw(folder, "sub.qcow2"), expected)).toBe(-1);
    },
  );

  it("the file gives back what lay before its bitmaps", async () => {
    makeImage("bitmaps.qcow2", "cluster_size=64k", new Uint8Array(4 * MiB).fill(5));
    qemuImg(folder, "bitmap", "--add", "bitmaps.qcow2", "b0");
    qemuIo(folder, "bitmaps.qcow2", "write 0 64k");
    const disk = await openDisk(await testGraph(), chainOptions(folder, ["bitmaps.qcow2"]));
    await disk.backend.truncate(MiB);
    await disk.close();
    expectClean("bitmaps.qcow2");
    expect(fileBytes("bitmaps.qcow2")).toBeLessThan(2 * MiB);
  });

  it("a disk that QEMU makes larger again shows nothing of what was cut off", async () => {
    makeImage("again.qcow2", "cluster_size=64k", new Uint8Array(MiB).fill(5));
    const disk = await openDisk(await testGraph(), chainOptions(folder, ["again.qcow2"]));
    await disk.backend.truncate(70 * KiB);
    await disk.close();
    qemuImg(folder, "resize", "-q", "again.qcow2", "1M");
    const bytes = qemuRaw(folder, "again.qcow2");
    expect(bytes.subarray(0, 70 * KiB).every((byte) => byte === 5)).toBe(true);
    expect(bytes.subarray(70 * KiB).every((byte) => byte === 0)).toBe(true);
  });

  it("a snapshot keeps its own length and bytes", async () => {
    makeImage("snap.qcow2", "cluster_size=4k", new Uint8Array(MiB).fill(7));
    qemuImg(folder, "snapshot", "-c", "one", "snap.qcow2");
    qemuIo(folder, "snap.qcow2", "write -P 8 300k 300k");
    const disk = await openDisk(await testGraph(), chainOptions(folder, ["snap.qcow2"]));
    await disk.backend.truncate(333 * KiB);
    await disk.close();
    expectClean("snap.qcow2");
    const left = qemuRaw(folder, "snap.qcow2");
    expect(left.length).toBe(333 * KiB);
    expect([left[299 * KiB], left[300 * KiB]]).toEqual([7, 8]);
    qemuImg(folder, "snapshot", "-a", "one", "snap.qcow2");
    expectClean("snap.qcow2");
    expect(qemuRaw(folder, "snap.qcow2").every((byte) => byte === 7)).toBe(true);
  });

  it("version 2 with a snapshot is refused, whole sectors are asked for", async () => {
    qemuImg(folder, "create", "-q", "-f", "qcow2", "-o", "compat=v2", "v2.qcow2", "1M");
    qemuImg(folder, "snapshot", "-c", "one", "v2.qcow2");
    const disk = await openDisk(await testGraph(), chainOptions(folder, ["v2.qcow2"]));
    await expect(disk.backend.truncate(512 * KiB)).rejects.toMatchObject({ errno: "ENOTSUP" });
    await expect(disk.backend.truncate(1000)).rejects.toMatchObject({ errno: "EINVAL" });
    expect(disk.backend.length).toBe(MiB);
    await disk.close();
    expectClean("v2.qcow2");
  });

  it("a machine's state past the end, as an applied snapshot has it, goes", async () => {
    // Another size in the header: what was the disk's end is past it now.
    makeImage("state.qcow2", "cluster_size=512", new Uint8Array(256 * KiB).fill(9));
    const bytes = new Uint8Array(readFileSync(join(folder, "state.qcow2")));
    bytes.set([0, 0, 0, 0, 0, 0, 0x40, 0], 24);
    writeRaw(folder, "state.qcow2", bytes);
    expectClean("state.qcow2");
    const disk = await openDisk(await testGraph(), chainOptions(folder, ["state.qcow2"]));
    await disk.backend.truncate(MiB);
    const seen = await readAll(disk);
    await disk.close();
    expectClean("state.qcow2");
    expect(seen.subarray(0, 16 * KiB).every((byte) => byte === 9)).toBe(true);
    expect(seen.subarray(16 * KiB).every((byte) => byte === 0)).toBe(true);
  });

  it("persistent bitmaps are cut with it, and a later check finds them whole", async () => {
    makeImage("bits.qcow2", "cluster_size=4k", new Uint8Array(MiB).fill(3));
    qemuImg(folder, "bitmap", "--add", "-g", "512", "bits.qcow2", "b0");
    qemuIo(folder, "bits.qcow2", "write -P 4 100k 1k", "write -P 4 900k 1k");
    const disk = await openDisk(await testGraph(), chainOptions(folder, ["bits.qcow2"]));
    await disk.backend.truncate(512 * KiB);
    await disk.close();
    expectClean("bits.qcow2");
    const info = JSON.parse(qemuImg(folder, "info", "--output=json", "bits.qcow2"));
    const [bitmap] = info["format-specific"].data.bitmaps;
    expect(bitmap).toMatchObject({ name: "b0", granularity: 512, flags: ["auto"] });
  });
});

describe.skipIf(!hasQemu)("a power cut while a disk is made smaller", () => {
  it.each([
    ["cluster_size=512", ""],
    ["cluster_size=4k", "snapshot"],
    ["extended_l2=on,cluster_size=16k", ""],
  ])(
    "leaves the old disk or the new one, and nothing that comes up later: %s %s",
    async (options, extra) => {
      const seed = 77;
      const random = seededRandom(seed);
      const content = new Uint8Array(MiB);
      for (let at = 0; at < MiB; at += 512) content.fill(1 + random.below(255), at, at + 512);
      makeImage("start.qcow2", options, content);
      if (extra) {
        qemuImg(folder, "snapshot", "-c", "one", "start.qcow2");
        qemuIo(folder, "start.qcow2", "write -P 9 500k 100k");
        content.fill(9, 500 * KiB, 600 * KiB);
      }
      const start = new Uint8Array(readFileSync(join(folder, "start.qcow2")));
      const store = new LogStore(start);
      const small = 300 * KiB + 512;
      const disk = await openLogged(store);
      await disk.backend.truncate(small);
      await disk.close();
      for (let i = 0; i < 25; i++) {
        const end = i === 0 ? store.log.length : random.below(store.log.length + 1);
        const where = `seed ${seed}, state ${i}, cut at ${end} of ${store.log.length}`;
        const state = crashState(start, store.log, end, random);
        writeRaw(folder, "crash.qcow2", state);
        const check = qemuCheck(folder, "crash.qcow2");
        expect([0, LEAKS], `${where}: ${check.text}`).toContain(check.status);
        const seen = qemuRaw(folder, "crash.qcow2");
        expect([small, MiB], where).toContain(seen.length);
        expect(firstDifference(seen, content.subarray(0, seen.length)), where).toBe(-1);
        // Whatever was left over does not come up in a disk that grows.
        const after = await openLogged(new LogStore(state));
        await after.backend.truncate(small);
        await after.backend.truncate(2 * MiB);
        const grown = await readAll(after);
        await after.close();
        expect(firstDifference(grown.subarray(0, small), content.subarray(0, small)), where).toBe(
          -1,
        );
        expect(
          grown.subarray(small).every((byte) => byte === 0),
          where,
        ).toBe(true);
      }
    },
  );
});

async function openLogged(store: LogStore): Promise<Disk> {
  const graph = new Graph(await testWorld(), [qcow2Driver(), logStoreDriver(store)] as never);
  return openDisk(graph, { driver: "qcow2", file: { driver: "log-store" }, backing: null });
}
