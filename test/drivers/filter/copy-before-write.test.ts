/** copy-before-write and snapshot-access on their own: fleecing, without a job. */

import { describe, expect, it } from "vitest";
import { Bell } from "../../../src/base/bell.ts";
import { KiB, MiB } from "../../../src/base/bytes.ts";
import { sleep } from "../../../src/base/clock.ts";
import { seededRandom } from "../../../src/base/random.ts";
import { Perm } from "../../../src/block/permissions.ts";
import type { CopyBeforeWrite } from "../../../src/drivers/filter/copy-before-write.ts";
import { backupRig, pattern, type Rig } from "../../blockjob/backup-rig.ts";

const SIZE = MiB;
const CLUSTER = 64 * KiB;

/** source ◀── cbw ◀── device vda, cbw ◀── snap; the target's backing file is the source. */
async function fleecing(
  options: object = {},
  target: { backing?: string } = {},
  source: { driver?: "store" } = {},
) {
  const t = await backupRig();
  await t.disk("source", { size: SIZE, seed: 1, ...source });
  await t.disk("target", { size: SIZE, ...target });
  const before = await t.read("source");
  await addFilters(t, options);
  const disk = t.device("cbw");
  const snapshot = t.device("snap", "snap");
  const readSnapshot = async (offset = 0, bytes = SIZE) => {
    const buf = Buffer.alloc(bytes);
    await t.clock.runUntil(snapshot.read(buf, offset));
    return buf;
  };
  return { ...t, before, disk, snapshot, readSnapshot };
}

async function addFilters(t: Rig, options: object): Promise<void> {
  const driver = "copy-before-write";
  await t.graph.add({ driver, "node-name": "cbw", file: "source", target: "target", ...options });
  await t.graph.add({ driver: "snapshot-access", "node-name": "snap", file: "cbw" });
}

