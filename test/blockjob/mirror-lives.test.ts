/**
 * Mirrors and active commits whose engine is lost at any moment, again and again, while guests write: in
 * the end both disks are the same, and what was copied is not copied again.
 */

import { expect, it } from "vitest";
import { MiB } from "../../src/base/bytes.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import { regionsOf } from "../../src/block/intent-regions.ts";
import { startActiveCommit } from "../../src/blockjob/active-commit.ts";
import type { BlockJob } from "../../src/blockjob/block-job.ts";
import { startMirror } from "../../src/blockjob/mirror.ts";
import { verbs } from "../../src/job/verbs.ts";
import { BusyGuest, bytesOf, type Left, LIVES_SIZE, type Life, live, newImages } from "./lives.ts";

const SEEDS = Number(process.env["INTENT_SEEDS"] ?? 3);
const FIRST = Number(process.env["INTENT_FIRST"] ?? 1);

interface Kind {
  /** Files of the disks, and what is written to them before. */
  prepare(random: Random): Promise<Left>;
  /** Opens the nodes; the device is on `top`. */
  open(life: Life): Promise<void>;
  start(life: Life, intent: string | undefined, random: Random): Promise<BlockJob>;
  /** Node that is the disk at the end. */
  readonly target: string;
  /** Makes it that, where the end of the job does not. */
  finish?(life: Life): Promise<void>;
}

const qcow2 = (name: string, backing: string | null = null) => ({
  driver: "qcow2",
  "node-name": name,
  file: { driver: `${name}-store` },
  backing,
});

async function fill(life: Life, node: string, random: Random, count: number): Promise<void> {
  const device = life.device(node, "filler");
  for (let i = 0; i < count; i++) {
    const offset = random.below(LIVES_SIZE - MiB);
    await device.write(bytesOf(random, 1 + random.below(MiB)), offset);
  }
  await device.flush();
  await life.graph.closeBackend(device);
}

const mirrorOf = (copyMode: "background" | "write-blocking"): Kind => ({
  async prepare(random) {
    const life = await live(await newImages(["top", "target"], random), random, 0);
    await life.add(qcow2("top"));
    await fill(life, "top", random, 8);
    return { ...life.look(), intents: null };
  },
  async open(life) {
    await life.add(qcow2("top"));
    await life.add(qcow2("target"));
  },
  start: (life, intent) =>
    startMirror(life.services, {
      jobId: "j0",
      device: "vda",
      target: "target",
      sync: "full",
      copyMode,
      bufSize: MiB,
      intent,
    }),
  target: "target",
});

const KINDS: Record<string, Kind> = {
  mirror: mirrorOf("background"),
  "mirror, write-blocking": mirrorOf("write-blocking"),
  "mirror of the top layer, into clusters that are larger than regions": {
    async prepare(random) {
      const size = { "cluster-size": 2 * MiB };
      const labels = { "backing-file": "base", "backing-fmt": "qcow2" };
      const images = await newImages(["base", "top", "target"], random, {
        top: labels,
        target: { ...size, ...labels },
      });
      const life = await live(images, random, 0);
      await life.add(qcow2("base"));
      await fill(life, "base", random, 8);
      await life.add(qcow2("top", "base"));
      await fill(life, "top", random, 1);
      return { ...life.look(), intents: null };
    },
    async open(life) {
      await life.add({ ...qcow2("base"), "read-only": true });
      await life.add(qcow2("top", "base"));
      await life.add(qcow2("target"));
    },
    start: ({ services }, intent) =>
      startMirror(services, {
        jobId: "j0",
        device: "vda",
        target: "target",
        sync: "top",
        intent,
      }),
    target: "target",
    async finish({ graph }) {
      graph.setBacking(graph.get("target"), graph.get("base"));
    },
  },
  "active commit": {
    async prepare(random) {
      const life = await live(await newImages(["base", "top"], random), random, 0);
      await life.add(qcow2("base"));
      await fill(life, "base", random, 5);
      await life.add(qcow2("top", "base"));
      await fill(life, "top", random, 5);
      return { ...life.look(), intents: null };
    },
    async open(life) {
      await life.add({ ...qcow2("base"), "read-only": true });
      await life.add(qcow2("top", "base"));
    },
    start: ({ graph, services }, intent) =>
      startActiveCommit(services, {
        jobId: "j0",
        top: graph.get("top"),
        base: graph.get("base"),
        intent,
      }),
    target: "base",
  },
};

