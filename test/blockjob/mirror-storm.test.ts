/**
 * Mirrors in a storm: guests write, zero, discard, flush and read through the device, somebody else
 * writes below the filter, stores are slow and fail, users pause, drain, change speed and copy mode.
 * At the end, byte for byte: the target is the source, and what was written is there.
 */

import { expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { BlockError } from "../../src/base/errors.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import type { BlockBackend } from "../../src/block/backend.ts";
import * as io from "../../src/block/io.ts";
import type { BlockJob } from "../../src/blockjob/block-job.ts";
import { verbs } from "../../src/job/verbs.ts";
import { type MirrorRig, type MirrorRigOptions, mirrorRig, randomBytes } from "./mirror-rig.ts";

const SIZE = MiB + 4608;

const tiny = { driver: "tiny", size: SIZE, "cluster-size": 64 * KiB };
const image = (driver: string, name: string) => ({ driver: "qcow2", file: { driver, name } });

const DISKS: Record<string, Omit<MirrorRigOptions, "seed" | "size">> = {
  stores: {},
  "an overlay, to a store": {
    source: [
      { ...tiny, file: { driver: "memory", size: 0 } },
      { ...tiny, file: { driver: "source-store", size: 0 }, backing: "n0" },
    ],
  },
  "a store, to an image": { target: { ...tiny, file: { driver: "target-store", size: 0 } } },
  "qcow2 over qcow2, to qcow2": {
    images: [
      [
        { driver: "memory", name: "base" },
        { size: SIZE, "cluster-size": 4 * KiB },
      ],
      [
        { driver: "source-store", name: "over" },
        { size: SIZE, "backing-file": "base", "backing-fmt": "qcow2" },
      ],
      [
        { driver: "target-store", name: "copy" },
        { size: SIZE, "cluster-size": 32 * KiB },
      ],
    ],
    source: [image("memory", "base"), { ...image("source-store", "over"), backing: "n0" }],
    target: image("target-store", "copy"),
  },
  "under an explicit filter": {
    source: [
      { ...tiny, file: { driver: "source-store", size: 0 } },
      { driver: "copy-on-read", file: "n0" },
    ],
  },
};

/** What the disk must read as; 256 where it may be anything. */
class Model {
  readonly bytes = new Uint16Array(SIZE);
  /** Requests under way. */
  readonly #busy = new Set<{ offset: number; end: number; isKnown: boolean }>();

  /** What overlaps something under way may come out in either order. @returns its end */
  begin(offset: number, end: number): (value: ((at: number) => number) | null) => void {
    const range = { offset, end, isKnown: true };
    for (const other of this.#busy) {
      if (other.end <= offset || end <= other.offset) continue;
      other.isKnown = false;
      range.isKnown = false;
    }
    this.#busy.add(range);
    this.bytes.fill(256, offset, end);
    return (value) => {
      this.#busy.delete(range);
      if (!range.isKnown || !value) return;
      for (let at = offset; at < end; at++) this.bytes[at] = value(at - offset);
    };
  }

  check(content: Uint8Array, what: string): void {
    for (let at = 0; at < SIZE; at++) {
      const wanted = this.bytes[at]!;
      if (wanted === 256 || wanted === content[at]) continue;
      expect.fail(`${what}: byte ${at} is ${content[at]}, not ${wanted}`);
    }
  }
}

class Storm {
  readonly t: MirrorRig;
  readonly random: Random;
  readonly model = new Model();
  readonly running = new Set<Promise<void>>();
  readonly errors: unknown[] = [];

  constructor(t: MirrorRig, random: Random) {
    this.t = t;
    this.random = random;
  }

  /** One request of a guest, of any kind, anywhere, not waited for. */
  request(backend: BlockBackend): void {
    const { random, model } = this;
    const bytes = 1 + random.below(random.below(8) === 0 ? 200_000 : 9000);
    const offset = random.below(SIZE - Math.min(bytes, SIZE - 1));
    const end = Math.min(offset + bytes, SIZE);
    const kind = random.below(10);
    const data = randomBytes(random, end - offset);
    const run = async () => {
      if (kind >= 8) return kind === 8 ? backend.flush() : backend.read(data, offset);
      const done = model.begin(offset, end);
      let value: ((at: number) => number) | null = null;
      try {
        if (kind < 5) await backend.write(data, offset);
        else if (kind < 7)
          await backend.writeZeroes(offset, end - offset, { mayUnmap: kind === 5 });
        else await backend.discard(offset, end - offset);
        if (kind < 5) value = (at) => data[at]!;
        else if (kind < 7) value = () => 0;
      } finally {
        done(value);
      }
    };
    const running = run()
      .catch((error: unknown) => {
        if (!(error instanceof BlockError)) this.errors.push(error);
      })
      .finally(() => this.running.delete(running));
    this.running.add(running);
  }

  async settle(): Promise<void> {
    await this.t.clock.runUntil(Promise.all(this.running));
  }

  /** Something that users, jobs and bad luck do. */
  async trouble(job: BlockJob): Promise<void> {
    const { t, random } = this;
    const { clock } = t;
    switch (random.below(9)) {
      case 0:
        await verbs.pause(job).catch(allowRefusal);
        await clock.advance(random.below(60));
        await verbs.resume(job).catch(allowRefusal);
        return;
      case 1: {
        const name = ["top", "target"][random.below(2)]!;
        const section = await clock.runUntil(t.graph.drain([t.graph.get(name)]));
        await clock.advance(random.below(30));
        section.end();
        return;
      }
      case 2:
        t.targetStore.fault = { op: "write", errno: "EIO", times: 1 + random.below(3) };
        return;
      case 3:
        t.sourceStore.fault = {
          op: random.below(2) === 0 ? "read" : "write",
          errno: "EIO",
          times: 1,
        };
        return;
      case 4:
        if (!job.completed) job.setSpeed([0, 0, 2 * MiB, 20 * MiB][random.below(4)]!);
        return;
      case 5:
        if (!job.completed && random.below(3) === 0) {
          job.change({ type: "mirror", copyMode: "write-blocking" });
        }
        return;
      default: {
        const most = random.below(4);
        t.sourceStore.delayMs = () => random.below(most + 1);
        t.targetStore.delayMs = () => random.below(most * 2 + 1);
      }
    }
  }
}

function allowRefusal(error: unknown): void {
  if (!(error instanceof BlockError)) throw error;
}

/** The node as it is, past all doors. */
async function raw(t: MirrorRig, name: string): Promise<Buffer> {
  const buf = Buffer.alloc(SIZE);
  await t.clock.runUntil(io.read(t.graph.get(name), buf, 0, {}));
  return buf;
}

async function weather(disks: string, copyMode: "background" | "write-blocking", seed: number) {
  const random = seededRandom(seed);
  const t = await mirrorRig({ ...DISKS[disks], size: SIZE, seed });
  const what = `${disks}, ${copyMode}, seed ${seed}`;
  const storm = new Storm(t, random);
  // Somebody writes below all filters, and wants the new disk there, too.
  const data = disks.includes("filter") ? "n0" : "top";
  const side = t.open(data, "side");
  for (let i = 0; i < 20; i++) storm.request(t.disk);
  await storm.settle();

  // Requests are under way at the start, too.
  t.sourceStore.delayMs = () => random.below(5);
  for (let i = 0; i < 4; i++) storm.request(random.below(3) === 0 ? side : t.disk);
  const job = await t.start({
    copyMode,
    replaces: data,
    autoFinalize: false,
    onSourceError: "ignore",
    onTargetError: "ignore",
    granularity: [512, 4 * KiB, 64 * KiB][random.below(3)]!,
    bufSize: [64 * KiB, 1 * MiB, 16 * MiB][random.below(3)]!,
    speed: random.below(2) * 4 * MiB,
  });
  const end = 40 + random.below(40);
  for (let i = 0; i < 400 && !job.completed; i++) {
    if (storm.running.size < 6) storm.request(random.below(3) === 0 ? side : t.disk);
    if (random.below(8) === 0) await storm.trouble(job);
    await t.clock.advance(random.below(6));
    if (i >= end && job.ready && !job.completed) await verbs.complete(job).catch(allowRefusal);
    // The last requests are bigger than what a job ends over.
    if (i > 250) await t.clock.advance(120);
  }
  t.sourceStore.fault = null;
  t.targetStore.fault = null;
  for (let i = 0; i < 300 && !job.completed; i++) {
    await t.clock.advance(200);
    if (job.ready && i % 10 === 0) await verbs.complete(job).catch(allowRefusal);
  }
  expect(job.status, what).toBe("pending");

  // Guests wait at the door: both disks are the same, now and until the pivot.
  const [source, target] = [await raw(t, "top"), await raw(t, "target")];
  expect(Buffer.compare(source, target), what).toBe(0);
  for (let i = 0; i < 3; i++) storm.request(random.below(2) === 0 ? side : t.disk);
  await t.clock.advance(50);
  expect(Buffer.compare(await raw(t, "top"), source), what).toBe(0);

  await t.clock.runUntil(verbs.finalize(job));
  expect(job.error, what).toBe(null);
  expect(t.layers(), what).toEqual(["target"]);
  expect(side.node.name, what).toBe("target");
  for (let i = 0; i < 10; i++) storm.request(t.disk);
  await storm.settle();
  storm.model.check(await t.content(), what);
  expect(storm.errors, what).toEqual([]);
  expect(t.bugs, what).toEqual([]);
  expect(t.filters(), what).toEqual([]);
}

const runs = Number(process.env["MIRROR_SEEDS"] ?? 4);
for (const copyMode of ["background", "write-blocking"] as const) {
  for (const disks of Object.keys(DISKS)) {
    it(`#91 ${copyMode}, ${disks}: no byte is lost, in any weather (seeded)`, async () => {
      for (let seed = 1; seed <= runs; seed++) await weather(disks, copyMode, seed);
    }, 120_000);
  }
}
