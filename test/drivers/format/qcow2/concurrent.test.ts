/**
 * Many requests at once on one image, on a store that is slow and does them in any order: reads and
 * the end are as if they had come one after the other. More by CONCURRENT_SEEDS, one by
 * CONCURRENT_SEED.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB } from "../../../../src/base/bytes.ts";
import { type Random, seededRandom } from "../../../../src/base/random.ts";
import { VirtualClock } from "../../../../src/base/virtual-clock.ts";
import { Graph } from "../../../../src/block/graph.ts";
import { qcow2Driver } from "../../../../src/drivers/format/qcow2/index.ts";
import { rawDriver } from "../../../../src/drivers/format/raw.ts";
import { fileDriver } from "../../../../src/drivers/protocol/file.ts";
import { testWorld } from "../../../world.ts";
import { type Deed, FIRST, filled, History, UNIT_BYTES } from "../history.ts";
import {
  type Disk,
  firstDifference,
  hasQemu,
  openDisk,
  qemuCheck,
  qemuImg,
  qemuRaw,
  readAll,
  testFolder,
  writeRaw,
} from "../rig.ts";
import { SlowStore, slowStoreDriver } from "../slow-store.ts";

const folder = testFolder();
const SEEDS = Number(process.env["CONCURRENT_SEEDS"] ?? 2);
const ONLY = process.env["CONCURRENT_SEED"];
const GUESTS = 12;
const REQUESTS = 14;
const LENGTH = 512 * KiB;

interface Case {
  readonly name: string;
  readonly options: string;
  readonly clusterBytes: number;
  readonly backing?: boolean;
  /** Before it begins. */
  readonly snapshot?: boolean;
}

const cases: Case[] = [
  { name: "512 B clusters", options: "cluster_size=512", clusterBytes: 512 },
  { name: "4 KiB clusters", options: "cluster_size=4k", clusterBytes: 4096, snapshot: true },
  { name: "a backing file", options: "cluster_size=4k", clusterBytes: 4096, backing: true },
  { name: "64 KiB clusters", options: "cluster_size=64k", clusterBytes: 65536, snapshot: true },
  {
    name: "extended L2 entries over a backing file",
    options: "extended_l2=on,cluster_size=16k",
    clusterBytes: 16384,
    backing: true,
  },
  { name: "zstd", options: "compression_type=zstd,cluster_size=8k", clusterBytes: 8192 },
  { name: "8-bit refcounts", options: "refcount_bits=8,cluster_size=1k", clusterBytes: 1024 },
];

const seeds = ONLY ? [Number(ONLY)] : Array.from({ length: SEEDS }, (_, i) => 1 + i);

describe.skipIf(!hasQemu)("requests at once equal some order of them, and check is clean", () => {
  it.each(cases)(
    "$name",
    async (testCase) => {
      for (const seed of seeds) await run(testCase, seed);
    },
    60_000 + 10_000 * SEEDS,
  );
});

async function run(testCase: Case, seed: number): Promise<void> {
  const where = `CONCURRENT_SEED=${seed}`;
  const random = seededRandom(seed);
  const clock = new VirtualClock();
  const store = new SlowStore(makeImage(testCase));
  const drivers = [qcow2Driver(), rawDriver(), fileDriver(), slowStoreDriver(store, clock, random)];
  const graph = new Graph(await testWorld({ clock, seed }), drivers as never);
  const disk = await clock.runUntil(openDisk(graph, diskOptions(testCase, random)));
  const history = new History(testCase.backing ? FIRST : 0);
  const guests = Array.from({ length: GUESTS }, () =>
    guest(disk, testCase, random, history, clock, where),
  );
  const kept = snapshotInTheMiddle(disk, history, clock, random);
  await clock.runUntil(Promise.all(guests), 1_000_000);
  const finished = await clock.runUntil(kept);
  const end = await clock.runUntil(readAll(disk));
  expect(history.faultOfWhole(end), where).toBe(null);
  await clock.runUntil(disk.close());

  writeRaw(folder, "c.qcow2", store.bytes);
  const check = qemuCheck(folder, "c.qcow2");
  expect(check.status, `${where}: ${check.text}`).toBe(0);
  expect(firstDifference(qemuRaw(folder, "c.qcow2"), end), where).toBe(-1);
  qemuImg(folder, "snapshot", "-a", "middle", "c.qcow2");
  expect(history.faultOfWhole(qemuRaw(folder, "c.qcow2"), finished), `${where}, snapshot`).toBe(
    null,
  );
}