it.each(Object.entries(KINDS))(
  "after any crashes of a %s both disks are the same",
  async (_name, kind) => {
    for (let seed = FIRST; seed < FIRST + SEEDS; seed++) {
      const random = seededRandom(seed);
      let left = await kind.prepare(random);
      let intent: string | undefined;
      for (let epoch = 1; ; epoch++) {
        const life = await live(left, random, epoch);
        await kind.open(life);
        const isLast = epoch > 3;
        if (!isLast)
          life.dieAfter(5 + random.below(random.below(2) ? 200 : 1500), random.below(2) > 0);
        const guest = new BusyGuest(life.device("top"), random);
        let job: BlockJob | null = null;
        const started = kind.start(life, intent, random).then((it) => {
          job = it;
          if (random.below(2)) it.setSpeed((1 + random.below(4)) * MiB);
        });
        for (let i = 0; i < 40 && !life.remains; i++) {
          guest.act();
          await life.clock.advance(random.below(400));
          intent = journalOf(job)?.intent ?? intent;
        }
        if (!isLast) {
          left = life.remains ?? life.look();
          expect(life.bugs, `seed ${seed}, epoch ${epoch}`).toEqual([]);
          continue;
        }
        await life.clock.runUntil(Promise.all([started, guest.idle()]));
        await finish(life, job!);
        expect(guest.failures, `seed ${seed}`).toEqual([]);
        expect(life.bugs, `seed ${seed}`).toEqual([]);
        await kind.finish?.(life);
        const source = await life.content("top");
        const target = await life.content(kind.target);
        expect(Buffer.compare(source, target), `seed ${seed}`).toBe(0);
        break;
      }
    }
  },
  120_000,
);

function journalOf(job: BlockJob | null): { readonly intent?: string } | undefined {
  return job?.driver.journal?.(job);
}

/** Ready, and cancelled then: both disks stay as they are, and are the same. */
async function finish(life: Life, job: BlockJob): Promise<void> {
  job.setSpeed(0);
  for (let i = 0; i < 2000 && !job.ready && !job.completed; i++) await life.clock.advance(10);
  expect(job.ready).toBe(true);
  await verbs.cancel(job, false);
  await life.clock.runUntil(job.finished);
  expect(job.error).toBe(null);
}

/** Bytes that arrive in the target's file in one life. */
function bytesWritten(life: Life, name: string): number {
  let sum = 0;
  for (const entry of life.stores.get(name)!.log) {
    if (entry.kind === "write") sum += entry.bytes.length;
  }
  return sum;
}

it("copies what is not done on record, and nothing else", async () => {
  const random = seededRandom(1);
  const kind = KINDS["mirror"]!;
  const first = await live(await kind.prepare(random), random, 1);
  await kind.open(first);
  const disk = first.device("top");
  const job = await first.clock.runUntil(kind.start(first, undefined, random));
  for (let i = 0; i < 300 && !job.ready; i++) await first.clock.advance(100);
  await first.clock.advance(9000);
  await first.clock.runUntil(disk.write(new Uint8Array(512).fill(3), 3 * MiB));
  const all = bytesWritten(first, "target");
  expect(all).toBeGreaterThan(3 * MiB);
  const left = first.look();

  const second = await live(left, random, 2);
  await kind.open(second);
  second.device("top");
  const { intent } = journalOf(job)!;
  const again = await second.clock.runUntil(kind.start(second, intent, random));
  for (let i = 0; i < 300 && !again.ready; i++) await second.clock.advance(100);
  expect(again.ready).toBe(true);
  expect(bytesWritten(second, "target")).toBeLessThan(400 * 1024);
  expect(again.progress.total).toBe(256 * 1024);
  expect(Buffer.compare(await second.content("top"), await second.content("target"))).toBe(0);
});

