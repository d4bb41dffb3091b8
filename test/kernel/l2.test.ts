import { beforeAll, describe, expect, it } from "vitest";
import { MiB, writeU32 } from "../../src/base/bytes.ts";
import type { Random } from "../../src/base/random.ts";
import type { ClusterRun, Kernel } from "../../src/kernel/kernel.ts";
import { eachSeed, inBothPlaces, pick, place } from "./chance.ts";
import { testKernel } from "./load.ts";
import * as twins from "./twins.ts";

const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;
const ZERO = 1n;
const CLUSTER = 65536n;

let kernel: Kernel;
beforeAll(async () => {
  kernel = await testKernel();
});

describe("l2Run", () => {
  it("tells the kinds of entries apart", () => {
    expect(runs([0n])).toEqual(["1 unallocated"]);
    expect(runs([ZERO])).toEqual(["1 zero-plain"]);
    expect(runs([(5n * CLUSTER) | ZERO])).toEqual(["1 zero-alloc"]);
    expect(runs([5n * CLUSTER])).toEqual(["1 normal"]);
    expect(runs([(5n * CLUSTER) | COPIED])).toEqual(["1 normal copied"]);
    expect(runs([(5n * CLUSTER) | COPIED | ZERO])).toEqual(["1 zero-alloc copied"]);
    expect(runs([COMPRESSED | 0x3fff_ffff_ffff_ffffn])).toEqual(["1 compressed"]);
  });

  it("counts what one request can serve: side by side, and alike in COPIED", () => {
    const [a, b, c] = [7n * CLUSTER, 8n * CLUSTER, 9n * CLUSTER];
    expect(runs([a, b, c])).toEqual(["3 normal"]);
    expect(runs([a, c, b])).toEqual(["1 normal", "1 normal", "1 normal"]);
    expect(runs([a, b | COPIED, c | COPIED])).toEqual(["1 normal", "2 normal copied"]);
    expect(runs([a, b | ZERO, c | ZERO])).toEqual(["1 normal", "2 zero-alloc"]);
    expect(runs([0n, 0n, ZERO, ZERO, a])).toEqual(["2 unallocated", "2 zero-plain", "1 normal"]);
  });

  it("never joins compressed or invalid entries", () => {
    const packed = COMPRESSED | 0x1234n;
    expect(runs([packed, packed])).toEqual(["1 compressed", "1 compressed"]);
    expect(runs([2n, 2n])).toEqual(["1 invalid", "1 invalid"]);
  });

  it("calls an entry invalid for every reserved bit, and for an offset within a cluster", () => {
    const reserved = [1, 2, 3, 4, 5, 6, 7, 8, 56, 57, 58, 59, 60, 61];
    const withinCluster = [9, 10, 11, 12, 13, 14, 15];
    for (const bit of [...reserved, ...withinCluster]) {
      for (const entry of [0n, 5n * CLUSTER, (5n * CLUSTER) | ZERO | COPIED]) {
        expect(runs([entry | (1n << BigInt(bit))]), `bit ${bit}`).toEqual(["1 invalid"]);
      }
    }
    for (let bit = 16; bit < 56; bit++) {
      expect(runs([1n << BigInt(bit)]), `bit ${bit}`).toEqual(["1 normal"]);
    }
  });

  it("takes host offset 0 for a cluster only beside an external data file, with COPIED", () => {
    const table = [COPIED, CLUSTER | COPIED, 0n];
    expect(runs(table)).toEqual(["1 unallocated", "1 normal copied", "1 unallocated"]);
    expect(runs(table, true)).toEqual(["2 normal copied", "1 unallocated"]);
    expect(runs([COMPRESSED], true)).toEqual(["1 invalid"]);
  });

  it("passes over COPIED where no cluster is", () => {
    expect(runs([0n, COPIED, 0n])).toEqual(["3 unallocated"]);
    expect(runs([ZERO, ZERO | COPIED])).toEqual(["2 zero-plain"]);
    expect(runs([ZERO, ZERO | COPIED], true)).toEqual(["2 zero-plain"]);
  });

  it("ends where host offsets end, though the next word looks like the next cluster", () => {
    const last = (1n << 56n) - CLUSTER;
    expect(runs([last - CLUSTER, last, last + CLUSTER])).toEqual(["2 normal", "1 invalid"]);
  });

  it("crosses the largest table, and stops at the limit", () => {
    const table = tableOf(
      Array.from({ length: (2 * MiB) / 8 }, (_, i) => (BigInt(i) << 21n) + (1n << 40n)),
    );
    for (const inside of [true, false]) {
      const { buf, leave } = place(kernel, table, inside, 3);
      const whole = { kind: "normal", count: 262_144, copied: false };
      expect(kernel.l2Run(buf, 0, 262_144, 21, false)).toEqual(whole);
      expect(kernel.l2Run(buf, 5, 4099, 21, false)).toEqual({ ...whole, count: 4099 });
      leave();
    }
  });

  it("refuses a run that leaves its table", () => {
    const table = new Uint8Array(512);
    expect(() => kernel.l2Run(table, 60, 5, 16, false)).toThrow("lies in its table");
    expect(() => kernel.l2Run(table, -1, 5, 16, false)).toThrow("lies in its table");
    expect(() => kernel.l2Run(table, 64, 0, 16, false)).toThrow("first entry");
    expect(() => kernel.l2Run(table, 0, 1, 22, false)).toThrow("2^21");
  });

  it("agrees with its twin", () => {
    eachSeed(300, (random) => {
      const clusterBits = 9 + random.below(13);
      const external = random.below(3) === 0;
      const table = tableOf(chanceEntries(random, 1 + random.below(400), clusterBits));
      const count = table.length / 8;
      inBothPlaces(kernel, random, table, (buf) => {
        for (let tries = 0; tries < 12; tries++) {
          const index = random.below(count);
          const limit = pick(random, [count - index, 1 + random.below(count - index)]);
          expect(kernel.l2Run(buf, index, limit, clusterBits, external)).toEqual(
            twins.l2Run(table, index, limit, clusterBits, external),
          );
        }
      });
    });
  });
});

