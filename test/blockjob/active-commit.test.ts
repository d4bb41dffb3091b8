/** block-commit of the active layer: a mirror into a layer below, which becomes the disk. */

import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { seededRandom } from "../../src/base/random.ts";
import type { BlockJob } from "../../src/blockjob/block-job.ts";
import { type CommitOptions, startCommit } from "../../src/blockjob/commit.ts";
import { verbs } from "../../src/job/verbs.ts";
import { type MirrorRig, mirrorRig, pattern, randomBytes } from "./mirror-rig.ts";

const SIZE = 2 * MiB;

/** base ◀ mid ◀ top, qcow2; base and mid can only be read, and were opened so. */
async function images(sizes: { base?: number; mid?: number } = {}): Promise<MirrorRig> {
  const create = (name: string, size: number, backing?: string) =>
    [
      { driver: name === "top" ? "source-store" : "target-store", name },
      { size, ...(backing && { "backing-file": backing, "backing-fmt": "qcow2" }) },
    ] as const;
  const open = (name: string, backing?: string) => ({
    driver: "qcow2",
    "node-name": name,
    file: { driver: name === "top" ? "source-store" : "target-store", name },
    ...(backing && { backing }),
  });
  const t = await mirrorRig({
    size: SIZE,
    images: [
      create("base", sizes.base ?? SIZE),
      create("mid", sizes.mid ?? SIZE, "base"),
      create("top", SIZE, "mid"),
    ],
    source: [open("base"), open("mid", "base"), open("top", "mid")],
  });
  for (const [name, offset, salt] of [
    ["base", 0, 2],
    ["mid", 500_000, 3],
    ["top", 900_000, 4],
  ] as const) {
    const backend = name === "top" ? t.disk : t.open(name, "filler");
    await t.fill(backend, offset, 400_000, salt);
    if (name === "top") continue;
    await t.clock.runUntil(t.graph.closeBackend(backend));
    await t.clock.runUntil(t.graph.reopen(t.graph.get(name), { readOnly: true }));
  }
  return t;
}

async function commit(t: MirrorRig, more: Partial<CommitOptions> = {}): Promise<BlockJob> {
  return t.clock.runUntil(startCommit(t.services, { jobId: "c0", device: "vda", ...more }));
}

const rights = (t: MirrorRig) => ["base", "mid", "top"].map((name) => t.graph.get(name).readOnly);

