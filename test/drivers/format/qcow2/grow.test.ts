import { readFileSync, statSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { GiB, KiB, MiB, readU64 } from "../../../../src/base/bytes.ts";
import { seededRandom } from "../../../../src/base/random.ts";
import { Graph } from "../../../../src/block/graph.ts";
import { qcow2Driver } from "../../../../src/drivers/format/qcow2/index.ts";
import { rawDriver } from "../../../../src/drivers/format/raw.ts";
import { fileDriver } from "../../../../src/drivers/protocol/file.ts";
import { LogStore, logStoreDriver } from "../log-store.ts";
import { Model, perform, randomChange } from "../model.ts";
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

function expectClean(image: string): void {
  const check = qemuCheck(folder, image);
  expect(check.status, check.text).toBe(0);
}

describe.skipIf(!hasQemu)("growing a disk", () => {
  it.each([
    ["512 B clusters, over many refcount blocks and tables", "cluster_size=512"],
    ["64-bit refcounts", "cluster_size=512,refcount_bits=64"],
    ["4 KiB clusters", "cluster_size=4k"],
    ["extended L2 entries", "extended_l2=on,cluster_size=16k"],
    ["version 2", "compat=v2"],
    ["packed clusters", "cluster_size=8k"],
  ])("%s: new bytes are zeroes, old ones stay", async (name, options) => {
    const random = seededRandom(21);
    const start = 1 * MiB + 1536;
    writeRaw(folder, "g.raw", mixedData(random, start));
    const packed = name.startsWith("packed") ? ["-c"] : [];
    qemuImg(
      folder,
      "convert",
      ...packed,
      "-f",
      "raw",
      "-O",
      "qcow2",
      "-o",
      options,
      "g.raw",
      "g.qcow2",
    );
    const model = new Model(qemuRaw(folder, "g.qcow2"));
    for (const length of [start + 512, 2 * MiB + 512, 24 * MiB]) {
      const disk = await openDisk(await testGraph(), chainOptions(folder, ["g.qcow2"]));
      await disk.backend.truncate(length);
      const longer = new Uint8Array(length);
      longer.set(model.bytes);
      model.bytes = longer;
      model.anything = new Uint8Array(length);
      expect(disk.backend.length).toBe(length);
      expect(firstDifference(await readAll(disk), model.bytes)).toBe(-1);
      for (let i = 0; i < 15; i++) {
        const change = randomChange(random, { length, clusterBytes: 512 });
        await perform(disk.backend, change);
        model.apply(change);
      }
      model.settle(await readAll(disk));
      await disk.close();
      expectClean("g.qcow2");
      expect(firstDifference(qemuRaw(folder, "g.qcow2"), model.bytes)).toBe(-1);
    }
  });

  it("what lay behind the disk's end in its last cluster does not come up", async () => {
    qemuImg(folder, "create", "-q", "-f", "qcow2", "t.qcow2", "100k");
    qemuIo(folder, "t.qcow2", "write -P 5 0 100k");
    qemuImg(folder, "resize", "-q", "--shrink", "t.qcow2", "70k");
    const disk = await openDisk(await testGraph(), chainOptions(folder, ["t.qcow2"]));
    await disk.backend.truncate(200 * KiB);
    const bytes = await readAll(disk);
    expect(bytes.subarray(0, 70 * KiB).every((byte) => byte === 5)).toBe(true);
    expect(bytes.subarray(70 * KiB).every((byte) => byte === 0)).toBe(true);
    await disk.close();
    expectClean("t.qcow2");
    expect(firstDifference(qemuRaw(folder, "t.qcow2"), bytes)).toBe(-1);
  });

  it.each([
    ["standard entries", "cluster_size=64k"],
    ["extended entries", "extended_l2=on,cluster_size=64k"],
  ])("a longer backing file does not show in the new bytes: %s", async (_name, options) => {
    writeRaw(folder, "long.raw", new Uint8Array(3 * MiB).fill(9));
    qemuImg(
      folder,
      "create",
      "-q",
      "-f",
      "qcow2",
      "-o",
      options,
      "-b",
      "long.raw",
      "-F",
      "raw",
      "o.qcow2",
      "1000k",
    );
    const disk = await openDisk(await testGraph(), chainOptions(folder, ["o.qcow2", "long.raw"]));
    await disk.backend.write(new Uint8Array(512).fill(4), 999 * KiB);
    await disk.backend.truncate(4 * MiB);
    const bytes = await readAll(disk);
    expect(bytes.subarray(0, 999 * KiB).every((byte) => byte === 9)).toBe(true);
    expect(bytes.subarray(1000 * KiB).every((byte) => byte === 0)).toBe(true);
    await disk.close();
    expectClean("o.qcow2");
    expect(firstDifference(qemuRaw(folder, "o.qcow2"), bytes)).toBe(-1);
  });

  it("a snapshot keeps its own length and bytes", async () => {
    qemuImg(folder, "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "s.qcow2", "300k");
    qemuIo(folder, "s.qcow2", "write -P 5 0 300k");
    qemuImg(folder, "snapshot", "-c", "one", "s.qcow2");
    const disk = await openDisk(await testGraph(), chainOptions(folder, ["s.qcow2"]));
    await disk.backend.truncate(30 * MiB);
    await disk.backend.write(new Uint8Array(1 * MiB).fill(6), 100 * KiB);
    await disk.close();
    expectClean("s.qcow2");
    qemuImg(folder, "snapshot", "-a", "one", "s.qcow2");
    const kept = qemuRaw(folder, "s.qcow2");
    expect(kept.length).toBe(300 * KiB);
    expect(kept.every((byte) => byte === 5)).toBe(true);
  });

  it("odd sizes and disks that are too large are refused", async () => {
    await createImage(folder, "r.qcow2", { size: MiB, "cluster-size": 512 });
    const disk = await openDisk(await testGraph(), chainOptions(folder, ["r.qcow2"]));
    await expect(disk.backend.truncate(MiB + 1)).rejects.toMatchObject({ errno: "EINVAL" });
    await expect(disk.backend.truncate(200 * GiB)).rejects.toMatchObject({ errno: "EFBIG" });
    await disk.close();
    expectClean("r.qcow2");
  });
});

describe.skipIf(!hasQemu)("another backing file", () => {
  it.each(["cluster_size=512", "", "compat=v2", "extended_l2=on,compression_type=zstd"])(
    "is recorded, and nothing else changes: %s",
    async (options) => {
      writeRaw(folder, "b.raw", mixedData(seededRandom(5), MiB));
      const more = options ? ["-o", options] : [];
      qemuImg(
        folder,
        "create",
        "-q",
        "-f",
        "qcow2",
        ...more,
        "-b",
        "b.raw",
        "-F",
        "raw",
        "c.qcow2",
      );
      qemuImg(folder, "convert", "-f", "raw", "-O", "qcow2", "b.raw", "b.qcow2");
      const before = qemuRaw(folder, "c.qcow2");
      for (const [name, format] of [
        ["b.qcow2", "qcow2"],
        ["./././b.raw", "raw"],
        [null, null],
        ["b.raw", "raw"],
      ] as const) {
        const disk = await openDisk(await testGraph(), chainOptions(folder, ["c.qcow2", "b.raw"]));
        await disk.node.state.changeBackingFile!(name, format);
        expect(disk.node.state.info!()["backing-filename"]).toBe(name ?? undefined);
        await disk.close();
        expectClean("c.qcow2");
        const info = JSON.parse(qemuImg(folder, "info", "--output=json", "c.qcow2"));
        expect(info["backing-filename"]).toBe(name ?? undefined);
        expect(info["backing-filename-format"]).toBe(format ?? undefined);
        if (name) expect(firstDifference(qemuRaw(folder, "c.qcow2"), before)).toBe(-1);
      }
    },
  );

  it("a name that does not fit is refused, and the image stays as it was", async () => {
    await createImage(folder, "n.qcow2", { size: MiB, "cluster-size": 512 });
    const path = join(folder, "n.qcow2");
    const before = readFileSync(path);
    const disk = await openDisk(await testGraph(), chainOptions(folder, ["n.qcow2"]));
    await expect(disk.node.state.changeBackingFile!("n".repeat(700), null)).rejects.toMatchObject({
      errno: "EINVAL",
    });
    await disk.close();
    expect(Buffer.compare(readFileSync(path), before)).toBe(0);
  });
});

describe.skipIf(!hasQemu)("files that were cut off", () => {
  it("at every sampled length: an error, at opening or at reading what is missing", async () => {
    const random = seededRandom(9);
    writeRaw(folder, "x.raw", mixedData(random, 300 * KiB));
    qemuImg(
      folder,
      "convert",
      "-f",
      "raw",
      "-O",
      "qcow2",
      "-o",
      "cluster_size=4k",
      "x.raw",
      "x.qcow2",
    );
    const whole = qemuRaw(folder, "x.qcow2");
    const path = join(folder, "x.qcow2");
    const full = readFileSync(path);
    const lengths = [
      0, 3, 4, 71, 72, 103, 104, 111, 112, 300, 512, 4096, 8192, 12288, 12289, 16384,
    ];
    for (let i = 0; i < 40; i++) lengths.push(random.below(full.length));
    for (const length of lengths) {
      writeRaw(folder, "cut.qcow2", full.subarray(0, length));
      const graph = await testGraph();
      const disk = await openDisk(graph, chainOptions(folder, ["cut.qcow2"], true)).catch(
        (error) => {
          expect(error.errno, `${length}: ${error.stack}`).toMatch(/^E/);
          return null;
        },
      );
      if (!disk) continue;
      for (let at = 0; at < whole.length; at += 4096) {
        const buf = new Uint8Array(Math.min(4096, whole.length - at));
        const right = await disk.backend.read(buf, at).then(
          () => firstDifference(buf, whole.subarray(at, at + buf.length)) === -1,
          (error) => error.errno === "EIO",
        );
        expect(right, `cut at ${length}, guest offset ${at}`).toBe(true);
      }
      await disk.close();
      expect(statSync(join(folder, "cut.qcow2")).size).toBe(length);
    }
    truncateSync(path, full.length);
  });
});

describe.skipIf(!hasQemu)("growing over a longer backing file", () => {
  it("never shows it in the new bytes: not after a crash, not after any failure", async () => {
    writeRaw(folder, "long.raw", new Uint8Array(2 * MiB).fill(0x77));
    const options = ["-o", "cluster_size=4k", "-b", "long.raw", "-F", "raw"];
    qemuImg(folder, "create", "-q", "-f", "qcow2", ...options, "o.qcow2", "1M");
    const start = new Uint8Array(readFileSync(join(folder, "o.qcow2")));
    let finished = false;
    for (let failAt = 1; !finished; failAt++) {
      const store = new LogStore(start);
      store.failAt = failAt;
      const disk = await openLogged(store, "long.raw");
      finished = await disk.backend.truncate(2 * MiB).then(
        () => true,
        () => false,
      );
      store.failAt = 0;
      // As a tab that is killed now would leave it.
      writeRaw(folder, "killed.qcow2", store.bytes);
      const seen = qemuRaw(folder, "killed.qcow2");
      expect(
        seen.subarray(MiB).every((byte) => byte === 0),
        `failing at ${failAt}`,
      ).toBe(true);
      const buf = new Uint8Array(disk.backend.length - MiB);
      await disk.backend.read(buf, MiB);
      expect(
        buf.every((byte) => byte === 0),
        `failing at ${failAt}`,
      ).toBe(true);
      await disk.close().catch(() => {});
    }
  });
});

describe.skipIf(!hasQemu)("growing when the store fails", () => {
  it("leaks nothing that a later, good try does not give back", async () => {
    const options = ["-o", "cluster_size=512,refcount_bits=64"];
    qemuImg(folder, "create", "-q", "-f", "qcow2", ...options, "f.qcow2", `${1000 * 512}`);
    const start = new Uint8Array(readFileSync(join(folder, "f.qcow2")));
    for (const failAt of [5, 20, 40, 60, 80]) {
      const store = new LogStore(start);
      const disk = await openLogged(store, null);
      store.failAt = failAt;
      const failed = await disk.backend.truncate(40 * MiB).catch((error) => error);
      store.failAt = 0;
      // A header write that failed makes the image unusable until it is opened again.
      const again = await disk.backend.truncate(40 * MiB).then(
        () => true,
        () => false,
      );
      await disk.close().catch(() => {});
      writeRaw(folder, "f2.qcow2", store.bytes);
      const { status, text } = qemuCheck(folder, "f2.qcow2");
      if (again) expect(status, `failing at ${failAt} (${failed?.message}): ${text}`).toBe(0);
      else expect([0, 3], `failing at ${failAt}: ${text}`).toContain(status);
    }
  });

  it("takes over no page of a table that stood where the new L1 table goes", async () => {
    qemuImg(folder, "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "p.qcow2", "4M");
    qemuIo(folder, "p.qcow2", "write -P 6 0 64k");
    const bytes = new Uint8Array(readFileSync(join(folder, "p.qcow2")));
    const l1 = readU64(bytes, 40, "l1_table_offset");
    bytes[l1]! &= 0x7f; // Not COPIED: the first write moves the L2 table and frees the old one.
    const disk = await openLogged(new LogStore(bytes), null);
    await readAll(disk);
    await disk.backend.write(new Uint8Array(4096).fill(9), 0);
    await disk.backend.flush();
    await disk.backend.flush();
    await disk.backend.truncate(GiB);
    const buf = new Uint8Array(8192);
    await disk.backend.read(buf, 0);
    expect([buf[0], buf[4096]]).toEqual([9, 6]);
    await disk.close();
  });
});

async function openLogged(store: LogStore, backing: string | null): Promise<Disk> {
  const drivers = [qcow2Driver(), rawDriver(), fileDriver(), logStoreDriver(store)];
  const graph = new Graph(await testWorld(), drivers as never);
  const filename = join(folder, backing ?? "");
  return openDisk(graph, {
    driver: "qcow2",
    file: { driver: "log-store" },
    backing: backing && { driver: "raw", file: { driver: "file", filename } },
  });
}