describe("l2RunExtended", () => {
  const HOST = 5n * CLUSTER;
  /** Subcluster bitmap: `count` subclusters from `from` on, allocated or (`zero`) zero. */
  const some = (from: number, count: number, zero = false) =>
    ((1n << BigInt(count)) - 1n) << BigInt(from + (zero ? 32 : 0));

  it("tells the kinds of subclusters apart", () => {
    expect(runsExtended([0n, 0n])).toEqual(["32 unallocated"]);
    expect(runsExtended([0n, some(4, 3, true)])).toEqual([
      "4 unallocated",
      "3 zero-plain",
      "25 unallocated",
    ]);
    expect(runsExtended([HOST | COPIED, some(0, 8) | some(8, 4, true)])).toEqual([
      "8 normal copied",
      "4 zero-alloc copied",
      "20 unallocated-alloc copied",
    ]);
    expect(runsExtended([COMPRESSED | 77n, 0n])).toEqual(["32 compressed"]);
  });

  it("goes on into the next entry, where clusters are side by side and alike in COPIED", () => {
    const all = some(0, 32);
    const next = HOST + CLUSTER;
    expect(runsExtended([HOST, some(30, 2), next, some(0, 5)])).toEqual([
      "30 unallocated-alloc",
      "7 normal",
      "27 unallocated-alloc",
    ]);
    expect(runsExtended([HOST, all, next, all])).toEqual(["64 normal"]);
    expect(runsExtended([HOST, all, next + CLUSTER, all])).toEqual(["32 normal", "32 normal"]);
    expect(runsExtended([HOST, all, next | COPIED, all])).toEqual([
      "32 normal",
      "32 normal copied",
    ]);
    expect(runsExtended([HOST, 0n, 0n, 0n])).toEqual(["32 unallocated-alloc", "32 unallocated"]);
    expect(runsExtended([0n, 0n, COPIED, 0n, 0n, 0n])).toEqual(["96 unallocated"]);
  });

  it("starts at a subcluster and stops at the limit", () => {
    const table = tableOf([HOST, some(0, 32), HOST + CLUSTER, some(0, 32)]);
    expect(kernel.l2RunExtended(table, 0, 31, 2, 16, false).count).toBe(2);
    expect(kernel.l2RunExtended(table, 0, 3, 1, 16, false).count).toBe(1);
    expect(kernel.l2RunExtended(table, 1, 30, 2, 16, false).count).toBe(2);
    const packed = tableOf([COMPRESSED, 0n, COMPRESSED, 0n]);
    expect(kernel.l2RunExtended(packed, 0, 30, 34, 16, false).count).toBe(2);
    expect(kernel.l2RunExtended(packed, 0, 0, 7, 16, false).count).toBe(7);
  });

  it("condemns a whole entry for what is wrong in one subcluster", () => {
    const both = some(9, 1) | some(9, 1, true);
    expect(runsExtended([HOST, both])).toEqual(["32 invalid"]);
    expect(runsExtended([0n, some(9, 1)])).toEqual(["32 invalid"]);
    expect(runsExtended([COMPRESSED, some(9, 1)])).toEqual(["32 invalid"]);
    expect(runsExtended([COMPRESSED, some(9, 1, true)])).toEqual(["32 invalid"]);
    expect(runsExtended([HOST, 0n, HOST + CLUSTER, both])).toEqual([
      "32 unallocated-alloc",
      "32 invalid",
    ]);
    expect(runsExtended([0n, 0n, 0n, some(9, 1)])).toEqual(["32 unallocated", "32 invalid"]);
  });

  it("calls an entry invalid for every reserved bit, of which ZERO is one here", () => {
    for (const bit of [0, 1, 8, 9, 15, 56, 61]) {
      for (const entry of [0n, HOST, HOST | COPIED]) {
        expect(runsExtended([entry | (1n << BigInt(bit)), 0n]), `bit ${bit}`).toEqual([
          "32 invalid",
        ]);
      }
    }
  });

  it("takes host offset 0 for a cluster only beside an external data file, with COPIED", () => {
    const table = [COPIED, some(0, 32), CLUSTER | COPIED, some(0, 32)];
    expect(runsExtended(table)).toEqual(["32 invalid", "32 normal copied"]);
    expect(runsExtended(table, true)).toEqual(["64 normal copied"]);
    expect(runsExtended([COPIED, some(0, 32, true)])).toEqual(["32 zero-plain"]);
    expect(runsExtended([COPIED, some(0, 32, true)], true)).toEqual(["32 zero-alloc copied"]);
    expect(runsExtended([0n, 0n, COPIED, 0n], true)).toEqual([
      "32 unallocated",
      "32 unallocated-alloc copied",
    ]);
    expect(runsExtended([COMPRESSED, 0n], true)).toEqual(["32 invalid"]);
  });

  it("ends where host offsets end", () => {
    const last = (1n << 56n) - CLUSTER;
    expect(runsExtended([last, 0n, last + CLUSTER, 0n])).toEqual([
      "32 unallocated-alloc",
      "32 invalid",
    ]);
  });

  it("crosses the largest table", () => {
    const entries = (2 * MiB) / 16;
    const words = Array.from({ length: entries * 2 }, (_, i) =>
      i % 2 === 0 ? (BigInt(i / 2) << 21n) + (1n << 40n) : some(0, 32),
    );
    for (const inside of [true, false]) {
      const { buf, leave } = place(kernel, tableOf(words), inside, 5);
      const whole = { kind: "normal", count: entries * 32, copied: false };
      expect(kernel.l2RunExtended(buf, 0, 0, entries * 32, 21, false)).toEqual(whole);
      leave();
    }
  });

  it("refuses a run that leaves its table", () => {
    const table = new Uint8Array(32);
    const inTable = "lies in its table";
    expect(() => kernel.l2RunExtended(table, 1, 31, 2, 16, false)).toThrow(inTable);
    expect(() => kernel.l2RunExtended(table, 2, 0, 0, 16, false)).toThrow(inTable);
    expect(() => kernel.l2RunExtended(table, 0.5, 0, 1, 16, false)).toThrow(inTable);
    expect(() => kernel.l2RunExtended(table, 0, 32, 1, 16, false)).toThrow("in its cluster");
    expect(() => kernel.l2RunExtended(table, 0, 0, 1, 13, false)).toThrow("2^14");
  });

  it("agrees with its twin", () => {
    eachSeed(300, (random) => {
      const clusterBits = 14 + random.below(8);
      const external = random.below(3) === 0;
      const entries = chanceEntries(random, 1 + random.below(150), clusterBits);
      const table = tableOf(chanceBitmaps(random, entries));
      inBothPlaces(kernel, random, table, (buf) => {
        for (let tries = 0; tries < 12; tries++) {
          const index = random.below(entries.length);
          const subcluster = pick(random, [0, 31, random.below(32)]);
          const rest = (entries.length - index) * 32 - subcluster;
          const limit = pick(random, [rest, 1 + random.below(rest)]);
          expect(
            kernel.l2RunExtended(buf, index, subcluster, limit, clusterBits, external),
          ).toEqual(twins.l2RunExtended(table, index, subcluster, limit, clusterBits, external));
        }
      });
    });
  });
});

