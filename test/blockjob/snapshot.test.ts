import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { Perm } from "../../src/block/permissions.ts";
import { internalSnapshotAction } from "../../src/blockjob/internal-snapshot.ts";
import {
  startSnapshotDelete,
  startSnapshotLoad,
  startSnapshotSave,
} from "../../src/blockjob/snapshot.ts";
import { runTransaction } from "../../src/blockjob/transaction.ts";
import { lab } from "./snapshot-rig.ts";

const FAILED = "created running aborting concluded";
const DONE = "created running waiting pending concluded";
const both = { vmstate: "a", devices: ["a", "b"] };

/** Two disks, and a third one that may fail. */
async function threeDisks() {
  const it = await lab();
  const a = await it.disk("a", 1);
  const b = await it.disk("b", 2);
  const bad = await it.disk("bad", 3, {}, { driver: "faulty", size: 0 });
  return { ...it, a, b, bad };
}

describe("snapshot-save, -load and -delete", () => {
  it("keep several disks under one tag, bring them back, and forget them", async () => {
    const { services, a, b, fill, tags, story, ended, bugs, graph } = await threeDisks();
    const saved = await ended(startSnapshotSave(services, { jobId: "s", tag: "t", ...both }));
    expect(story()).toBe(DONE);
    expect(saved.query()).toEqual({
      id: "s",
      type: "snapshot-save",
      status: "concluded",
      "current-progress": 1,
      "total-progress": 1,
    });
    expect([tags("a"), tags("b"), tags("bad")]).toEqual([["t"], ["t"], []]);
    const [info] = graph.get("a").state.snapshots!.list();
    expect(info).toMatchObject({ id: "1", vmStateBytes: 0, diskBytes: MiB });
    expect(info!.dateSeconds).toBeGreaterThanOrEqual(1_577_836_800);

    for (const device of [a, b]) await device.write(new Uint8Array(MiB).fill(9), 0);
    await ended(startSnapshotLoad(services, { jobId: "l", tag: "t", ...both }));
    expect(story()).toBe(DONE);
    expect([await fill(a), await fill(b)]).toEqual([1, 2]);

    const { devices } = both;
    await ended(startSnapshotDelete(services, { jobId: "d", tag: "t", devices }));
    expect(story()).toBe(DONE);
    expect([tags("a"), tags("b")]).toEqual([[], []]);
    expect([await fill(a), await fill(b)]).toEqual([1, 2]);
    expect(bugs).toEqual([]);
  });

  it("stay concluded until they are dismissed, and leave no node in use", async () => {
    const { services, jobs, graph, ended, a } = await threeDisks();
    const job = await ended(startSnapshotSave(services, { jobId: "s", tag: "t", ...both }));
    expect(job.status).toBe("concluded");
    job.dismiss();
    expect(jobs.all()).toEqual([]);
    await graph.closeBackend(a);
    await graph.remove("a");
  });

  it("leave a bitmap that comes in while they load with everything marked", async () => {
    const { services, graph, ended, a } = await threeDisks();
    await ended(startSnapshotSave(services, { jobId: "s", tag: "t", ...both }));
    await a.write(new Uint8Array(MiB).fill(9), 0);
    const { state, bitmaps } = graph.get("a");
    const { snapshots } = state;
    const slow = {
      ...snapshots!,
      async apply(id: string) {
        bitmaps.add({ name: "late" });
        await snapshots!.apply(id);
      },
    };
    Object.defineProperty(state, "snapshots", { get: () => slow });
    await ended(startSnapshotLoad(services, { jobId: "l", tag: "t", ...both }));
    expect(bitmaps.get("late").count).toBe(MiB);
  });

  it("#124 hold their nodes while they run", async () => {
    const { services, graph, ended, a, clock } = await threeDisks();
    const removals: unknown[] = [];
    await graph.closeBackend(a);
    const job = startSnapshotSave(services, { jobId: "s", tag: "t", ...both });
    await Promise.resolve();
    await clock.runUntil(
      graph.remove("a").catch((error: Error) => void removals.push(error.message)),
    );
    await ended(job);
    expect(job.error).toBeNull();
    expect(removals).toEqual(["Node 'a' is in use by job 's'"]);
    await graph.remove("a");
  });

  it("hold guests back meanwhile: a snapshot has what was answered before, and nothing later", async () => {
    const { services, a, b, fill, ended } = await threeDisks();
    const job = startSnapshotSave(services, { jobId: "s", tag: "t", ...both });
    const writes: Promise<void>[] = [];
    for (let i = 0; i < 64; i++) {
      for (const device of [a, b]) {
        writes.push(device.write(new Uint8Array(16 * KiB).fill(7), i * 16 * KiB));
      }
      await Promise.resolve();
    }
    await ended(job);
    await Promise.all(writes);
    expect([await fill(a), await fill(b)]).toEqual([7, 7]);
    await ended(startSnapshotLoad(services, { jobId: "l", tag: "t", ...both }));
    const seen = new Uint8Array(MiB);
    for (const [device, old] of [[a, 1] as const, [b, 2] as const]) {
      await device.read(seen, 0);
      // No request is there by half.
      for (let at = 0; at < MiB; at += 16 * KiB) {
        expect([old, 7]).toContain(seen[at]);
        expect(seen.subarray(at, at + 16 * KiB).every((byte) => byte === seen[at])).toBe(true);
      }
    }
  });

  it("keep all disks as they were at one moment: nobody writes to one while another is at it", async () => {
    const { services, b, bad, faulty, fill, ended } = await threeDisks();
    await bad.flush();
    const devices = ["bad", "b"];
    const options = { tag: "t", vmstate: "bad", devices };
    const job = startSnapshotSave(services, { jobId: "s", ...options });
    let write: Promise<void> | undefined;
    let early = false;
    faulty.hear = () => {
      write ??= b.write(new Uint8Array(MiB).fill(9), 0).then(() => {
        early = job.progress.current === 0;
      });
    };
    await ended(job);
    await write;
    expect(early).toBe(false);
    expect(await fill(b)).toBe(9);
    await ended(startSnapshotLoad(services, { jobId: "l", ...options }));
    expect(await fill(b)).toBe(2);
  });

  it("find disks below filters, each of them once", async () => {
    const { services, graph, tags, ended, open, fill, a } = await threeDisks();
    await graph.add({ driver: "copy-on-read", "node-name": "f", file: "a" });
    const above = open("f", "above");
    const devices = ["f", "a"];
    const job = startSnapshotSave(services, { jobId: "s", tag: "t", vmstate: "f", devices });
    expect((await ended(job)).error).toBeNull();
    expect(tags("a")).toEqual(["t"]);
    await a.write(new Uint8Array(MiB).fill(9), 0);
    await ended(startSnapshotLoad(services, { jobId: "l", tag: "t", vmstate: "f", devices }));
    expect(await fill(above)).toBe(1);
  });

  it("brings a disk's former size back", async () => {
    const { services, graph, ended, a } = await threeDisks();
    const devices = ["a"];
    await ended(startSnapshotSave(services, { jobId: "s", tag: "t", vmstate: "a", devices }));
    await graph.get("a").state.truncate!(3 * MiB);
    expect(a.length).toBe(3 * MiB);
    await ended(startSnapshotLoad(services, { jobId: "l", tag: "t", vmstate: "a", devices }));
    expect(a.length).toBe(MiB);
  });
});