function makeImage({ options, backing, snapshot }: Case): Uint8Array {
  writeRaw(folder, "base.raw", filled(FIRST, LENGTH));
  const below = backing ? ["-b", "base.raw", "-F", "raw"] : [];
  qemuImg(folder, "create", "-q", "-f", "qcow2", "-o", options, ...below, "c.qcow2", `${LENGTH}`);
  if (snapshot) qemuImg(folder, "snapshot", "-c", "before", "c.qcow2");
  return new Uint8Array(readFileSync(join(folder, "c.qcow2")));
}

function diskOptions({ backing }: Case, random: Random) {
  return {
    driver: "qcow2",
    // Often so little that tables come and go, and epochs start on their own.
    ...(random.below(2) === 0 && { "cache-size": 0 }),
    file: { driver: "slow-store" },
    backing: backing
      ? {
          driver: "raw",
          "read-only": true,
          file: { driver: "file", filename: join(folder, "base.raw") },
        }
      : null,
  };
}

/** One request after the other; the guests do theirs side by side. */
async function guest(
  disk: Disk,
  testCase: Case,
  random: Random,
  history: History,
  clock: VirtualClock,
  where: string,
): Promise<void> {
  for (let i = 0; i < REQUESTS; i++) {
    await new Promise<void>((resolve) => {
      clock.setTimer(random.below(20), resolve);
    });
    await request(disk, testCase, random, history, where);
  }
}

async function request(
  disk: Disk,
  { clusterBytes }: Case,
  random: Random,
  history: History,
  where: string,
): Promise<void> {
  const { backend } = disk;
  const dice = random.below(20);
  if (dice === 0) return backend.flush();
  // Most go where others go, too: a few clusters.
  const hot = random.below(4) > 0 ? Math.min(LENGTH, 6 * clusterBytes) : LENGTH;
  const most = random.below(4) === 0 ? 5 * clusterBytes : 2 * clusterBytes;
  let bytes = UNIT_BYTES * (1 + random.below(Math.min(most, hot) / UNIT_BYTES));
  let offset = UNIT_BYTES * random.below((hot - bytes) / UNIT_BYTES + 1);
  if (dice < 6) {
    const start = history.now();
    const buf = new Uint8Array(bytes);
    await backend.read(buf, offset, { copyOnRead: random.below(3) === 0 });
    expect(history.faultOfRead(buf, offset, start, history.now()), where).toBe(null);
    return;
  }
  const isPacked = dice >= 17;
  if (isPacked) {
    bytes = clusterBytes;
    offset = clusterBytes * Math.floor(offset / clusterBytes);
  }
  const kind = isPacked || dice < 12 ? "write" : dice < 15 ? "zeroes" : "discard";
  const deed = history.begin(kind, offset, bytes);
  const data = filled(deed.value, bytes);
  if (isPacked) await backend.writeCompressed(data, offset);
  else if (kind === "write") await backend.write(data, offset);
  else if (kind === "discard") await backend.discard(offset, bytes);
  else await backend.writeZeroes(offset, bytes, { mayUnmap: random.below(2) === 0 });
  history.finish(deed);
}

/** @returns what was over by then; all else came after it */
async function snapshotInTheMiddle(
  disk: Disk,
  history: History,
  clock: VirtualClock,
  random: Random,
): Promise<Deed[]> {
  await new Promise<void>((resolve) => {
    clock.setTimer(50 + random.below(300), resolve);
  });
  const { graph, node } = disk;
  return graph.drained([node], async () => {
    const over = history.deeds.filter(({ end }) => end !== Number.POSITIVE_INFINITY);
    await node.state.snapshots!.create("middle", { seconds: 1, nanoseconds: 0 });
    return over.map((deed) => ({ ...deed }));
  });
}
