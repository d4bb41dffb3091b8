/**
 * Stream and commit under a guest that never rests, with faults, pauses and drains, against a model
 * of bytes; and what both of them may move in a second. Everything comes from a seed.
 */

import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { BlockError } from "../../src/base/errors.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import type { BlockJob } from "../../src/blockjob/block-job.ts";
import { startCommit } from "../../src/blockjob/commit.ts";
import { startStream } from "../../src/blockjob/stream.ts";
import { verbs } from "../../src/job/verbs.ts";
import { chain } from "./rig.ts";

type Rig = Awaited<ReturnType<typeof chain>>;
type Start = (t: Rig, more: { speed?: number; onError?: "stop" | "ignore" }) => Promise<BlockJob>;

const NAMES = ["base", "low", "mid", "top"];
const stores = { low: "faulty-mid" };
const SIZE = 4 * MiB;

const JOBS: Record<string, { readonly start: Start; readonly after: string; ignores: boolean }> = {
  commit: {
    start: (t, more) =>
      startCommit(t.services, { device: "vda", jobId: "j0", topNode: "mid", ...more }),
    after: "top base",
    ignores: true,
  },
  "commit of one layer": {
    start: (t, more) =>
      startCommit(t.services, {
        device: "vda",
        jobId: "j0",
        topNode: "low",
        baseNode: "base",
        ...more,
      }),
    after: "top mid base",
    ignores: true,
  },
  stream: {
    start: (t, more) => startStream(t.services, { device: "vda", jobId: "j0", ...more }),
    after: "top",
    ignores: false,
  },
  "stream down to a base": {
    start: (t, more) =>
      startStream(t.services, { device: "vda", jobId: "j0", baseNode: "low", ...more }),
    after: "top low base",
    ignores: false,
  },
  "stream in the middle": {
    start: (t, more) =>
      startStream(t.services, { device: "mid", jobId: "j0", baseNode: "base", ...more }),
    after: "top mid base",
    ignores: false,
  },
};

describe.each(Object.entries(JOBS))("%s, in a storm", (_name, { start, after, ignores }) => {
  it("loses no byte, and shows no wrong one at any time (seeded)", async () => {
    for (let seed = 1; seed <= 12; seed++) {
      const random = seededRandom(seed);
      // Shorter layers are what it is easy to be wrong about.
      const sizes = random.below(2) === 0 ? {} : { base: 2 * MiB, low: 3 * MiB };
      const t = await chain(NAMES, SIZE, { stores, sizes });
      await zeroSome(t, random);
      const guest = new Guest(t, random, `seed ${seed}`);
      await guest.begin();
      const onError = ignores && random.below(2) === 0 ? "ignore" : "stop";
      const speed = random.below(3) * 3 * MiB;
      const job = await start(t, { speed, onError });
      for (let step = 0; step < 60; step++) {
        guest.act();
        await disturb(t, job, random);
        if (random.below(2) === 0) await t.clock.advance(random.below(60));
      }
      for (const store of [t.faulty, t.midStore, t.topStore]) store.fault = null;
      if (job.userPaused) await verbs.resume(job);
      await t.clock.runUntil(Promise.all([job.finished, guest.rest()]));
      expect(job.error, `seed ${seed}`).toBe(null);
      expect(t.bugs, `seed ${seed}`).toEqual([]);
      expect(t.layers().join(" "), `seed ${seed}`).toBe(after);
      await guest.check();
    }
  });
});

/** One of: a fault comes or goes, a pause, a drain, another speed. */
async function disturb(t: Rig, job: BlockJob, random: Random): Promise<void> {
  if (job.completed) return;
  switch (random.below(9)) {
    case 0:
      t.faulty.fault = {
        op: random.below(2) === 0 ? "read" : "write",
        errno: "EIO",
        after: random.below(4),
      };
      return;
    case 1:
      t.midStore.fault = { op: "read", errno: "EIO", offset: random.below(SIZE) };
      return;
    case 2:
    case 3:
      t.faulty.fault = null;
      t.midStore.fault = null;
      return;
    case 4:
      if (job.userPaused) await verbs.resume(job);
      else await verbs.pause(job);
      return;
    case 5: {
      const nodes = NAMES.map((name) => t.graph.get(name));
      const drained = t.graph.drained([nodes[random.below(nodes.length)]!], () => {});
      await t.clock.runUntil(drained);
      return;
    }
    case 6:
      if (job.status === "running") job.setSpeed(random.below(4) * MiB);
      return;
    default:
      if (job.userPaused && random.below(2) === 0) await verbs.resume(job);
  }
}

async function zeroSome(t: Rig, random: Random): Promise<void> {
  for (const name of ["low", "mid"]) {
    const device = t.open(name, "writer");
    for (let i = 0; i < 4; i++) {
      const offset = random.below(device.length - 300 * KiB);
      await device.writeZeroes(offset, 1 + random.below(300 * KiB));
    }
    await t.graph.closeBackend(device);
  }
}

/** Does I/O of all kinds, never twice at once at the same bytes, so that a model can follow. */
class Guest {
  readonly #t: Rig;
  readonly #random: Random;
  readonly #context: string;
  readonly #busy = new Set<{ readonly offset: number; readonly end: number }>();
  readonly #running = new Set<Promise<void>>();
  #model: Buffer = Buffer.alloc(0);

