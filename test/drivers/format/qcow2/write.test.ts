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
  qemuIo,
  qemuRaw,
  readAll,
  testFolder,
  testGraph,
  writeRaw,
} from "../rig.ts";

const folder = testFolder();
const ROUNDS = 3;
const CHANGES = 45;

interface Case {
  readonly name: string;
  readonly options: string;
  readonly clusterBytes: number;
  readonly length?: number;
  readonly backing?: boolean;
  readonly dataFile?: boolean;
  readonly snapshots?: boolean;
  readonly fromPacked?: boolean;
}

const cases: Case[] = [
  { name: "512 B clusters", options: "cluster_size=512", clusterBytes: 512, length: 600 * KiB },
  { name: "4 KiB clusters", options: "cluster_size=4k", clusterBytes: 4096 },
  { name: "64 KiB clusters", options: "cluster_size=64k", clusterBytes: 65536 },
  { name: "2 MiB clusters", options: "cluster_size=2M", clusterBytes: 2 * MiB, length: 9 * MiB },
  { name: "version 2", options: "compat=v2,cluster_size=4k", clusterBytes: 4096 },
  {
    name: "version 2 over a backing file",
    options: "compat=v2",
    clusterBytes: 65536,
    backing: true,
  },
  { name: "a backing file", options: "cluster_size=8k", clusterBytes: 8192, backing: true },
  { name: "1-bit refcounts", options: "refcount_bits=1,cluster_size=1k", clusterBytes: 1024 },
  { name: "2-bit refcounts", options: "refcount_bits=2,cluster_size=1k", clusterBytes: 1024 },
  {
    name: "64-bit refcounts",
    options: "refcount_bits=64,cluster_size=512",
    clusterBytes: 512,
    length: 400 * KiB,
  },
  { name: "extended L2 entries", options: "extended_l2=on,cluster_size=16k", clusterBytes: 16384 },
  {
    name: "extended L2 entries over a backing file",
    options: "extended_l2=on,cluster_size=64k",
    clusterBytes: 65536,
    backing: true,
  },
  {
    name: "an external data file",
    options: "data_file=data.raw,cluster_size=4k",
    clusterBytes: 4096,
    dataFile: true,
  },
  {
    name: "a raw external data file",
    options: "data_file=data.raw,data_file_raw=on",
    clusterBytes: 65536,
    dataFile: true,
  },
  { name: "snapshots", options: "cluster_size=4k", clusterBytes: 4096, snapshots: true },
  {
    name: "snapshots, extended L2 entries",
    options: "extended_l2=on,cluster_size=16k",
    clusterBytes: 16384,
    snapshots: true,
  },
  {
    name: "snapshots of packed clusters",
    options: "cluster_size=4k",
    clusterBytes: 4096,
    snapshots: true,
    fromPacked: true,
  },
  { name: "packed clusters", options: "cluster_size=64k", clusterBytes: 65536, fromPacked: true },
  {
    name: "zstd-packed clusters",
    options: "compression_type=zstd,cluster_size=8k",
    clusterBytes: 8192,
    fromPacked: true,
  },
  {
    name: "packed clusters, extended L2 entries",
    options: "extended_l2=on,cluster_size=16k",
    clusterBytes: 16384,
    fromPacked: true,
  },
];

describe.skipIf(!hasQemu)("random writes, zero writes, discards and packed writes", () => {
  it.each(cases)("$name: check is clean and QEMU reads the model", async (testCase) => {
    await runCase(testCase, 1000 + cases.indexOf(testCase));
  });
});

