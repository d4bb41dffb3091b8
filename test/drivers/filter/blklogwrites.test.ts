/** blklogwrites: the log makes the disk again, it is QEMU's to the byte, and it can be gone on with. */

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../../src/base/bytes.ts";
import { seededRandom } from "../../../src/base/random.ts";
import { settleAll } from "../../../src/base/settle.ts";
import { runWell } from "../../spawn.ts";
import { hasQemu, qemuCheck, testFolder } from "../format/rig.ts";
import { contentOf, filled, filterRig, outcome } from "./rig.ts";
import { differs, readLog, replay } from "./write-log.ts";

const folder = testFolder();
const SIZE = 256 * KiB;

/** A logged disk in memory, with a second pair of eyes on disk and log. */
async function logged(options: object = {}, size = SIZE) {
  const rig = await filterRig();
  await rig.graph.add({ driver: "memory", "node-name": "data", size });
  await rig.graph.add({ driver: "memory", "node-name": "log", size: 0 });
  const disk = await rig.open({ driver: "blklogwrites", file: "data", log: "log", ...options });
  const logOf = async () => {
    const { state } = rig.graph.get("log");
    const bytes = new Uint8Array(state.getLength!());
    await state.pread!(bytes, 0, {});
    return bytes;
  };
  return { ...rig, disk, logOf, log: async () => readLog(await logOf()) };
}

describe("reopening", () => {
  it("gives a node that was opened read-only the right to write, and its log too", async () => {
    const rig = await filterRig();
    const store = (name: string) => ({ driver: "memory", "node-name": name, size: SIZE });
    const logged = { driver: "blklogwrites", file: store("data"), log: store("log") };
    const node = await rig.graph.add({ ...logged, "node-name": "disk", "read-only": true });
    const modes = () => ["disk", "data", "log"].map((name) => rig.graph.get(name).readOnly);
    expect(modes()).toEqual([true, true, true]);
    await rig.graph.reopen(node, { readOnly: false });
    const disk = rig.device("disk");
    await disk.write(filled(512, 7), 0);
    await rig.graph.closeBackend(disk);
    await rig.graph.reopen(node, { readOnly: true });
    expect(modes()).toEqual([true, true, true]);
    const bytes = new Uint8Array(SIZE);
    await rig.graph.get("log").state.pread!(bytes, 0, {});
    expect(readLog(bytes).entries.map(({ offset }) => offset)).toEqual([0, 0]);
  });
});

