/**
 * Internal snapshots: what is there once they are done, and when requests fail. What a crash leaves of
 * them is looked at in test/crash/.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB } from "../../../../src/base/bytes.ts";
import { BlockError } from "../../../../src/base/errors.ts";
import { type Random, seededRandom } from "../../../../src/base/random.ts";
import { Graph } from "../../../../src/block/graph.ts";
import { qcow2Driver } from "../../../../src/drivers/format/qcow2/index.ts";
import { crashState } from "../../../crash/states.ts";
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
const TAKEN = { seconds: 1_700_000_000, nanoseconds: 0 };

interface Case {
  readonly name: string;
  readonly options: string;
  readonly clusterBytes: number;
}

const cases: Case[] = [
  { name: "512 B clusters", options: "cluster_size=512", clusterBytes: 512 },
  { name: "4 KiB clusters, version 2", options: "compat=v2,cluster_size=4k", clusterBytes: 4096 },
  {
    name: "extended L2 entries, 4-bit refcounts",
    options: "extended_l2=on,cluster_size=16k,refcount_bits=4",
    clusterBytes: 16384,
  },
];

type Operation = "create" | "apply" | "delete";
const operations: Operation[] = ["create", "apply", "delete"];
const runs = cases.flatMap((testCase) =>
  operations.map((operation) => ({
    ...testCase,
    operation,
    title: `${operation}, ${testCase.name}`,
  })),
);

function makeImage({ options }: Case): Uint8Array {
  qemuImg(folder, "create", "-q", "-f", "qcow2", "-o", options, "start.qcow2", "700k");
  qemuIo(folder, "start.qcow2", "write -P 3 20k 300k");
  qemuImg(folder, "snapshot", "-c", "kept", "start.qcow2");
  qemuIo(folder, "start.qcow2", "write -P 4 100k 40k", "write -P 5 400k 100k", "write -z 30k 40k");
  return new Uint8Array(readFileSync(join(folder, "start.qcow2")));
}

async function openStore(store: LogStore): Promise<Disk> {
  const graph = new Graph(await testWorld(), [qcow2Driver(), logStoreDriver(store)] as never);
  return openDisk(graph, {
    driver: "qcow2",
    "cache-size": 16 * KiB,
    file: { driver: "log-store" },
    backing: null,
  });
}

async function writeSome(disk: Disk, model: Model, testCase: Case, random: Random): Promise<void> {
  for (let i = 0; i < 6; i++) {
    const change = randomChange(random, {
      length: model.bytes.length,
      clusterBytes: testCase.clusterBytes,
      mostBytes: 60 * KiB,
      packed: true,
    });
    await perform(disk.backend, change);
    model.apply(change);
  }
  model.settle(await readAll(disk));
}

function run(disk: Disk, operation: Operation): Promise<unknown> {
  const store = disk.node.state.snapshots!;
  if (operation === "create") return store.create("new", TAKEN);
  return operation === "apply" ? store.apply("1") : store.delete("1");
}

/** What an image may be: a disk, and what is in its snapshots. */
interface Whole {
  readonly disk: Uint8Array;
  readonly snapshots: Readonly<Record<string, Uint8Array>>;
}

/** Empty, or what is wrong. */
function difference(image: string, { disk, snapshots }: Whole): string {
  const info = JSON.parse(qemuImg(folder, "info", "--output=json", "-f", "qcow2", image));
  const names = (info.snapshots ?? []).map(({ name }: { name: string }) => name);
  if (names.join() !== Object.keys(snapshots).join()) return `snapshots ${names.join()}`;
  if (firstDifference(qemuRaw(folder, image), disk) !== -1) return "the disk";
  for (const [name, bytes] of Object.entries(snapshots)) {
    if (firstDifference(snapshotBytes(image, name), bytes) !== -1) return `snapshot ${name}`;
  }
  return "";
}

function snapshotBytes(image: string, name: string): Uint8Array {
  const out = join(folder, "snapshot.raw");
  qemuImg(folder, "convert", "-l", `snapshot.name=${name}`, "-f", "qcow2", "-O", "raw", image, out);
  return new Uint8Array(readFileSync(out));
}

describe.skipIf(!hasQemu)("once it is done, a snapshot's", () => {
  it.each(runs)(
    "$title: is done for good, and there is no leak",
    async ({ operation, ...testCase }) => {
      const random = seededRandom(900 + runs.findIndex((one) => one.title === testCase.title));
      const start = makeImage(testCase);
      const kept = snapshotBytes("start.qcow2", "kept");
      const store = new LogStore(start);
      const disk = await openStore(store);
      const model = new Model(await readAll(disk));
      await writeSome(disk, model, testCase, random);
      await disk.backend.flush();
      const before = model.bytes.slice();
      await run(disk, operation);
      const after: Whole = {
        disk: operation === "apply" ? kept : before,
        snapshots: operation === "delete" ? {} : { kept },
      };
      if (operation === "create") Object.assign(after.snapshots, { new: before });
      const { log } = store;
      writeRaw(folder, "done.qcow2", crashState(start, log, log.length, random));
      expect(qemuCheck(folder, "done.qcow2")).toMatchObject({ status: 0 });
      expect(difference("done.qcow2", after)).toBe("");

      await writeSome(disk, model, testCase, random);
      await disk.close();
      writeRaw(folder, "closed.qcow2", store.bytes);
      expect(qemuCheck(folder, "closed.qcow2")).toMatchObject({ status: 0 });
    },
  );
});

describe.skipIf(!hasQemu)("a store that fails during a snapshot's", () => {
  it.each(runs)(
    "$title: nothing has happened, and no room is lost",
    async ({ operation, ...testCase }) => {
      const start = makeImage(testCase);
      const kept = snapshotBytes("start.qcow2", "kept");
      const dry = new LogStore(start);
      const first = await openStore(dry);
      const was: Whole = { disk: await readAll(first), snapshots: { kept } };
      await run(first, operation);
      const total = dry.changes;
      await first.close();
      for (let failAt = 1; failAt <= total; failAt += Math.ceil(total / 12)) {
        const where = `change ${failAt} of ${total} fails`;
        const store = new LogStore(start);
        const disk = await openStore(store);
        const base = store.changes;
        store.failAt = base + failAt;
        await expect(run(disk, operation), where).rejects.toBeInstanceOf(BlockError);
        store.failAt = 0;
        expect(disk.node.state.snapshots!.list().map(({ name }) => name)).toEqual(["kept"]);
        expect(firstDifference(await readAll(disk), was.disk), where).toBe(-1);
        const switched = await disk.backend
          .write(new Uint8Array(1000).fill(9), 500 * KiB)
          .then(() => false)
          .catch((error: BlockError) => error.errno === "EIO");
        await disk.close();
        writeRaw(folder, "failed.qcow2", store.bytes);
        const check = qemuCheck(folder, "failed.qcow2");
        // After a header of which nobody knows whether it is there, nothing more is written.
        expect(switched ? [0, LEAKS] : [0], `${where}: ${check.text}`).toContain(check.status);
        if (switched) continue;
        was.disk.fill(9, 500 * KiB, 500 * KiB + 1000);
        expect(difference("failed.qcow2", was), where).toBe("");
        was.disk.set((await original(start)).subarray(500 * KiB, 500 * KiB + 1000), 500 * KiB);
      }
    },
  );

  async function original(start: Uint8Array): Promise<Uint8Array> {
    writeRaw(folder, "original.qcow2", start);
    return qemuRaw(folder, "original.qcow2");
  }
});