describe("snapshot-save", () => {
  it("#121 is told as cancelled when it is cancelled, and has done its work", async () => {
    const { services, tags, story, ended, faulty, bad } = await threeDisks();
    await bad.flush();
    const devices = ["bad", "b"];
    const options = { jobId: "s", tag: "t", vmstate: "b", devices };
    const job = startSnapshotSave(services, options);
    faulty.hear = (op) => {
      if (op === "write" && !job.cancelled) job.cancel(true);
    };
    await ended(job);
    expect(story()).toBe(FAILED);
    expect(job.query()).toMatchObject({ status: "concluded", error: "Operation canceled" });
    expect([tags("bad"), tags("b")]).toEqual([["t"], ["t"]]);
  });

  it("of a tag that one disk has is refused on all", async () => {
    const { services, tags, story, ended } = await threeDisks();
    const one = { vmstate: "b", devices: ["b"] };
    await ended(startSnapshotSave(services, { jobId: "s1", tag: "t", ...one }));
    story();
    const job = await ended(startSnapshotSave(services, { jobId: "s2", tag: "t", ...both }));
    expect(story()).toBe(FAILED);
    expect(job.error).toMatchObject({
      errno: "EEXIST",
      message: expect.stringMatching(/'t'.*node 'b'/),
    });
    expect(job.query()).toMatchObject({ "current-progress": 0, "total-progress": 1 });
    expect([tags("a"), tags("b")]).toEqual([[], ["t"]]);
  });

  it("that fails on one disk deletes what it made on the others", async () => {
    const { services, tags, faulty, ended, fill, a, bad, story } = await threeDisks();
    await bad.flush();
    faulty.fault = { op: "write", errno: "ENOSPC" };
    const devices = ["a", "b", "bad"];
    const options = { jobId: "s", tag: "t", vmstate: "a", devices };
    const job = await ended(startSnapshotSave(services, options));
    expect(story()).toBe(FAILED);
    expect(job.error).toMatchObject({ errno: "ENOSPC" });
    expect([tags("a"), tags("b"), tags("bad")]).toEqual([[], [], []]);
    faulty.fault = null;
    expect([await fill(a), await fill(bad)]).toEqual([1, 3]);
    expect(
      (await ended(startSnapshotSave(services, { ...options, jobId: "s2" }))).error,
    ).toBeNull();
    expect(tags("bad")).toEqual(["t"]);
  });

  it.each([
    ["a vmstate that is not among the devices", { vmstate: "bad", devices: ["a"] }, "EINVAL"],
    ["a device that there is not", { vmstate: "a", devices: ["a", "nope"] }, "ENOENT"],
    ["a format without snapshots", { vmstate: "a", devices: ["a", "raw"] }, "ENOTSUP"],
    ["a read-only disk", { vmstate: "a", devices: ["a", "ro"] }, "EROFS"],
    ["an empty tag", { vmstate: "a", devices: ["a"], tag: "" }, "EINVAL"],
    ["no device at all", { vmstate: "a", devices: [] }, "EINVAL"],
  ])("fails for %s, on all", async (_what, more, errno) => {
    const { services, graph, tags, ended } = await threeDisks();
    await graph.add({ driver: "raw", "node-name": "raw", file: { driver: "memory", size: MiB } });
    await graph.add({ driver: "raw", "node-name": "ro", file: "raw", "read-only": true });
    const job = await ended(startSnapshotSave(services, { jobId: "s", tag: "t", ...more }));
    expect(job.error, job.error?.message).toMatchObject({ errno });
    expect(tags("a")).toEqual([]);
  });

  it("waits for no job that works on a disk: it is refused", async () => {
    const { services, graph, ended } = await threeDisks();
    const { blockers } = graph.get("a");
    blockers.add({ reason: "block device is in use by block job: stream" });
    const refused = await ended(startSnapshotSave(services, { jobId: "s", tag: "t", ...both }));
    expect(refused.error).toMatchObject({
      errno: "EBUSY",
      message: expect.stringMatching(/stream/),
    });
  });
});