describe("the log", () => {
  it("has an entry for each change, none for reads, and counts them at a flush", async () => {
    const { disk, log, logOf } = await logged();
    await disk.write(filled(1024, 7), 512);
    expect((await logOf()).subarray(0, 512)).toEqual(filled(512, 0));
    await disk.read(new Uint8Array(512), 0);
    await disk.writeZeroes(4096, 1024);
    await disk.discard(8192, 65536);
    await disk.flush();
    await disk.flush(); // Nothing new.
    const { entries, sectorBytes } = await log();
    expect(sectorBytes).toBe(512);
    expect(entries).toEqual([
      { offset: 512, bytes: 1024, isFlush: false, isDiscard: false, data: filled(1024, 7) },
      { offset: 4096, bytes: 1024, isFlush: false, isDiscard: false, data: filled(1024, 0) },
      { offset: 8192, bytes: 65536, isFlush: false, isDiscard: true, data: null },
      { offset: 0, bytes: 0, isFlush: true, isDiscard: false, data: null },
    ]);
  });

  it("makes the disk again as it was at each flush (seeded)", async () => {
    for (let seed = 1; seed <= 10; seed++) {
      const random = seededRandom(seed);
      const sector = 512 * 2 ** random.below(4);
      const t = await logged({ "log-sector-size": sector, "log-super-update-interval": 5 });
      const before = await contentOf(t.disk);
      const moments: { count: number; disk: Uint8Array }[] = [];
      for (let round = 0; round < 12; round++) {
        // Side by side, and over each other: the order in the log must be the order on the disk.
        const requests = Array.from({ length: 1 + random.below(6) }, () => {
          const offset = random.below(SIZE / 4);
          const bytes = 1 + random.below(SIZE / 8);
          const kind = random.below(6);
          if (kind === 0) return t.disk.writeZeroes(offset, bytes);
          if (kind === 1) return t.disk.discard(offset, bytes);
          return t.disk.write(filled(bytes, 1 + random.below(255)), offset);
        });
        await t.clock.runUntil(settleAll(requests));
        await t.disk.flush();
        moments.push({ count: (await t.log()).entries.length, disk: await contentOf(t.disk) });
      }
      const log = await t.log();
      for (const { count, disk } of moments) {
        expect(log.entries[count - 1]?.isFlush, `seed ${seed}`).toBe(true);
        const at = differs(replay(log, count, before), disk);
        expect(at, `seed ${seed}, after ${count} entries`).toBe(-1);
      }
    }
  });

  it("brings its superblock up to date every so many entries", async () => {
    const { disk, log } = await logged({ "log-super-update-interval": 3 });
    const counts = [];
    for (let i = 0; i < 7; i++) {
      await disk.write(filled(512, i), i * 512);
      counts.push(i < 2 ? 0 : (await log()).entries.length);
    }
    expect(counts).toEqual([0, 0, 3, 3, 3, 6, 6]);
  });

  it("is gone on with, in its own sectors, if it is appended to", async () => {
    const t = await logged({ "log-sector-size": 4096 });
    await t.disk.write(filled(4096, 1), 0);
    await t.disk.discard(65536, 4096);
    await t.disk.flush();
    await t.close(t.disk);
    const options = { driver: "blklogwrites", file: "data", log: "log", "log-append": true };
    const again = await t.open(options);
    await again.write(filled(4096, 2), 8192);
    await again.flush();
    const { entries, sectorBytes } = await t.log();
    expect(sectorBytes).toBe(4096);
    expect(entries.map(({ offset, bytes }) => [offset, bytes])).toEqual([
      [0, 4096],
      [65536, 4096],
      [0, 0],
      [8192, 4096],
      [0, 0],
    ]);
    await t.close(again);
    const both = t.open({ ...options, "log-sector-size": 4096 });
    await expect(both).rejects.toThrow("cannot be used together");
  });

  it("begins anew without, and also where there is nothing to append to", async () => {
    const t = await logged({ "log-append": true });
    await t.disk.write(filled(512, 1), 0);
    await t.disk.flush();
    await t.close(t.disk);
    const again = await t.open({ driver: "blklogwrites", file: "data", log: "log" });
    await again.write(filled(512, 2), 512);
    await again.flush();
    expect((await t.log()).entries.map(({ offset }) => offset)).toEqual([512, 0]);
  });

  it("refuses logs that are none, and sizes that cannot be", async () => {
    const t = await logged();
    await t.close(t.disk);
    const open = (options: object) =>
      t.open({ driver: "blklogwrites", file: "data", log: "log", ...options });
    await expect(open({ "log-sector-size": 1000 })).rejects.toThrow("power of two");
    await expect(open({ "log-sector-size": 16 })).rejects.toThrow("power of two");
    await expect(open({ "log-super-update-interval": 0 })).rejects.toThrow("1 or more");
    const log = t.device("log");
    await log.node.state.truncate!(1024);
    await log.write(filled(512, 3), 0);
    await t.graph.closeBackend(log);
    await expect(open({ "log-append": true })).rejects.toThrow("magic number");
    expect(t.graph.nodes.map(({ name }) => name)).toEqual(["data", "log"]);
  });

  it("that cannot be written fails the guest's write, and what is in it stays right", async () => {
    const rig = await filterRig();
    const rule = { event: "pwritev", state: 2, iotype: "write", errno: 28, once: true };
    const arm = { event: "pwritev_zero", new_state: 2 };
    await rig.graph.add({ driver: "memory", "node-name": "store", size: 0 });
    await rig.graph.add({ driver: "memory", "node-name": "data", size: SIZE });
    const disk = await rig.open({
      driver: "blklogwrites",
      file: "data",
      log: { driver: "blkdebug", image: "store", "inject-error": [rule], "set-state": [arm] },
    });
    await disk.writeZeroes(0, 512);
    expect(await outcome(disk.write(filled(512, 1), 512))).toBe("ENOSPC");
    await disk.write(filled(512, 2), 512);
    await disk.flush();
    const { state } = rig.graph.get("store");
    const bytes = new Uint8Array(state.getLength!());
    await state.pread!(bytes, 0, {});
    const log = readLog(bytes);
    expect(log.entries).toHaveLength(3);
    const replayed = replay(log, 3, new Uint8Array(SIZE));
    expect(differs(replayed, await contentOf(disk))).toBe(-1);
  });

  it("has no entry for what the disk did not take", async () => {
    const rig = await filterRig();
    await rig.graph.add({ driver: "memory", "node-name": "log", size: 0 });
    const rule = { event: "pwritev", iotype: "write", once: true };
    const disk = await rig.open({
      driver: "blklogwrites",
      file: { driver: "blkdebug", image: { driver: "memory", size: SIZE }, "inject-error": [rule] },
      log: "log",
    });
    expect(await outcome(disk.write(filled(512, 1), 0))).toBe("EIO");
    await disk.flush();
    expect(rig.graph.get("log").state.getLength!()).toBe(0);
  });

  it("grows in a raw image, too, which does not grow by writing", async () => {
    const rig = await filterRig();
    const file = { driver: "memory", "node-name": "bytes", size: 0 };
    await rig.graph.add({ driver: "raw", "node-name": "log", file });
    const image = { driver: "memory", size: SIZE };
    const disk = await rig.open({ driver: "blklogwrites", file: image, log: "log" });
    await disk.write(filled(1024, 1), 0);
    await disk.writeZeroes(0, 1024);
    await disk.flush();
    expect(rig.graph.get("bytes").state.getLength!()).toBe(512 * (1 + 3 + 3 + 1));
  });
});