function tableOf(words: readonly bigint[]): Uint8Array<ArrayBuffer> {
  const table = new Uint8Array(words.length * 8);
  words.forEach((word, i) => {
    writeU32(table, i * 8, Number(word >> 32n));
    writeU32(table, i * 8 + 4, Number(word & 0xffff_ffffn));
  });
  return table;
}

/** All runs of a table with 64 KiB clusters, one after the other: "3 normal copied". */
function runs(words: readonly bigint[], external = false): string[] {
  const told: string[] = [];
  for (let index = 0; index < words.length; ) {
    const run = kernel.l2Run(tableOf(words), index, words.length - index, 16, external);
    told.push(tell(run));
    index += run.count;
  }
  return told;
}

function runsExtended(words: readonly bigint[], external = false): string[] {
  const told: string[] = [];
  const total = words.length * 16;
  for (let at = 0; at < total; ) {
    const [index, subcluster] = [Math.floor(at / 32), at % 32];
    const rest = total - at;
    const run = kernel.l2RunExtended(tableOf(words), index, subcluster, rest, 16, external);
    told.push(tell(run));
    at += run.count;
  }
  return told;
}

function tell({ kind, count, copied }: ClusterRun): string {
  return `${count} ${kind}${copied ? " copied" : ""}`;
}