describe("snapshot-load", () => {
  it("changes nothing unless all disks have the tag", async () => {
    const { services, a, fill, story, ended } = await threeDisks();
    const one = { vmstate: "a", devices: ["a"] };
    await ended(startSnapshotSave(services, { jobId: "s", tag: "t", ...one }));
    await a.write(new Uint8Array(MiB).fill(9), 0);
    story();
    const job = await ended(startSnapshotLoad(services, { jobId: "l", tag: "t", ...both }));
    expect(story()).toBe(FAILED);
    expect(job.error).toMatchObject({
      errno: "ENOENT",
      message: expect.stringMatching(/'t'.*node 'b'/),
    });
    expect(await fill(a)).toBe(9);
  });

  it("refuses a disk with dirty bitmaps, as QEMU does", async () => {
    const { services, a, graph, fill, ended } = await threeDisks();
    await ended(startSnapshotSave(services, { jobId: "s", tag: "t", ...both }));
    await a.write(new Uint8Array(MiB).fill(9), 0);
    const { bitmaps } = graph.get("b");
    const bitmap = bitmaps.add({ name: "bm" });
    const first = await ended(startSnapshotLoad(services, { jobId: "l1", tag: "t", ...both }));
    expect(first.error).toMatchObject({
      errno: "EBUSY",
      message: expect.stringMatching(/'b' has dirty bitmaps/),
    });
    expect(await fill(a)).toBe(9);
    bitmaps.remove(bitmap);
    const second = await ended(startSnapshotLoad(services, { jobId: "l2", tag: "t", ...both }));
    expect(second.error).toBeNull();
    expect(await fill(a)).toBe(1);
  });

  it("refuses a disk whose content somebody relies on", async () => {
    const { services, graph, b, ended } = await threeDisks();
    await ended(startSnapshotSave(services, { jobId: "s", tag: "t", ...both }));
    await graph.closeBackend(b);
    graph.openBackend(graph.get("b"), {
      name: "strict",
      description: "device 'strict'",
      permissions: { take: Perm.consistentRead, share: Perm.consistentRead },
    });
    const job = await ended(startSnapshotLoad(services, { jobId: "l", tag: "t", ...both }));
    expect(job.error).toMatchObject({ errno: "EPERM", message: expect.stringMatching(/'strict'/) });
  });

  it("tells which disks it has loaded if another one fails", async () => {
    const { services, a, bad, faulty, fill, ended } = await threeDisks();
    const devices = ["a", "bad"];
    const options = { tag: "t", vmstate: "a", devices };
    await ended(startSnapshotSave(services, { jobId: "s", ...options }));
    for (const device of [a, bad]) await device.write(new Uint8Array(MiB).fill(9), 0);
    await bad.flush();
    faulty.fault = { op: "write", errno: "EIO" };
    const job = await ended(startSnapshotLoad(services, { jobId: "l", ...options }));
    faulty.fault = null;
    expect(job.error).toMatchObject({
      errno: "EIO",
      message: expect.stringMatching(/^Loaded on node 'a', but not on all/),
    });
    expect([await fill(a), await fill(bad)]).toEqual([1, 9]);
  });
});

