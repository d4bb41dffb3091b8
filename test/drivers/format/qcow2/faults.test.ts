/** Requests that fail: the image stays sound. What a crash leaves is looked at in test/crash/. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB } from "../../../../src/base/bytes.ts";
import { BlockError } from "../../../../src/base/errors.ts";
import { seededRandom } from "../../../../src/base/random.ts";
import { Graph } from "../../../../src/block/graph.ts";
import { qcow2Driver } from "../../../../src/drivers/format/qcow2/index.ts";
import { LogStore, logStoreDriver } from "../log-store.ts";
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
const FAULTS = 6;

interface Case {
  readonly name: string;
  readonly options: string;
  readonly clusterBytes: number;
  readonly snapshot?: boolean;
}

const cases: Case[] = [
  { name: "512 B clusters", options: "cluster_size=512", clusterBytes: 512 },
  {
    name: "64-bit refcounts",
    options: "cluster_size=512,refcount_bits=64",
    clusterBytes: 512,
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
