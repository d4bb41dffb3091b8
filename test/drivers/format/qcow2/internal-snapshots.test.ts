import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../../../src/base/bytes.ts";
import { type Random, seededRandom } from "../../../../src/base/random.ts";
import { Model, perform, randomChange } from "../model.ts";
import {
  chainOptions,
  type Disk,
  firstDifference,
  hasQemu,
  mixedData,
  openDisk,
  qemuCheck,
  qemuImg,
  qemuRaw,
  readAll,
  testFolder,
  testGraph,
  writeRaw,
} from "../rig.ts";

const folder = testFolder();
const ROUNDS = 3;
const STEPS = 24;
const TAKEN = { seconds: 1_700_000_000, nanoseconds: 123_000_000 };

interface Case {
  readonly name: string;
  readonly options: string;
  readonly clusterBytes: number;
  readonly length?: number;
  readonly backing?: boolean;
  readonly packed?: boolean;
}

const cases: Case[] = [
  { name: "512 B clusters", options: "cluster_size=512", clusterBytes: 512, length: 400 * KiB },
  { name: "4 KiB clusters", options: "cluster_size=4k", clusterBytes: 4096, packed: true },
  { name: "64 KiB clusters", options: "cluster_size=64k", clusterBytes: 65536, packed: true },
  { name: "2 MiB clusters", options: "cluster_size=2M", clusterBytes: 2 * MiB, length: 3 * MiB },
  {
    name: "version 2",
    options: "compat=v2,cluster_size=4k",
    clusterBytes: 4096,
    packed: true,
  },
  { name: "a backing file", options: "cluster_size=8k", clusterBytes: 8192, backing: true },
  {
    name: "version 2 over a backing file",
    options: "compat=v2",
    clusterBytes: 65536,
    backing: true,
  },
  { name: "4-bit refcounts", options: "refcount_bits=4,cluster_size=1k", clusterBytes: 1024 },
  {
    name: "64-bit refcounts",
    options: "refcount_bits=64,cluster_size=512",
    clusterBytes: 512,
    length: 300 * KiB,
  },
  {
    name: "extended L2 entries",
    options: "extended_l2=on,cluster_size=16k",
    clusterBytes: 16384,
    packed: true,
  },
  {
    name: "extended L2 entries over a backing file",
    options: "extended_l2=on,cluster_size=64k",
    clusterBytes: 65536,
    backing: true,
  },
];

/** What the disk, and every snapshot in it, must read as. */
interface Story {
  readonly model: Model;
  readonly kept: Map<string, Uint8Array>;
}

function snapshotsOf(disk: Disk) {
  return disk.node.state.snapshots!;
}

function idOf(disk: Disk, name: string): string {
  return snapshotsOf(disk)
    .list()
    .find((info) => info.name === name)!.id;
}

/** A handful of random changes, then what a user does with snapshots. */
async function step(disk: Disk, story: Story, testCase: Case, random: Random): Promise<void> {
  const { model, kept } = story;
  for (let i = random.below(5); i >= 0; i--) {
    const change = randomChange(random, {
      length: model.bytes.length,
      clusterBytes: testCase.clusterBytes,
      mostBytes: 150 * KiB,
      packed: testCase.packed === true,
    });
    await perform(disk.backend, change);
    model.apply(change);
  }
  model.settle(await readAll(disk));
  const names = [...kept.keys()];
  const some = names[random.below(Math.max(1, names.length))];
  const dice = random.below(6);
  if (dice < 3 && names.length < 6) {
    const name = `s${random.below(2 ** 31)}`;
    await snapshotsOf(disk).create(name, TAKEN);
    kept.set(name, model.bytes.slice());
  } else if (dice === 3 && some !== undefined) {
    await snapshotsOf(disk).apply(idOf(disk, some));
    story.model.bytes = kept.get(some)!.slice();
  } else if (dice === 4 && some !== undefined) {
    await snapshotsOf(disk).delete(idOf(disk, some));
    kept.delete(some);
  }
  const seen = await readAll(disk);
  expect(firstDifference(seen, model.bytes)).toBe(-1);
}