describe("snapshot-delete", () => {
  it("is done where there is nothing to delete, as QEMU's", async () => {
    const { services, tags, ended } = await threeDisks();
    const one = { vmstate: "a", devices: ["a"] };
    await ended(startSnapshotSave(services, { jobId: "s", tag: "t", ...one }));
    const devices = ["a", "b"];
    const job = await ended(startSnapshotDelete(services, { jobId: "d", tag: "t", devices }));
    expect(job.error).toBeNull();
    expect(tags("a")).toEqual([]);
  });
});

describe("an internal snapshot in a transaction", () => {
  it("is deleted again if a later action fails, and guests wait until then", async () => {
    const { services, tags, a, fill, clock } = await threeDisks();
    let write: Promise<void> | undefined;
    const failing = {
      async prepare() {
        expect(tags("a")).toEqual(["t"]);
        write = a.write(new Uint8Array(MiB).fill(9), 0);
        await Promise.resolve();
        throw new Error("planned");
      },
    };
    const actions = [internalSnapshotAction(services, "dev-a", "t"), failing];
    await expect(clock.runUntil(runTransaction(actions))).rejects.toThrow("planned");
    expect(tags("a")).toEqual([]);
    await write;
    expect(await fill(a)).toBe(9);
  });

  it("is there on all disks, or on none", async () => {
    const { services, tags, clock } = await threeDisks();
    const act = (names: string[]) =>
      clock.runUntil(
        runTransaction(names.map((name) => internalSnapshotAction(services, name, "t"))),
      );
    await act(["a", "b"]);
    expect([tags("a"), tags("b")]).toEqual([["t"], ["t"]]);
    await expect(act(["bad", "a"])).rejects.toMatchObject({ errno: "EEXIST" });
    expect(tags("bad")).toEqual([]);
  });
});