describe.skipIf(!hasQemu)("QEMU", () => {
  it.each([
    [512, 4096],
    [512, 2],
    [4096, 3],
  ])("writes the same log, byte for byte: sectors of %i, interval %i", async (...sizes) => {
    const [sector, interval] = sizes;
    for (let seed = 1; seed <= 5; seed++) {
      const requests = randomRequests(seed, sector);
      const theirs = qemuLog(requests, sector, interval);
      const t = await logged({
        "log-sector-size": sector,
        "log-super-update-interval": interval,
      });
      for (const { verb, offset, bytes, value } of requests) {
        if (verb === "write") await t.disk.write(filled(bytes, value), offset);
        if (verb === "write -z") await t.disk.writeZeroes(offset, bytes);
        if (verb === "discard") await t.disk.discard(offset, bytes);
        if (verb === "flush") await t.disk.flush();
      }
      await t.disk.flush(); // qemu-io's own, when it closes the image.
      const ours = await t.logOf();
      expect(ours.length, `seed ${seed}`).toBe(theirs.length);
      expect(Buffer.compare(ours, theirs), `seed ${seed}`).toBe(0);
    }
  });

  it("goes on with our log, and we with what came of that", async () => {
    const names = ["data.raw", "shared.log"].map((name) => join(folder, name));
    const [data, log] = names as [string, string];
    for (const name of names) writeFileSync(name, "");
    runWell("qemu-img", ["create", "-q", "-f", "raw", data, `${SIZE}`]);
    const rig = await filterRig();
    const options = {
      driver: "blklogwrites",
      file: { driver: "file", filename: data },
      log: { driver: "file", filename: log },
    };
    const first = await rig.open({ ...options, "log-sector-size": 1024 });
    await first.write(filled(2048, 1), 1024);
    await first.flush();
    await rig.close(first);
    const theirs = `json:${JSON.stringify({ ...options, "log-append": true })}`;
    runWell("qemu-io", ["-t", "writeback", "-c", "write -P 2 8k 4k", theirs]);
    const last = await rig.open({ ...options, "log-append": true });
    await last.write(filled(1024, 3), 9 * KiB);
    await last.flush();
    await rig.close(last);
    const { entries, sectorBytes } = readLog(readFileSync(log));
    expect(sectorBytes).toBe(1024);
    expect(entries.map(({ offset }) => offset)).toEqual([1024, 0, 8192, 0, 9216, 0]);
    const replayed = replay({ entries, sectorBytes }, 6, new Uint8Array(SIZE));
    expect(differs(replayed, readFileSync(data))).toBe(-1);
  });

  it("finds a qcow2 image sound at every entry of its log: that is what it is for", async () => {
    const filename = join(folder, "crash.qcow2");
    runWell("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", filename, "8M"]);
    const before = readFileSync(filename);
    const rig = await filterRig();
    await rig.graph.add({ driver: "memory", "node-name": "log", size: 0 });
    const disk = await rig.open({
      driver: "qcow2",
      file: { driver: "blklogwrites", file: { driver: "file", filename }, log: "log" },
    });
    const random = seededRandom(1);
    for (let i = 0; i < 40; i++) {
      await disk.write(filled(1 + random.below(9000), i + 1), random.below(7 * MiB));
      if (i % 8 === 7) await disk.flush();
    }
    await rig.close(disk);
    const { state } = rig.graph.get("log");
    const bytes = new Uint8Array(state.getLength!());
    await state.pread!(bytes, 0, {});
    const log = readLog(bytes);
    const end = Math.max(...log.entries.map(({ offset, bytes }) => offset + bytes));
    const start = new Uint8Array(Math.max(before.length, end));
    start.set(before);
    for (let count = 1; count <= log.entries.length; count += 7) {
      writeFileSync(join(folder, "replayed.qcow2"), replay(log, count, start).disk);
      const { status, text } = qemuCheck(folder, "replayed.qcow2");
      expect([0, 3], `after ${count} entries: ${text}`).toContain(status);
    }
  });
});

