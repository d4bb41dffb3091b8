import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB } from "../../../../src/base/bytes.ts";
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
const STATES = 20;
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

describe.skipIf(!hasQemu)("a power cut during a snapshot's", () => {
  it.each(runs)(
    "$title: the image is as before or as after, with leaks at most",
    async ({ operation, ...testCase }) => {
      const seed = 900 + runs.findIndex((one) => one.title === testCase.title);
      const random = seededRandom(seed);
      const start = makeImage(testCase);
      const kept = snapshotBytes("start.qcow2", "kept");
      const store = new LogStore(start);
      const disk = await openStore(store);
      const model = new Model(await readAll(disk));
      await writeSome(disk, model, testCase, random);
      await disk.backend.flush();
      const from = store.log.length;
      const before: Whole = { disk: model.bytes.slice(), snapshots: { kept } };
      await run(disk, operation);
      const to = store.log.length;
      const after: Whole = {
        disk: operation === "apply" ? kept : before.disk,
        snapshots: operation === "delete" ? {} : { kept },
      };
      if (operation === "create") Object.assign(after.snapshots, { new: before.disk });
      // When it is done it is done, and there is no leak, whatever comes later.
      writeRaw(folder, "done.qcow2", crashState(start, store.log, to, random));
      expect(qemuCheck(folder, "done.qcow2")).toMatchObject({ status: 0 });
      expect(difference("done.qcow2", after)).toBe("");

      const seen = { before: 0, after: 0 };
      for (let i = 0; i < STATES; i++) {
        // The switch is the last write but the flush behind it.
        const end = i < 3 ? to - i : from + random.below(to - from + 1);
        const where = `seed ${seed}, state ${i}, cut at ${end} of ${from}..${to}`;
        writeRaw(folder, "crash.qcow2", crashState(start, store.log, end, random));
        const check = qemuCheck(folder, "crash.qcow2");
        expect([0, LEAKS], `${where}: ${check.text}`).toContain(check.status);
        const asBefore = difference("crash.qcow2", before);
        const asAfter = difference("crash.qcow2", after);
        if (asBefore === "") seen.before++;
        else expect(asAfter, where).toBe("");
        if (asAfter === "") seen.after++;
      }
      expect(seen.before, `seed ${seed}`).toBeGreaterThan(0);
      expect(seen.after, `seed ${seed}`).toBeGreaterThan(0);

      await writeSome(disk, model, testCase, random).catch(() => {});
      await disk.close();
      writeRaw(folder, "closed.qcow2", store.bytes);
      expect(qemuCheck(folder, "closed.qcow2")).toMatchObject({ status: 0 });
    },
  );

  it("this test can fail: where flushes mean nothing, it finds images that are neither", async () => {
    const random = seededRandom(5);
    const start = makeImage(cases[0]!);
    const store = new LogStore(start);
    const disk = await openStore(store);
    await run(disk, "create");
    await run(disk, "delete");
    await disk.close();
    let wrong = 0;
    for (let i = 0; i < 40; i++) {
      const end = random.below(store.log.length + 1);
      writeRaw(folder, "crash.qcow2", crashState(start, store.log, end, random, false));
      if (![0, LEAKS].includes(qemuCheck(folder, "crash.qcow2").status)) wrong++;
    }
    expect(wrong).toBeGreaterThan(3);
  });
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