describe("active commit", () => {
  it("makes base the disk when it is completed; overlays can be taken away", async () => {
    const t = await images();
    const before = await t.content();
    const job = await commit(t);
    await t.ready(job);
    expect(job.driver.type).toBe("commit");
    await t.fill(t.disk, 100, 70_000, 5);
    const now = await t.content();
    await verbs.complete(job);
    await t.end(job);
    expect(t.story()).toBe("created running ready READY waiting pending COMPLETED concluded null");
    expect(t.bugs).toEqual([]);
    expect(t.layers()).toEqual(["base"]);
    expect(rights(t)).toEqual([false, true, false]);
    expect(Buffer.compare(await t.content(), now)).toBe(0);
    expect(Buffer.compare(now, before)).not.toBe(0);
    await t.fill(t.disk, 0, 5000, 6);
    for (const name of ["top", "mid"]) await t.clock.runUntil(t.graph.remove(name));
  });

  it("leaves the overlay, and base read-only, when it is cancelled, fails, or cannot start", async () => {
    for (const end of ["soft", "force", "early", "fail", "speed"] as const) {
      const t = await images();
      const before = await t.content();
      if (end === "speed") {
        await expect(commit(t, { speed: -1 })).rejects.toThrow("expects 0 or more");
      } else {
        const job = await commit(t, end === "early" ? { speed: 64 * KiB } : {});
        if (end === "early") await t.clock.advance(50);
        else await t.ready(job);
        if (end === "fail") {
          t.targetStore.fault = { op: "write", errno: "EIO" };
          await t.fill(t.disk, 0, 512, 1);
          before.set(pattern(0, 512, 1), 0);
        } else await verbs.cancel(job, end !== "soft");
        await t.end(job);
        t.targetStore.fault = null;
      }
      expect(t.layers(), end).toEqual(["top", "mid", "base"]);
      expect(rights(t), end).toEqual([true, true, false]);
      expect(Buffer.compare(await t.content(), before), end).toBe(0);
      expect(t.filters()).toEqual([]);
      expect(t.bugs).toEqual([]);
      for (const node of t.graph.nodes) expect(node.blockers.size).toBe(0);
    }
  });

  it("grows a base that is smaller, and leaves a longer one as it is", async () => {
    for (const base of [MiB, 3 * MiB]) {
      const t = await images({ base });
      const job = await commit(t);
      await t.ready(job);
      const before = await t.content();
      await verbs.complete(job);
      await t.end(job);
      expect(job.error).toBe(null);
      expect(t.disk.length).toBe(Math.max(base, SIZE));
      expect(Buffer.compare((await t.content()).subarray(0, SIZE), before)).toBe(0);
    }
  });

  it("#54 of no bytes is ready at once", async () => {
    const tiny = { driver: "tiny", size: 0, "cluster-size": 64 * KiB, file: { driver: "memory" } };
    const file = { driver: "memory", size: 0 };
    const t = await mirrorRig({
      size: 0,
      source: [
        { ...tiny, file },
        { ...tiny, file, backing: "n0" },
      ],
    });
    const job = await commit(t);
    await t.ready(job);
    expect(job.info()).toMatchObject({ len: 0, offset: 0, ready: true });
    await verbs.complete(job);
    await t.end(job);
    expect(t.layers()).toEqual(["n0"]);
  });

  it("#78 on an error: report, stop and ignore, for reads and writes", async () => {
    for (const op of ["read", "write"] as const) {
      for (const onError of ["report", "stop", "ignore"] as const) {
        const t = await images();
        const before = await t.content();
        const store = op === "read" ? t.sourceStore : t.targetStore;
        const go = t.sourceStore.hold("read");
        const job = await commit(t, { onError });
        store.fault = { op, errno: "EIO" };
        go();
        await t.clock.advance(1000);
        const what = `${op} ${onError}`;
        if (onError === "report") {
          expect(t.story(), what).toMatch(
            /^created running ERROR\(\w+,report\) aborting COMPLETED\(Injected \w+ error\) concl/,
          );
          expect(t.layers()).toEqual(["top", "mid", "base"]);
          store.fault = null;
          expect(Buffer.compare(await t.content(), before), what).toBe(0);
          continue;
        }
        if (onError === "stop") {
          expect(t.story(), what).toMatch(/^created running ERROR\(\w+,stop\) paused$/);
          store.fault = null;
          await verbs.resume(job);
        } else {
          expect(t.story(), what).toMatch(/^created running( ERROR\(\w+,ignore\))+$/);
          store.fault = null;
        }
        await t.ready(job);
        await verbs.complete(job);
        await t.end(job);
        expect(t.story()).toMatch(/ready READY waiting pending COMPLETED concluded null$/);
        expect(t.layers()).toEqual(["base"]);
        expect(Buffer.compare(await t.content(), before), what).toBe(0);
      }
    }
  });

  it("#80 filters in the chain: those that are committed vanish, the one above stays if top is named", async () => {
    for (const topNode of [undefined, "data"]) {
      const tiny = { driver: "tiny", size: SIZE, "cluster-size": 64 * KiB };
      const file = { driver: "memory", size: 0 };
      const t = await mirrorRig({
        size: SIZE,
        source: [
          { ...tiny, file, "node-name": "base" },
          { driver: "copy-on-read", "node-name": "over-base", file: "base" },
          { ...tiny, file, "node-name": "mid", backing: "over-base" },
          { driver: "copy-on-read", "node-name": "between", file: "mid" },
          { ...tiny, file, "node-name": "data", backing: "between" },
          { driver: "copy-on-read", file: "data" },
        ],
      });
      await t.fill(t.disk, 0, MiB, 3);
      const before = await t.content();
      const job = await commit(t, { topNode, baseNode: "base" });
      await t.ready(job);
      await t.fill(t.disk, MiB, 1000, 4);
      before.set(pattern(MiB, 1000, 4), MiB);
      await verbs.complete(job);
      await t.end(job);
      expect(job.error).toBe(null);
      expect(t.disk.node.name).toBe(topNode ? "top" : "base");
      expect(t.layers()).toEqual(["base"]);
      expect(Buffer.compare(await t.content(), before)).toBe(0);
      if (topNode === undefined) await t.clock.runUntil(t.graph.remove("top"));
      await t.clock.runUntil(t.graph.remove("data"));
    }
  });

  it("#83 shows the same chain to who asks while it runs", async () => {
    const t = await images();
    const job = await commit(t);
    expect(t.layers()).toEqual(["top", "mid", "base"]);
    expect(t.filters()[0]!.implicit).toBe(true);
    await verbs.cancel(job, true);
    await t.end(job);
  });

  it("#84 snapshot, active commit, complete, and the same again", async () => {
    const t = await images();
    const tiny = { driver: "tiny", size: SIZE, "cluster-size": 64 * KiB };
    const first = await commit(t);
    await t.ready(first);
    await verbs.complete(first);
    await t.end(first);
    for (const name of ["top", "mid"]) await t.clock.runUntil(t.graph.remove(name));
    for (const round of [1, 2]) {
      const overlay = `over${round}`;
      const below = t.disk.node;
      await t.graph.add({
        ...tiny,
        "node-name": overlay,
        file: { driver: "memory", size: 0 },
        backing: below.name,
      });
      await t.clock.runUntil(
        t.graph.drained([below], () => {
          t.graph.replaceNode(below, t.graph.get(overlay));
        }),
      );
      expect(t.layers()).toEqual([overlay, "base"]);
      await t.fill(t.disk, round * 10_000, 200_000, 7 + round);
      const before = await t.content();
      const job = await commit(t);
      await t.ready(job);
      await verbs.complete(job);
      await t.end(job);
      expect(job.error).toBe(null);
      expect(t.layers()).toEqual(["base"]);
      expect(Buffer.compare(await t.content(), before)).toBe(0);
      await t.clock.runUntil(t.graph.remove(overlay));
    }
  });

  it("keeps others from reading what is between the disks", async () => {
    const t = await images();
    const job = await commit(t);
    expect(() => t.open("mid", "reader")).toThrow("Permission conflict");
    for (const name of ["top", "mid", "base"]) {
      expect(() => t.graph.get(name).checkOperation("stream")).toThrow("block job: commit");
    }
    expect(() => job.change({ type: "mirror", copyMode: "write-blocking" })).toThrow("commit");
    expect(job.info()).not.toHaveProperty("actively-synced");
    await verbs.cancel(job, true);
    await t.end(job);
  });

  it("loses no guest write, in any interleaving (seeded)", async () => {
    for (let seed = 1; seed <= 6; seed++) {
      const random = seededRandom(seed);
      const t = await images(random.below(2) === 0 ? {} : { base: MiB });
      const model = await t.content();
      t.sourceStore.delayMs = () => random.below(3);
      t.targetStore.delayMs = () => random.below(4);
      const job = await commit(t, { speed: random.below(2) * 8 * MiB, onError: "ignore" });
      for (let i = 0; i < 150 && !job.completed; i++) {
        const offset = random.below(SIZE - 5000);
        const data = randomBytes(random, 1 + random.below(5000));
        model.set(data, offset);
        const write = t.disk.write(data, offset);
        if (random.below(3) === 0) await t.clock.advance(random.below(30));
        if (random.below(20) === 0) t.targetStore.fault = { op: "write", errno: "EIO", times: 2 };
        if (i > 100 && job.ready && !job.completed) await verbs.complete(job);
        await t.clock.runUntil(write);
      }
      await t.ready(job);
      if (!job.completed) await verbs.complete(job);
      await t.end(job);
      expect(job.error, `seed ${seed}`).toBe(null);
      expect(t.layers(), `seed ${seed}`).toEqual(["base"]);
      expect(Buffer.compare(await t.content(), model), `seed ${seed}`).toBe(0);
      expect(t.bugs).toEqual([]);
    }
  });
});