  constructor(t: Rig, random: Random, context: string) {
    this.#t = t;
    this.#random = random;
    this.#context = context;
  }

  async begin(): Promise<void> {
    this.#model = await this.#t.content();
  }

  /** Begins a request. */
  act(): void {
    const random = this.#random;
    const offset = random.below(SIZE - 80_000);
    const end = offset + 1 + random.below(random.below(4) === 0 ? 80_000 : 5000);
    for (const other of this.#busy) if (offset < other.end && other.offset < end) return;
    const range = { offset, end };
    this.#busy.add(range);
    const running = this.#request(offset, end - offset).then(() => {
      this.#busy.delete(range);
      this.#running.delete(running);
    });
    this.#running.add(running);
  }

  async rest(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  async check(): Promise<void> {
    const now = await this.#t.content();
    const isSame = now.equals(this.#model);
    const at = isSame ? -1 : now.findIndex((byte, i) => byte !== this.#model[i]);
    expect(at, `${this.#context}: first wrong byte`).toBe(-1);
  }

  async #request(offset: number, bytes: number): Promise<void> {
    const { disk } = this.#t;
    switch (this.#random.below(7)) {
      case 0:
        this.#model.fill(0, offset, offset + bytes);
        return this.#untilDone(() => disk.writeZeroes(offset, bytes, { mayUnmap: true }));
      case 1:
        // The test format does nothing then, and so does the model.
        return this.#untilDone(() => disk.discard(offset, bytes));
      case 2:
        return this.#untilDone(() => disk.flush());
      case 3:
      case 4: {
        const buf = Buffer.alloc(bytes);
        await this.#untilDone(() => disk.read(buf, offset));
        const same = buf.equals(this.#model.subarray(offset, offset + bytes));
        expect(same, `${this.#context}: ${bytes} bytes at ${offset} read right`).toBe(true);
        return;
      }
      default: {
        const data = Buffer.alloc(bytes);
        this.#random.fill(data);
        this.#model.set(data, offset);
        return this.#untilDone(() => disk.write(data, offset));
      }
    }
  }

  /** What fails leaves its range in any state, so it is done again. */
  async #untilDone(request: () => Promise<void>): Promise<void> {
    for (;;) {
      try {
        return await request();
      } catch (error) {
        if (!(error instanceof BlockError)) throw error;
        await new Promise<void>((resolve) => void this.#t.clock.setTimer(20, resolve));
      }
    }
  }
}

describe("the bytes that move in any second", () => {
  const SPEEDS = [1, 7000, 100 * KiB, 700_001, MiB, 3 * MiB, 20 * MiB];
  const CHUNK = 512 * KiB;

  it.each(["commit", "stream"])("#48 are at most the speed and one chunk: %s", async (name) => {
    for (const speed of SPEEDS) {
      for (const isDisturbed of [false, true]) {
        const t = await chain(["base", "mid", "top"], 16 * MiB, { stores: { mid: "faulty-mid" } });
        await t.write("mid", 9);
        const moved: { atMs: number; bytes: number }[] = [];
        const target = name === "commit" ? t.faulty : t.topStore;
        target.hear = (op, _offset, bytes) => {
          if (op === "write") moved.push({ atMs: t.clock.now(), bytes });
        };
        const job = await JOBS[name]!.start(t, { speed });
        for (let i = 0; i < 40; i++) {
          await t.clock.advance(137);
          if (!isDisturbed || job.completed) continue;
          await verbs.pause(job);
          await t.clock.advance(i % 3);
          await verbs.resume(job);
          await t.clock.runUntil(t.graph.drained([t.graph.get("mid")], () => {}));
        }
        await verbs.cancel(job, true).catch(() => {});
        await t.clock.runUntil(job.finished);
        expect(moved.length, `${speed}`).toBeGreaterThan(0);
        expect(worstSecond(moved), `speed ${speed}`).toBeLessThanOrEqual(speed + CHUNK);
        if (speed < MiB) continue;
        const total = moved.reduce((sum, { bytes }) => sum + bytes, 0);
        expect(total, "and it does move").toBeGreaterThan(Math.min(16 * MiB, speed * 4) * 0.8);
      }
    }
  });

  it("are no more where the overlay's clusters are larger than those below", async () => {
    const cluster = 512 * KiB;
    const clusters = { top: cluster };
    const t = await chain(["base", "mid", "top"], 16 * MiB, { clusters });
    const moved: { atMs: number; bytes: number }[] = [];
    t.topStore.hear = (op, _offset, bytes) => {
      if (op === "write") moved.push({ atMs: t.clock.now(), bytes });
    };
    // Of every third 64 KiB of mid all of top's cluster is copied.
    const job = await t.stream({ device: "vda", jobId: "s0", baseNode: "base", speed: MiB });
    expect(job.error).toBe(null);
    expect(worstSecond(moved)).toBeLessThanOrEqual(MiB + CHUNK);
  });

  function worstSecond(moved: readonly { atMs: number; bytes: number }[]): number {
    let worst = 0;
    for (const { atMs } of moved) {
      const within = moved.filter((one) => one.atMs <= atMs && one.atMs > atMs - 1000);
      worst = Math.max(
        worst,
        within.reduce((sum, { bytes }) => sum + bytes, 0),
      );
    }
    return worst;
  }
});