it("begins anew if its record is gone, or somebody has written without it", async () => {
  const random = seededRandom(2);
  const kind = KINDS["mirror"]!;
  const first = await live(await kind.prepare(random), random, 1);
  await kind.open(first);
  first.device("top");
  const job = await first.clock.runUntil(kind.start(first, undefined, random));
  for (let i = 0; i < 300 && !job.ready; i++) await first.clock.advance(100);
  await first.clock.advance(9000);
  const { intent } = journalOf(job)!;
  for (const spoil of ["record", "source", "target"]) {
    let left: Left = first.look();
    if (spoil === "record") left = { ...left, intents: null };
    else {
      const between = await live(left, random, 2);
      await between.add(qcow2(spoil === "source" ? "top" : "target"));
      const disk = between.device(spoil === "source" ? "top" : "target");
      await between.clock.runUntil(disk.write(new Uint8Array(512).fill(77), MiB));
      await between.clock.runUntil(disk.flush());
      left = between.look();
    }
    const second = await live(left, random, 3);
    await kind.open(second);
    second.device("top");
    const again = await second.clock.runUntil(kind.start(second, intent, random));
    await finish(second, again);
    expect(again.progress.total, spoil).toBeGreaterThan(3 * MiB);
    const same = Buffer.compare(await second.content("top"), await second.content("target"));
    expect(same, spoil).toBe(0);
  }
});

it("of several layers commits into the lowest, and has on record that it alone is written", async () => {
  const random = seededRandom(4);
  const life = await live(await newImages(["base", "mid", "top"], random), random, 1);
  await life.add({ ...qcow2("base"), "read-only": true });
  await life.add({ ...qcow2("mid", "base"), "read-only": true });
  await life.add(qcow2("top", "mid"));
  await fill(life, "top", random, 2);
  const job = await life.clock.runUntil(KINDS["active commit"]!.start(life, undefined, random));
  for (let i = 0; i < 300 && !job.ready; i++) await life.clock.advance(100);
  const key = (name: string) => `${name}-store:${name}`;
  const {
    [key("top")]: a,
    [key("mid")]: b,
    [key("base")]: c,
  } = life.intentStore.record!.generations;
  expect([b, c]).toEqual([a! + 1, a! + 3]);
});

it("has on record all of a target's cluster that is copied as a whole", async () => {
  const kind = KINDS["mirror of the top layer, into clusters that are larger than regions"]!;
  const random = seededRandom(1);
  const first = await live(await kind.prepare(random), random, 1);
  await kind.open(first);
  const disk = first.device("top");
  const job = await first.clock.runUntil(kind.start(first, undefined, random));
  for (let i = 0; i < 300 && !job.ready; i++) await first.clock.advance(100);
  const [dirty] = first.graph.get("top").bitmaps.all();
  // No more than half of a cluster goes at once.
  job.setSpeed(MiB / 4);
  for (const at of [0, 2 * MiB]) {
    await first.clock.runUntil(disk.write(new Uint8Array(512).fill(3), at));
  }
  for (let ms = 0; ms < 30_000; ms += 100) {
    await first.clock.advance(100);
    const { records } = first.intentStore.record!;
    const { regions } = records[journalOf(job)!.intent!]!;
    const found = regionsOf(first.graph.world.kernel, regions)!;
    for (let at = 0; at < LIVES_SIZE; at += regions.regionBytes) {
      const isDirty = dirty!.nextDirty(at, at + regions.regionBytes) !== null;
      if (isDirty) expect(found.has(at / regions.regionBytes), `${at}, ${ms} ms`).toBe(true);
    }
  }
  expect(dirty!.count).toBe(0);
});