describe.skipIf(!hasQemu)("COPIED flags that are not set though the refcount is one", () => {
  it("cost a copy, and what is freed may be used for anything", async () => {
    qemuImg(folder, "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "f.qcow2", "64k");
    qemuIo(folder, "f.qcow2", "write -P 6 0 64k");
    const bytes = readFileSync(join(folder, "f.qcow2"));
    const l1 = bytes.readUInt32BE(44);
    const l2 = bytes.readUInt32BE(l1 + 4);
    bytes[l1]! &= 0x7f;
    for (let i = 0; i < 16; i++) bytes[l2 + i * 8]! &= 0x7f;
    writeRaw(folder, "f.qcow2", bytes);
    const disk = await openDisk(await testGraph(), chainOptions(folder, ["f.qcow2"]));
    for (let round = 0; round < 3; round++) {
      for (let at = 0; at < 16; at++) {
        await disk.backend.writeZeroes(at * 4096, 4096, { mayUnmap: true });
        await disk.backend.flush();
        await disk.backend.write(new Uint8Array(4096).fill(10 * round + at), at * 4096);
      }
    }
    await disk.close();
    expect(qemuCheck(folder, "f.qcow2").text).toContain("No errors");
    const seen = qemuRaw(folder, "f.qcow2");
    for (let at = 0; at < 16; at++) expect(seen[at * 4096 + 4095]).toBe(20 + at);
  });
});

async function runCase(testCase: Case, seed: number): Promise<void> {
  const random = seededRandom(seed);
  const length = testCase.length ?? 3 * MiB + 512;
  const model = new Model(await makeImage(testCase, random, length));
  const snapshot = testCase.snapshots ? model.bytes.slice() : null;
  for (let round = 0; round < ROUNDS; round++) {
    const where = `seed ${seed}, round ${round}`;
    const disk = await open(testCase);
    if (round % 2 === 0) await changeInTurn(disk, random, testCase, model);
    else await changeAtOnce(disk, random, testCase, model);
    const seen = await readAll(disk);
    model.settle(seen);
    expect(firstDifference(seen, model.bytes), where).toBe(-1);
    await disk.close();
    expectSound(testCase, model, where);
    changeByQemu(random, model);
  }
  if (snapshot) {
    qemuImg(folder, "snapshot", "-a", "kept", "w.qcow2");
    expect(firstDifference(qemuRaw(folder, "w.qcow2"), snapshot), `seed ${seed}`).toBe(-1);
  }
}

/** @returns what the disk reads as */
async function makeImage(testCase: Case, random: Random, length: number): Promise<Uint8Array> {
  const base = mixedData(random, length);
  writeRaw(folder, "base.raw", base);
  const options = ["-q", "-f", "qcow2", "-o", testCase.options];
  if (testCase.fromPacked) {
    qemuImg(
      folder,
      "convert",
      "-c",
      "-f",
      "raw",
      "-O",
      "qcow2",
      "-o",
      testCase.options,
      "base.raw",
      "w.qcow2",
    );
  } else if (testCase.backing) {
    // Longer than the disk: what hangs over must never show.
    const long = new Uint8Array(base.length + 100_000).fill(7);
    long.set(base);
    writeRaw(folder, "long.raw", long);
    qemuImg(folder, "create", ...options, "-b", "long.raw", "-F", "raw", "w.qcow2", `${length}`);
  } else {
    qemuImg(folder, "create", ...options, "w.qcow2", `${length}`);
  }
  if (testCase.snapshots) {
    if (!testCase.fromPacked) qemuIo(folder, "w.qcow2", "write -P 77 0 1M", "write -z 200k 99k");
    qemuImg(folder, "snapshot", "-c", "kept", "w.qcow2");
  }
  return qemuRaw(folder, "w.qcow2");
}

async function open(testCase: Case): Promise<Disk> {
  const graph = await testGraph();
  const files = testCase.backing ? ["w.qcow2", "long.raw"] : ["w.qcow2"];
  return openDisk(graph, {
    ...chainOptions(folder, files),
    // Every other case has so little room for tables that they come and go all the time.
    ...(cases.indexOf(testCase) % 2 === 1 && { "cache-size": 0 }),
    ...(testCase.dataFile && {
      "data-file": { driver: "file", filename: join(folder, "data.raw") },
    }),
  });
}

async function changeInTurn(disk: Disk, random: Random, testCase: Case, model: Model) {
  const chances = {
    length: disk.backend.length,
    clusterBytes: testCase.clusterBytes,
    packed: true,
  };
  for (let i = 0; i < CHANGES; i++) {
    const change = randomChange(random, chances);
    await perform(disk.backend, change);
    model.apply(change);
  }
}

/** Many at once, none of them overlapping: so the order does not matter. */
async function changeAtOnce(disk: Disk, random: Random, testCase: Case, model: Model) {
  const { length } = disk.backend;
  const chances = {
    length,
    clusterBytes: testCase.clusterBytes,
    mostBytes: 100 * KiB,
    packed: true,
  };
  for (let batch = 0; batch < 4; batch++) {
    const taken: [number, number][] = [];
    const running: Promise<void>[] = [];
    for (let i = 0; i < CHANGES / 3; i++) {
      const change = randomChange(random, chances);
      const end = change.offset + change.bytes;
      if (taken.some(([from, to]) => from < end && change.offset < to)) continue;
      taken.push([change.offset, end]);
      model.apply(change);
      running.push(perform(disk.backend, change));
    }
    await Promise.all(running);
  }
}

function expectSound(testCase: Case, model: Model, where: string): void {
  const check = qemuCheck(folder, "w.qcow2");
  expect(check.status, `${where}: ${check.text}`).toBe(0);
  expect(firstDifference(qemuRaw(folder, "w.qcow2"), model.bytes), where).toBe(-1);
  if (testCase.name.startsWith("a raw external")) {
    const raw = qemuRawFile("data.raw");
    expect(firstDifference(raw, model.bytes), `${where}, data file alone`).toBe(-1);
  }
}

function qemuRawFile(name: string): Uint8Array {
  qemuImg(folder, "convert", "-f", "raw", "-O", "raw", name, "alone.raw");
  return qemuRawOf("alone.raw");
}

function qemuRawOf(name: string): Uint8Array {
  return new Uint8Array(readFileSync(join(folder, name)));
}

function changeByQemu(random: Random, model: Model): void {
  const offset = random.below(model.bytes.length - 90_000);
  const zeroes = Math.floor(random.below(model.bytes.length - 90_000) / 512) * 512;
  qemuIo(folder, "w.qcow2", `write -P 5 ${offset} 70000`, `write -z ${zeroes} 65536`);
  model.bytes.fill(5, offset, offset + 70000);
  model.bytes.fill(0, zeroes, zeroes + 65536);
}
