import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../../../src/base/bytes.ts";
import { BlockError } from "../../../../src/base/errors.ts";
import { type Random, seededRandom } from "../../../../src/base/random.ts";
import { Graph } from "../../../../src/block/graph.ts";
import { qcow2Driver } from "../../../../src/drivers/format/qcow2/index.ts";
import { crashState, LogStore, logStoreDriver } from "../log-store.ts";
import { Model, perform, randomChange } from "../model.ts";
import {
  type Disk,
  firstDifference,
  hasQemu,
  openDisk,
  qemuCheck,
  qemuImg,
  qemuIo,
  qemuRaw,
  readAll,
  testFolder,
  testWorld,
  writeRaw,
} from "../rig.ts";

const folder = testFolder();
const LEAKS = 3;
const STATES = 16;
const FAULTS = 6;

interface Case {
  readonly name: string;
  readonly options: string;
  readonly clusterBytes: number;
  readonly snapshot?: boolean;
  readonly grows?: boolean;
}

const cases: Case[] = [
  { name: "512 B clusters", options: "cluster_size=512", clusterBytes: 512, grows: true },
  {
    name: "64-bit refcounts",
    options: "cluster_size=512,refcount_bits=64",
    clusterBytes: 512,
    grows: true,
  },
  {
    name: "4 KiB clusters over a snapshot",
    options: "cluster_size=4k",
    clusterBytes: 4096,
    snapshot: true,
  },
  { name: "64 KiB clusters", options: "cluster_size=64k", clusterBytes: 65536 },
  {
    name: "extended L2 entries",
    options: "extended_l2=on,cluster_size=16k",
    clusterBytes: 16384,
    snapshot: true,
  },
];

/** What the guest may rely on from a moment on. */
interface Promised {
  /** Index in the log: the flush was over by then. */
  readonly from: number;
  readonly bytes: Uint8Array;
  /** 1 where something was under way after the flush began. */
  readonly touched: Uint8Array;
}

function makeImage({ options, snapshot }: Case): Uint8Array {
  qemuImg(folder, "create", "-q", "-f", "qcow2", "-o", options, "start.qcow2", "1M");
  qemuIo(folder, "start.qcow2", "write -P 3 100k 300k");
  if (snapshot) {
    qemuImg(folder, "snapshot", "-c", "kept", "start.qcow2");
    qemuIo(folder, "start.qcow2", "write -P 4 200k 10k");
  }
  return new Uint8Array(readFileSync(join(folder, "start.qcow2")));
}

/** With a cache so small that epochs also start on their own. */
async function openStore(store: LogStore): Promise<Disk> {
  const graph = new Graph(await testWorld(), [qcow2Driver(), logStoreDriver(store)] as never);
  const cache = { "cache-size": 16 * KiB };
  return openDisk(graph, {
    driver: "qcow2",
    ...cache,
    file: { driver: "log-store" },
    backing: null,
  });
}

/** Writes at random; notes what every guest flush has promised. */
async function runGuest(testCase: Case, store: LogStore, random: Random): Promise<Promised[]> {
  const disk = await openStore(store);
  const model = new Model(await readAll(disk));
  const promises: Promised[] = [];
  for (let i = 0; i < 70; i++) {
    if (testCase.grows && i === 35) {
      await disk.backend.truncate(5 * MiB);
      const longer = new Model(new Uint8Array(5 * MiB));
      longer.bytes.set(model.bytes);
      model.bytes = longer.bytes;
      model.anything = longer.anything;
      promises.length = 0;
      continue;
    }
    const chances = {
      length: model.bytes.length,
      clusterBytes: testCase.clusterBytes,
      mostBytes: 100 * KiB,
      packed: true,
    };
    const change =
      i % 9 === 8
        ? ({ kind: "flush", offset: 0, bytes: 0, fill: 0 } as const)
        : randomChange(random, chances);
    for (const { touched } of promises)
      touched.fill(1, change.offset, change.offset + change.bytes);
    await perform(disk.backend, change);
    model.apply(change);
    if (change.kind === "discard") model.settle(await readAll(disk));
    if (change.kind === "flush") {
      const touched = new Uint8Array(model.bytes.length);
      promises.push({ from: store.log.length, bytes: model.bytes.slice(), touched });
    }
  }
  await disk.close();
  return promises;
}