interface Request {
  readonly verb: "write" | "write -z" | "discard" | "flush";
  readonly offset: number;
  readonly bytes: number;
  readonly value: number;
}

function randomRequests(seed: number, sector: number): Request[] {
  const random = seededRandom(seed);
  const verbs = ["write", "write -z", "discard", "flush", "write"] as const;
  return Array.from({ length: 15 }, () => ({
    verb: verbs[random.below(verbs.length)]!,
    offset: sector * random.below(SIZE / sector / 2),
    bytes: sector * (1 + random.below(6)),
    value: 1 + random.below(255),
  }));
}

/** The log that the real driver writes of the same requests. */
function qemuLog(requests: readonly Request[], sector: number, interval: number): Buffer {
  const [data, log] = [join(folder, "qemu.raw"), join(folder, "qemu.log")];
  runWell("qemu-img", ["create", "-q", "-f", "raw", data, `${SIZE}`]);
  writeFileSync(log, "");
  const options = {
    driver: "blklogwrites",
    "log-sector-size": sector,
    "log-super-update-interval": interval,
    discard: "unmap",
    file: { driver: "file", filename: data, discard: "unmap" },
    log: { driver: "file", filename: log },
  };
  const commands = requests.flatMap(({ verb, offset, bytes, value }) => {
    if (verb === "flush") return ["-c", verb];
    return ["-c", `${verb}${verb === "write" ? ` -P ${value}` : ""} ${offset} ${bytes}`];
  });
  runWell("qemu-io", ["-t", "writeback", ...commands, `json:${JSON.stringify(options)}`]);
  return readFileSync(log);
}