describe("copy-before-write", () => {
  it.each([[{}], [{ backing: "source" }]])(
    "#116 shows the disk of one moment, whatever guests write (target %o)",
    async (target) => {
      const t = await fleecing({}, target);
      const model = new Uint8Array(t.before);
      const random = seededRandom(5);
      for (let i = 0; i < 30; i++) {
        const bytes = 1 + random.below(100 * KiB);
        const offset = random.below(SIZE - bytes);
        const data = pattern(bytes, i);
        const request =
          i % 5 === 4 ? t.disk.writeZeroes(offset, bytes) : t.disk.write(data, offset);
        if (i % 5 === 4) data.fill(0);
        model.set(data, offset);
        const at = random.below(SIZE - 9000);
        expect(
          Buffer.compare(await t.readSnapshot(at, 9000), t.before.subarray(at, at + 9000)),
        ).toBe(0);
        await t.clock.runUntil(request);
      }
      expect(Buffer.compare(await t.readSnapshot(), t.before)).toBe(0);
      expect(Buffer.compare(await t.read("source"), model)).toBe(0);
    },
  );

  it("#116 copies whole clusters, each once, and nothing that is not written to", async () => {
    const t = await fleecing();
    const writes: number[] = [];
    t.hook("target", (op, _offset, bytes) => void (op === "write" && writes.push(bytes)));
    await t.clock.runUntil(t.disk.write(pattern(10, 2), CLUSTER - 5));
    expect(writes.reduce((sum, bytes) => sum + bytes)).toBe(2 * CLUSTER);
    await t.clock.runUntil(t.disk.write(pattern(CLUSTER, 3), 0));
    expect(writes.reduce((sum, bytes) => sum + bytes)).toBe(2 * CLUSTER);
    const inside = await t.graph.get("target").state.map!(2 * CLUSTER, CLUSTER, {});
    expect(inside.kind).toBe("unallocated");
  });

  it("#116 with a bitmap, keeps what that says, and refuses to tell of the rest", async () => {
    const t = await backupRig();
    await t.disk("source", { size: SIZE, seed: 1 });
    await t.disk("target", { size: SIZE });
    const bitmap = t.graph.get("source").bitmaps.add({ name: "bm", granularity: 4 * KiB });
    await t.write("source", pattern(10, 2), 5 * CLUSTER + 100);
    const before = await t.read("source");
    await addFilters(t, { bitmap: { node: "source", name: "bm" } });
    const [disk, snapshot] = [t.device("cbw"), t.device("snap", "snap")];
    await t.clock.runUntil(disk.write(pattern(SIZE, 3), 0));
    const buf = Buffer.alloc(CLUSTER);
    await t.clock.runUntil(snapshot.read(buf, 5 * CLUSTER));
    expect(Buffer.compare(buf, before.subarray(5 * CLUSTER, 6 * CLUSTER))).toBe(0);
    for (const offset of [0, 4 * CLUSTER + 1, 6 * CLUSTER]) {
      const read = t.clock.runUntil(snapshot.read(Buffer.alloc(CLUSTER), offset));
      await expect(read, `${offset}`).rejects.toMatchObject({ errno: "EACCES" });
    }
    const status = t.graph.get("snap").state.storeStatus!(0, SIZE);
    await expect(status).rejects.toMatchObject({ errno: "EACCES" });
    const outside = await t.graph.get("target").state.map!(0, CLUSTER, {});
    expect(outside.kind, "what is not in the bitmap is not copied").toBe("unallocated");
    expect([bitmap.busy, bitmap.count]).toEqual([false, SIZE]);
  });

  it.each([
    [{ bitmap: { node: "source", name: "nope" } }, "has no bitmap 'nope'"],
    [{ bitmap: { node: "nope", name: "bm" } }, "Cannot find node 'nope'"],
    [{ bitmap: { node: "source", name: "busy" } }, "is busy"],
    [{ bitmap: { node: "other", name: "bm" } }, "Cannot find node 'other'"],
    [{ "min-cluster-size": 1000 }, "power of two"],
    [{ "cbw-timeout": -1 }, "cbw-timeout"],
    [{ "on-cbw-error": "ignore" }, "on-cbw-error"],
    [{ target: "small" }, "has 65536 bytes"],
    [{ target: "nope" }, "Cannot find node 'nope'"],
  ])("refuses %o", async (options, text) => {
    const t = await backupRig();
    await t.disk("source", { size: SIZE });
    await t.disk("target", { size: SIZE });
    await t.disk("other", { size: SIZE });
    await t.disk("small", { size: CLUSTER });
    t.graph.get("other").bitmaps.add({ name: "bm" });
    t.graph.get("source").bitmaps.add({ name: "busy" }).setBusy(true);
    await expect(addFilters(t, options)).rejects.toThrow(text);
    expect(t.filters()).toEqual([]);
  });

  it("copies in clusters of at least min-cluster-size", async () => {
    const t = await fleecing({ "min-cluster-size": 256 * KiB });
    await t.clock.runUntil(t.disk.write(pattern(1, 2), 300 * KiB));
    const target = await t.read("target");
    expect(
      Buffer.compare(
        target.subarray(256 * KiB, 512 * KiB),
        t.before.subarray(256 * KiB, 512 * KiB),
      ),
    ).toBe(0);
    expect(target[256 * KiB - 1]).toBe(0);
    expect(target[512 * KiB]).toBe(0);
  });

  it("#114 break-guest-write: the guest's write fails and changes nothing, the snapshot lives", async () => {
    const t = await fleecing();
    t.fault("target", "write", "EIO");
    const write = t.clock.runUntil(t.disk.write(pattern(10, 2), 100));
    await expect(write).rejects.toMatchObject({ errno: "EIO" });
    expect(Buffer.compare(await t.read("source"), t.before)).toBe(0);
    expect(Buffer.compare(await t.readSnapshot(), t.before)).toBe(0);
    t.hook("target", null);
    await t.clock.runUntil(t.disk.write(pattern(10, 2), 100));
    expect(Buffer.compare(await t.readSnapshot(), t.before)).toBe(0);
    expect((await t.read("source"))[100]).toBe(pattern(10, 2)[0]);
  });

  it("#114 break-snapshot: the guest's write is done, the snapshot is dead from then on", async () => {
    const t = await fleecing({ "on-cbw-error": "break-snapshot" });
    t.fault("target", "write", "EIO");
    await t.clock.runUntil(t.disk.write(pattern(10, 2), 100));
    expect((await t.read("source"))[100]).toBe(pattern(10, 2)[0]);
    t.hook("target", null);
    await expect(t.readSnapshot(5 * CLUSTER, 10)).rejects.toMatchObject({ errno: "EACCES" });
    await expect(t.snapshot.discard(0, CLUSTER)).rejects.toMatchObject({ errno: "EACCES" });
    let copied = 0;
    t.hook("target", () => void copied++);
    await t.clock.runUntil(t.disk.write(pattern(10, 2), 5 * CLUSTER));
    expect(copied, "there is nothing to copy for any more").toBe(0);
  });

  it("#115 cbw-timeout, break-guest-write: ETIMEDOUT for the guest, the snapshot lives", async () => {
    const t = await fleecing({ "cbw-timeout": 1 });
    t.hook("target", (op) => (op === "write" ? sleep(t.clock, 1500) : undefined));
    const begun = t.clock.now();
    const write = t.clock.runUntil(t.disk.write(pattern(10, 2), 100));
    await expect(write).rejects.toMatchObject({ errno: "ETIMEDOUT" });
    expect(t.clock.now() - begun).toBe(1000);
    expect(Buffer.compare(await t.read("source"), t.before)).toBe(0);
    // The copy went on meanwhile, so the next try need not wait.
    await t.clock.advance(1000);
    await t.clock.runUntil(t.disk.write(pattern(10, 2), 100));
    expect(Buffer.compare(await t.readSnapshot(), t.before)).toBe(0);
  });

  it("break-snapshot: who reads the source at that moment is not told the new bytes", async () => {
    const t = await fleecing({ "on-cbw-error": "break-snapshot" }, {}, { driver: "store" });
    const bell = new Bell();
    let isHeld = true;
    t.hook("source", async (op) => {
      while (op === "read" && isHeld) await bell.rung();
    });
    const buf = Buffer.alloc(CLUSTER);
    const reading = t.snapshot.read(buf, 0);
    const refused = expect(reading).rejects.toMatchObject({ errno: "EACCES" });
    await t.clock.advance(0);
    (t.graph.get("cbw").state as CopyBeforeWrite).giveUp();
    await t.clock.runUntil(t.disk.write(pattern(CLUSTER, 2), 0));
    isHeld = false;
    bell.ring();
    await t.clock.runUntil(refused);
  });

  it("is not mistaken for that of another filter, put in above it or taken out", async () => {
    const t = await fleecing();
    await t.clock.runUntil(t.disk.write(pattern(CLUSTER, 2), 0));
    await t.graph.add({ driver: "memory", "node-name": "target2", size: SIZE });
    const inserting = t.graph.insertFilter(
      { driver: "copy-before-write", "node-name": "cbw2", target: "target2" },
      t.graph.get("cbw"),
    );
    const second = await t.clock.runUntil(inserting);
    await t.graph.add({ driver: "snapshot-access", "node-name": "snap2", file: "cbw2" });
    const later = t.device("snap2", "snap2");
    expect(Buffer.compare(await t.readSnapshot(), t.before)).toBe(0);
    await t.clock.runUntil(t.graph.removeFilter(second));
    expect(Buffer.compare(await t.readSnapshot(), t.before)).toBe(0);
    const reading = t.clock.runUntil(later.read(Buffer.alloc(CLUSTER), 0));
    await expect(reading).rejects.toMatchObject({ errno: "ENOTSUP" });
  });

  it("#115 cbw-timeout, break-snapshot: the guest waits no longer, the snapshot is dead", async () => {
    const t = await fleecing({ "cbw-timeout": 1, "on-cbw-error": "break-snapshot" });
    t.hook("target", (op) => (op === "write" ? sleep(t.clock, 5000) : undefined));
    const begun = t.clock.now();
    await t.clock.runUntil(t.disk.write(pattern(10, 2), 100));
    expect(t.clock.now() - begun).toBe(1000);
    await expect(t.readSnapshot(0, 10)).rejects.toMatchObject({ errno: "EACCES" });
    expect(t.clock.timerCount, "only the store's own").toBe(1);
  });

  it("is not in time's way where a copy is quick", async () => {
    const t = await fleecing({ "cbw-timeout": 1 });
    await t.clock.runUntil(t.disk.write(pattern(10, 2), 100));
    expect(t.clock.timerCount).toBe(0);
    await t.clock.advance(5000);
    expect(Buffer.compare(await t.readSnapshot(), t.before)).toBe(0);
  });

  it("lets a write wait for who reads the old content from the source", async () => {
    // In a store: clusters of a format have a lock of their own.
    const t = await fleecing({}, {}, { driver: "store" });
    let slow = true;
    t.hook("source", (op) => {
      if (op !== "read" || !slow) return;
      slow = false;
      return sleep(t.clock, 1000);
    });
    const buf = Buffer.alloc(10);
    const read = t.snapshot.read(buf, 5);
    await t.clock.advance(1);
    let isWritten = false;
    const write = t.disk.write(pattern(10, 2), 0).then(() => {
      isWritten = true;
    });
    await t.clock.advance(500);
    expect([slow, isWritten]).toEqual([false, false]);
    // Meanwhile others read from the target, and write elsewhere.
    expect(Buffer.compare(await t.readSnapshot(0, 10), t.before.subarray(0, 10))).toBe(0);
    await t.clock.runUntil(t.disk.write(pattern(10, 2), CLUSTER));
    expect(isWritten).toBe(false);
    await t.clock.runUntil(Promise.all([read, write]));
    expect(Buffer.compare(buf, t.before.subarray(5, 15))).toBe(0);
  });

  it("shows one moment to readers while writers are at it, in rough stores (seeded)", async () => {
    for (let seed = 1; seed <= 8; seed++) {
      const random = seededRandom(seed);
      const target = seed % 2 === 0 ? { backing: "source" } : {};
      const t = await fleecing({}, target, seed % 4 < 2 ? { driver: "store" } : {});
      const rough = async () => {
        if (random.below(2) === 0) await t.clock.yield();
        if (random.below(3) === 0) await sleep(t.clock, random.below(30));
      };
      for (const node of ["source", "target"]) t.hook(node, rough);
      const running: Promise<void>[] = [];
      for (let i = 0; i < 120; i++) {
        const bytes = 1 + random.below(random.below(3) === 0 ? 200 * KiB : 6 * KiB);
        const offset = random.below(SIZE - bytes);
        const dice = random.below(5);
        if (dice === 0) running.push(t.disk.writeZeroes(offset, bytes));
        else if (dice < 3) running.push(t.disk.write(pattern(bytes, i), offset));
        else {
          const buf = Buffer.alloc(bytes);
          const wanted = t.before.subarray(offset, offset + bytes);
          const check = () => expect(Buffer.compare(buf, wanted), `seed ${seed}`).toBe(0);
          running.push(t.snapshot.read(buf, offset).then(check));
        }
        if (random.below(3) === 0) await t.clock.advance(random.below(20));
      }
      await t.clock.runUntil(Promise.all(running));
      for (const node of ["source", "target"]) t.hook(node, null);
      expect(Buffer.compare(await t.readSnapshot(), t.before), `seed ${seed}`).toBe(0);
    }
  });

  it("tells where the snapshot reads as zeroes", async () => {
    const t = await backupRig();
    await t.disk("source", { size: SIZE });
    await t.disk("target", { size: SIZE, driver: "store" });
    await t.write("source", pattern(CLUSTER, 1), CLUSTER);
    await addFilters(t, {});
    const disk = t.device("cbw");
    const statuses = async () => {
      const told: string[] = [];
      for (let at = 0; at < 4 * CLUSTER; ) {
        const status = t.graph.get("snap").state.storeStatus!(at, 4 * CLUSTER - at);
        const { bytes, zero } = await t.clock.runUntil(status);
        told.push(...Array<string>(bytes / CLUSTER).fill(zero ? "0" : "x"));
        at += bytes;
      }
      return told.join("");
    };
    expect(await statuses()).toBe("0x00");
    await t.clock.runUntil(disk.write(pattern(2 * CLUSTER, 2), CLUSTER));
    expect(await statuses()).toBe("0x00");
  });

  it("gives up what the reader discards: it is freed, not copied, and not told any more", async () => {
    const t = await fleecing();
    await t.clock.runUntil(t.disk.write(pattern(CLUSTER, 2), 0));
    const freed: [number, number][] = [];
    const { target } = { target: t.graph.get("target") };
    target.state.pdiscard = async (offset, bytes) => void freed.push([offset, bytes]);
    await t.clock.runUntil(t.snapshot.discard(100, 3 * CLUSTER));
    expect(freed).toEqual([[CLUSTER, 2 * CLUSTER]]);
    await expect(t.readSnapshot(CLUSTER, 10)).rejects.toMatchObject({ errno: "EACCES" });
    expect(Buffer.compare(await t.readSnapshot(0, CLUSTER), t.before.subarray(0, CLUSTER))).toBe(0);
    let copied = 0;
    t.hook("target", () => void copied++);
    await t.clock.runUntil(t.disk.write(pattern(10, 2), 2 * CLUSTER));
    expect(copied).toBe(0);
  });

  it("cannot be written through the snapshot, nor resized, nor looked at without a snapshot", async () => {
    const t = await fleecing();
    const write = t.clock.runUntil(t.snapshot.write(pattern(10, 2), 0));
    await expect(write).rejects.toMatchObject({ errno: "ENOTSUP" });
    const zeroes = t.clock.runUntil(t.snapshot.writeZeroes(0, CLUSTER));
    await expect(zeroes).rejects.toMatchObject({ errno: "ENOTSUP" });
    await expect(t.graph.get("cbw").state.truncate!(CLUSTER)).rejects.toMatchObject({
      errno: "ENOTSUP",
    });
    const add = t.graph.add({ driver: "snapshot-access", "node-name": "x", file: "target" });
    await expect(add).rejects.toMatchObject({ errno: "ENOTSUP" });
  });

  it("keeps writers away from the source as soon as somebody uses it, not before", async () => {
    const t = await backupRig();
    await t.disk("source", { size: SIZE });
    await t.disk("target", { size: SIZE });
    const direct = t.device("source", "direct");
    await addFilters(t, {}).catch((error) => error);
    const both = () => t.device("cbw");
    expect(both).toThrow(/Permission conflict on node 'source'/);
    await t.graph.closeBackend(direct);
    both();
    expect(() => t.device("source", "late")).toThrow(/Permission conflict on node 'source'/);
    t.device("target", "reader");
    const resize = () =>
      t.graph.openBackend(t.graph.get("target"), {
        name: "",
        description: "the test",
        permissions: { take: Perm.resize, share: Perm.all },
      });
    expect(resize).toThrow(/Permission conflict on node 'target'/);
  });

  it("waits for what is under way when it is closed", async () => {
    const t = await fleecing({ "cbw-timeout": 1 });
    let isWritten = false;
    t.hook("target", async (op) => {
      if (op !== "write") return;
      await sleep(t.clock, 5000);
      isWritten = true;
    });
    const write = t.clock.runUntil(t.disk.write(pattern(10, 2), 100));
    await expect(write).rejects.toMatchObject({ errno: "ETIMEDOUT" });
    await t.graph.closeBackend(t.disk);
    await t.graph.closeBackend(t.snapshot);
    await t.graph.remove("snap");
    await t.clock.runUntil(t.graph.remove("cbw"));
    expect(isWritten).toBe(true);
    await t.graph.remove("target");
  });
});