/** Entries in runs of all lengths, most of them right, some with a bit turned. */
function chanceEntries(random: Random, count: number, clusterBits: number): bigint[] {
  const cluster = 1n << BigInt(clusterBits);
  const most = (1 << 20) - 1;
  const words: bigint[] = [];
  while (words.length < count) {
    const flags = pick(random, [0n, 0n, COPIED, COPIED, ZERO, ZERO | COPIED, COMPRESSED]);
    const step = pick(random, [0n, cluster, cluster, cluster]);
    let offset = step === 0n ? 0n : BigInt(random.below(most)) * cluster;
    if (random.below(20) === 0) offset = (1n << 56n) - cluster * BigInt(random.below(8));
    const length = pick(random, [1, random.below(12), random.below(100)]);
    for (let i = 0; i < length && words.length < count; i++, offset += step) {
      words.push((offset | flags) & 0xffff_ffff_ffff_ffffn);
    }
  }
  for (let turned = random.below(5); turned > 0; turned--) {
    words[random.below(count)]! ^= 1n << BigInt(random.below(64));
  }
  return words;
}

/** Each entry followed by a subcluster bitmap that mostly fits it; ZERO mostly taken out. */
function chanceBitmaps(random: Random, entries: readonly bigint[]): bigint[] {
  const wipe = random.below(4) > 0;
  const style = random.below(3);
  return entries.flatMap((entry) => {
    const word = wipe ? entry & ~ZERO : entry;
    const cut = BigInt(random.below(33));
    const [low, high] = [(1n << cut) - 1n, 0xffff_ffffn & ~((1n << cut) - 1n)];
    const bitmaps = [
      0n,
      0xffff_ffffn,
      low,
      high,
      0xffff_ffffn << 32n,
      low << 32n,
      (low << 32n) | high,
    ];
    if (style === 0) return [word, bitmaps[random.below(20) === 0 ? 4 : 0]!];
    if (style === 1) return [word, random.below(8) > 0 ? bitmaps[1]! : pick(random, bitmaps)];
    const turned = random.below(16) === 0 ? 1n << BigInt(random.below(64)) : 0n;
    return [word, pick(random, bitmaps) | turned];
  });
}