/** The same with qemu-img, on a closed image. */
function stepByQemu(image: string, story: Story, random: Random): void {
  const { kept, model } = story;
  const names = [...kept.keys()];
  const some = names[random.below(Math.max(1, names.length))];
  const dice = random.below(3);
  if (dice === 0 && names.length < 6) {
    const name = `q${random.below(2 ** 31)}`;
    qemuImg(folder, "snapshot", "-c", name, image);
    kept.set(name, model.bytes.slice());
  } else if (dice === 1 && some !== undefined) {
    qemuImg(folder, "snapshot", "-a", some, image);
    model.bytes = kept.get(some)!.slice();
  } else if (dice === 2 && some !== undefined) {
    qemuImg(folder, "snapshot", "-d", some, image);
    kept.delete(some);
  }
}

function expectSound(image: string, { model, kept }: Story, where: string): void {
  const check = qemuCheck(folder, image);
  expect(check.status, `${where}: ${check.text}`).toBe(0);
  expect(firstDifference(qemuRaw(folder, image), model.bytes), where).toBe(-1);
  for (const [name, bytes] of kept) {
    const seen = qemuSnapshot(image, name);
    expect(firstDifference(seen, bytes), `${where}: snapshot ${name}`).toBe(-1);
  }
  const listed = listedByQemu(image);
  expect(listed.sort(), where).toEqual([...kept.keys()].sort());
}

function qemuSnapshot(image: string, name: string): Uint8Array {
  const out = join(folder, "snapshot.raw");
  qemuImg(folder, "convert", "-l", `snapshot.name=${name}`, "-f", "qcow2", "-O", "raw", image, out);
  return new Uint8Array(readFileSync(out));
}

function listedByQemu(image: string): string[] {
  const info = JSON.parse(qemuImg(folder, "info", "--output=json", "-f", "qcow2", image));
  return (info.snapshots ?? []).map(({ name }: { name: string }) => name);
}

function create(testCase: Case, image: string, random: Random): void {
  const length = testCase.length ?? 2 * MiB;
  const backing: string[] = [];
  if (testCase.backing) {
    writeRaw(folder, "base.raw", mixedData(random, length - 1536));
    backing.push("-b", "base.raw", "-F", "raw");
  }
  const options = ["-o", testCase.options, ...backing];
  qemuImg(folder, "create", "-q", "-f", "qcow2", ...options, image, `${length}`);
}

async function openImage(testCase: Case, image: string): Promise<Disk> {
  const files = testCase.backing ? [image, "base.raw"] : [image];
  return openDisk(await testGraph(), {
    ...chainOptions(folder, files),
    // So small that epochs start in the middle of everything.
    "cache-size": 16 * KiB,
  });
}

describe.skipIf(!hasQemu)("random histories of writes and snapshots", () => {
  it.each(cases)(
    "$name: check is clean, QEMU reads the disk and all snapshots",
    async (testCase) => {
      const seed = 7000 + cases.indexOf(testCase);
      const random = seededRandom(seed);
      const image = "history.qcow2";
      create(testCase, image, random);
      const story: Story = { model: new Model(qemuRaw(folder, image)), kept: new Map() };
      for (let round = 0; round < ROUNDS; round++) {
        const where = `seed ${seed}, round ${round}`;
        const disk = await openImage(testCase, image);
        for (let i = 0; i < STEPS / ROUNDS; i++) {
          try {
            await step(disk, story, testCase, random);
          } catch (error) {
            throw new Error(`${where}, step ${i}: ${(error as Error).message}`, { cause: error });
          }
        }
        await disk.close();
        expectSound(image, story, where);
        for (let i = 0; i < 2; i++) stepByQemu(image, story, random);
        expectSound(image, story, `${where}, after qemu-img`);
      }
    },
  );
});
