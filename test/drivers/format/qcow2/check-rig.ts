/**
 * Images for the tests of check and repair, broken on purpose in the places that matter, and both
 * checks' verdicts.
 */

import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { readU32, readU64, writeU32, writeU64 } from "../../../../src/base/bytes.ts";
import { BlockError } from "../../../../src/base/errors.ts";
import type { Random } from "../../../../src/base/random.ts";
import {
  type CheckFinding,
  type CheckFix,
  type CheckOutcome,
  type CheckResult,
  checkNode,
} from "../../../../src/block/check.ts";
import type { World } from "../../../../src/block/driver.ts";
import { Graph } from "../../../../src/block/graph.ts";
import { qcow2Driver } from "../../../../src/drivers/format/qcow2/index.ts";
import { run } from "../../../spawn.ts";
import { LogStore, logStoreDriver } from "../log-store.ts";
import { qemuImg, qemuIo, testWorld } from "../rig.ts";

/** What an image is made of; each has something of everything that it can have. */
export const FEATURES: readonly {
  readonly name: string;
  readonly options: string;
  readonly size?: string;
  readonly snapshots?: boolean;
  readonly packed?: boolean;
  readonly bitmaps?: boolean;
}[] = [
  { name: "plain", options: "cluster_size=64k" },
  { name: "small clusters", options: "cluster_size=512", snapshots: true, packed: true },
  { name: "version 2", options: "compat=0.10,cluster_size=4k", snapshots: true, packed: true },
  { name: "1-bit refcounts", options: "cluster_size=4k,refcount_bits=1" },
  { name: "2-bit refcounts", options: "cluster_size=1k,refcount_bits=2", snapshots: true },
  { name: "8-bit refcounts", options: "cluster_size=4k,refcount_bits=8", packed: true },
  { name: "32-bit refcounts", options: "cluster_size=2k,refcount_bits=32", snapshots: true },
  { name: "64-bit refcounts", options: "cluster_size=512,refcount_bits=64", snapshots: true },
  {
    name: "extended L2",
    options: "cluster_size=16k,extended_l2=on",
    snapshots: true,
    packed: true,
  },
  { name: "bitmaps", options: "cluster_size=4k", bitmaps: true, snapshots: true },
];

export type Feature = (typeof FEATURES)[number];

export function makeImage(folder: string, feature: Feature): Uint8Array {
  const name = "made.qcow2";
  qemuImg(folder, "create", "-q", "-f", "qcow2", "-o", feature.options, name, feature.size ?? "2M");
  qemuIo(folder, name, "write -P 1 0 300k", "write -P 2 1M 100k", "write -z 1500k 64k");
  if (feature.packed) qemuIo(folder, name, "write -c -P 3 512k 64k", "write -c -P 4 640k 128k");
  if (feature.bitmaps) {
    qemuImg(folder, "bitmap", "--add", "-g", "512", "-f", "qcow2", name, "b0");
    qemuImg(folder, "bitmap", "--add", "-g", "65536", "-f", "qcow2", name, "b1");
  }
  if (feature.snapshots) {
    qemuImg(folder, "snapshot", "-c", "one", name);
    qemuIo(folder, name, "write -P 5 100k 50k", "write -P 6 1300k 30k");
    qemuImg(folder, "snapshot", "-c", "two", name);
    qemuIo(folder, name, "write -P 7 120k 10k", "discard 256k 64k");
  }
  return new Uint8Array(readFileSync(join(folder, name)));
}

let world: World | undefined;

export interface OurCheck {
  /** Null if it could not be checked. */
  readonly outcome: CheckOutcome | null;
  readonly error: BlockError | null;
  readonly findings: readonly CheckFinding[];
  readonly store: LogStore;
}

/** Checks bytes with ours; the store keeps what became of them. */
export async function ourCheck(
  bytes: Uint8Array,
  fix: CheckFix,
  store = new LogStore(bytes),
): Promise<OurCheck> {
  world ??= await testWorld();
  const graph = new Graph(world, [qcow2Driver(), logStoreDriver(store)] as never);
  const findings: CheckFinding[] = [];
  let outcome: CheckOutcome | null = null;
  let error: BlockError | null = null;
  try {
    const file = { driver: "log-store" };
    const options = { "node-name": "disk", driver: "qcow2", file, "read-only": fix === "none" };
    const node = await graph.addForCheck(options);
    try {
      outcome = await checkNode(node, { fix, report: (finding) => findings.push(finding) });
    } finally {
      await graph.remove("disk");
    }
  } catch (caught) {
    if (!(caught instanceof BlockError)) throw caught;
    error = caught;
  }
  return { outcome, error, findings, store };
}

export interface TheirCheck {
  readonly status: number;
  /** Null if it told none. */
  readonly result: CheckResult | null;
  readonly stderr: string;
}

/** What qemu-img says of a file. */
export function theirCheck(path: string, fix: CheckFix = "none", quiet = false): TheirCheck {
  const repair = fix === "none" ? [] : ["-r", fix];
  const args = ["check", "-f", "qcow2", "--output=json", ...repair, path];
  const { status, stdout, stderr } = run("qemu-img", args, { cwd: dirname(path), quiet });
  let result: CheckResult | null = null;
  if (stdout.startsWith("{")) {
    const told = JSON.parse(stdout) as Record<string, number>;
    result = { ...NOTHING };
    for (const key of Object.keys(NOTHING)) {
      (result as unknown as Record<string, number>)[key] = told[key] ?? 0;
    }
  }
  return { status, result, stderr };
}