describe.skipIf(!hasQemu)("after a power cut at any moment", () => {
  it.each(cases)(
    "the image is clean or leaks, and flushed data is there: $name",
    async (testCase) => {
      const seed = 500 + cases.indexOf(testCase);
      const random = seededRandom(seed);
      const start = makeImage(testCase);
      const store = new LogStore(start);
      const promises = await runGuest(testCase, store, random);
      for (let i = 0; i < STATES; i++) {
        const end = i === 0 ? store.log.length : random.below(store.log.length + 1);
        const where = `seed ${seed}, state ${i}, cut at ${end} of ${store.log.length}`;
        writeRaw(folder, "crash.qcow2", crashState(start, store.log, end, random));
        const check = qemuCheck(folder, "crash.qcow2");
        expect([0, LEAKS], `${where}: ${check.text}`).toContain(check.status);
        expectPromised(promises, end, where);
      }
    },
  );

  it("this test can fail: where flushes mean nothing, it finds corrupt images", async () => {
    const random = seededRandom(77);
    const testCase = cases[2]!;
    const start = makeImage(testCase);
    const store = new LogStore(start);
    await runGuest(testCase, store, random);
    let corrupt = 0;
    for (let i = 0; i < 30; i++) {
      const end = random.below(store.log.length + 1);
      writeRaw(folder, "crash.qcow2", crashState(start, store.log, end, random, false));
      const { status } = qemuCheck(folder, "crash.qcow2");
      if (status !== 0 && status !== LEAKS) corrupt++;
    }
    expect(corrupt).toBeGreaterThan(3);
  });
});

/** Every sector that was flushed and not written since reads as it was. */
function expectPromised(promises: readonly Promised[], end: number, where: string): void {
  const last = promises.filter(({ from }) => from <= end).at(-1);
  if (!last) return;
  const seen = qemuRaw(folder, "crash.qcow2");
  expect(differenceBut(seen, last.bytes, last.touched), where).toBe(-1);
}

describe.skipIf(!hasQemu)("when the store fails", () => {
  it.each(cases.slice(1))(
    "the image stays sound, and what was written stays written: $name",
    async (testCase) => {
      const start = makeImage(testCase);
      const dry = new LogStore(start);
      await runFaulty(testCase, dry, 42);
      const total = dry.changes;
      for (let failAt = 1; failAt <= total; failAt += Math.ceil(total / FAULTS)) {
        for (const failures of [1, 3]) {
          const where = `${testCase.name}: change ${failAt} of ${total} fails, ${failures} in a row`;
          const store = new LogStore(start);
          store.failAt = failAt;
          store.failures = failures;
          const model = await runFaulty(testCase, store, 42);
          writeRaw(folder, "fault.qcow2", store.bytes);
          const check = qemuCheck(folder, "fault.qcow2");
          expect([0, LEAKS], `${where}: ${check.text}`).toContain(check.status);
          const seen = qemuRaw(folder, "fault.qcow2");
          for (let i = 0; i < seen.length; i++) {
            if (model.anything[i] || seen[i] === model.bytes[i]) continue;
            expect.fail(`${where}: byte ${i} is ${seen[i]}, not ${model.bytes[i]}`);
          }
        }
      }
    },
  );
});

describe.skipIf(!hasQemu)("a write that fails", () => {
  it("gives its room back: the image does not even leak", async () => {
    for (const testCase of cases) {
      const store = new LogStore(makeImage(testCase));
      const disk = await openStore(store);
      await disk.backend.write(new Uint8Array(512).fill(1), 0);
      await disk.backend.flush();
      for (const packed of [false, true]) {
        // Only data is written here: the table for it is there.
        store.failAt = store.changes + 1;
        const bytes = new Uint8Array(testCase.clusterBytes).fill(2);
        const at = testCase.clusterBytes * 2;
        const write = packed
          ? disk.backend.writeCompressed(bytes, at)
          : disk.backend.write(bytes, at);
        await expect(write).rejects.toMatchObject({ errno: "ENOSPC" });
      }
      // Behind them, so that qemu-img looks that far.
      await disk.backend.write(new Uint8Array(testCase.clusterBytes).fill(3), 900 * KiB);
      await disk.close();
      writeRaw(folder, "gives.qcow2", store.bytes);
      const check = qemuCheck(folder, "gives.qcow2");
      expect(check.status, `${testCase.name}: ${check.text}`).toBe(0);
    }
  });
});

/** Changes that may fail: then their range may be anything. Ends with a flush that works. */
async function runFaulty(testCase: Case, store: LogStore, seed: number): Promise<Model> {
  const random = seededRandom(seed);
  const disk = await openStore(store);
  const model = new Model(await readAll(disk));
  const { length } = disk.backend;
  for (let i = 0; i < 40; i++) {
    const change = randomChange(random, {
      length,
      clusterBytes: testCase.clusterBytes,
      mostBytes: 100 * KiB,
      packed: true,
    });
    model.apply(change);
    try {
      await perform(disk.backend, change);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      model.anything.fill(1, change.offset, change.offset + change.bytes);
    }
  }
  store.failAt = 0;
  expect(differenceBut(await readAll(disk), model.bytes, model.anything)).toBe(-1);
  await disk.backend.flush();
  expect(differenceBut(await readAll(disk), model.bytes, model.anything)).toBe(-1);
  await disk.close();
  return model;
}

/** The first byte that is wrong, of those that are not left open; or -1. */
function differenceBut(seen: Uint8Array, wanted: Uint8Array, open: Uint8Array): number {
  if (firstDifference(seen, wanted) === -1) return -1;
  for (let i = 0; i < wanted.length; i++) if (!open[i] && seen[i] !== wanted[i]) return i;
  return -1;
}