export const NOTHING: CheckResult = {
  "check-errors": 0,
  corruptions: 0,
  leaks: 0,
  "corruptions-fixed": 0,
  "leaks-fixed": 0,
  "image-end-offset": 0,
  "total-clusters": 0,
  "allocated-clusters": 0,
  "fragmented-clusters": 0,
  "compressed-clusters": 0,
};

/** Where an image's tables are, so that they can be broken. */
export interface Places {
  readonly version: number;
  readonly clusterBytes: number;
  readonly l1: { readonly offset: number; readonly entries: number };
  readonly l2: readonly number[];
  readonly l2EntryBytes: number;
  readonly refcountTable: number;
  readonly blocks: readonly number[];
  readonly snapshots: { readonly count: number; readonly offset: number };
}

export function placesOf(bytes: Uint8Array): Places {
  const clusterBytes = 2 ** readU32(bytes, 20);
  const version = readU32(bytes, 4);
  const l1 = { entries: readU32(bytes, 36), offset: readU64(bytes, 40, "l1") };
  const offsetAt = (at: number) =>
    (readU32(bytes, at) & 0xffffff) * 2 ** 32 + ((readU32(bytes, at + 4) & ~511) >>> 0);
  const l2: number[] = [];
  for (let i = 0; i < l1.entries; i++) {
    const offset = offsetAt(l1.offset + i * 8);
    if (offset > 0) l2.push(offset);
  }
  const refcountTable = readU64(bytes, 48, "refcount table");
  const blocks: number[] = [];
  for (let i = 0; i < clusterBytes / 8; i++) {
    const offset = offsetAt(refcountTable + i * 8);
    if (offset > 0) blocks.push(offset);
  }
  const extended = version === 3 && (readU32(bytes, 76) & 16) !== 0;
  return {
    version,
    clusterBytes,
    l1,
    l2,
    l2EntryBytes: extended ? 16 : 8,
    refcountTable,
    blocks,
    snapshots: { count: readU32(bytes, 60), offset: readU64(bytes, 64, "snapshots") },
  };
}

/** Breaks one field. @returns what it did, for the message of a test that fails */
export function mutate(bytes: Uint8Array, places: Places, random: Random): string {
  const pick = <T>(list: readonly T[]): T => list[random.below(list.length)]!;
  const { clusterBytes } = places;
  const clusters = Math.ceil(bytes.length / clusterBytes);
  const somewhere = () => random.below(clusters) * clusterBytes;
  const l2Entry = () => {
    const table = pick(places.l2);
    const count = clusterBytes / places.l2EntryBytes;
    // Most tables are nearly empty: their front is where something is.
    const index = random.below(2) ? random.below(count) : random.below(Math.min(count, 40));
    return table + index * places.l2EntryBytes;
  };
  const l1Entry = () => places.l1.offset + random.below(Math.min(places.l1.entries, 16)) * 8;
  const setOffset = (at: number, offset: number) => {
    const flags = readU32(bytes, at) & 0xff000000;
    writeU64(bytes, at, offset);
    writeU32(bytes, at, (readU32(bytes, at) | flags) >>> 0);
  };
  const flip = (at: number, bits: number) => {
    for (let i = 0; i < bits; i++) {
      const bit = random.below(64);
      bytes[at + (bit >> 3)]! ^= 1 << (bit & 7);
    }
  };
  const actions: [string, () => void][] = [
    ["an L2 entry elsewhere", () => setOffset(l2Entry(), somewhere())],
    [
      "an L2 entry past the end",
      () => setOffset(l2Entry(), bytes.length + somewhere() + clusterBytes),
    ],
    ["an L2 entry crooked", () => setOffset(l2Entry(), somewhere() + 512 * random.below(8))],
    ["a bit of an L2 entry", () => flip(l2Entry(), 1)],
    ["bits of an L2 entry", () => flip(l2Entry(), 4)],
    ["an L2 entry copied", () => writeU64(bytes, l2Entry(), 0)],
    ["COPIED of an L2 entry", () => (bytes[l2Entry()]! ^= 0x80)],
    ["zero of an L2 entry", () => (bytes[l2Entry() + 7]! ^= 1)],
    ["an L1 entry elsewhere", () => setOffset(l1Entry(), somewhere())],
    ["a bit of an L1 entry", () => flip(l1Entry(), 1)],
    ["COPIED of an L1 entry", () => (bytes[l1Entry()]! ^= 0x80)],
    [
      "a refcount",
      () => flip(pick(places.blocks) + 8 * random.below(Math.min(clusterBytes / 8, 40)), 1),
    ],
    [
      "refcounts",
      () => flip(pick(places.blocks) + 8 * random.below(Math.min(clusterBytes / 8, 40)), 9),
    ],
    ["a refcount table entry", () => flip(places.refcountTable + 8 * random.below(3), 1)],
    ["a refcount block elsewhere", () => setOffset(places.refcountTable, somewhere())],
    ["no refcount block", () => writeU64(bytes, places.refcountTable + 8 * random.below(2), 0)],
  ];
  if (places.l2EntryBytes === 16) {
    actions.push(["subcluster bits", () => flip(l2Entry() + 8, 2)]);
    actions.push(["many subcluster bits", () => flip(l2Entry() + 8, 20)]);
  }
  if (places.snapshots.count > 0) {
    const { offset } = places.snapshots;
    actions.push(["a snapshot's L1 table elsewhere", () => setOffset(offset, somewhere())]);
    actions.push(["a bit of a snapshot's L1 offset", () => flip(offset, 1)]);
    actions.push(["a snapshot's L1 size", () => writeU32(bytes, offset + 8, random.below(9))]);
  }
  const [name, act] = pick(actions);
  act();
  return name;
}
