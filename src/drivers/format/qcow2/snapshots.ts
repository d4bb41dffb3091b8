/**
 * Internal snapshots: states of the disk kept inside the image. A snapshot is an L1 table of its own;
 * it shares data clusters with the disk, and whoever writes to a shared one makes a copy first.
 *
 *     create   the snapshot takes the disk's tables as they are, the disk goes on with copies of them
 *     apply    the disk goes on with copies of the snapshot's tables, its own are given up
 *     delete   the snapshot's tables are given up; what is the disk's alone now may be written in place
 *
 * "Copies": L2 tables whose COPIED flags do not have to change are shared, not copied. Each of the
 * three is one rebuild: done, or nothing has happened (rebuild.ts). QEMU: block/qcow2-snapshot.c.
 */

import { readU32, writeU32 } from "../../../base/bytes.ts";
import { assert, BlockError } from "../../../base/errors.ts";
import type { SnapshotInfo, SnapshotMoment, SnapshotStore } from "../../../block/driver.ts";
import type { Image } from "./image.ts";
import { eachL2, type FoundTable, type Reference, referencesOf } from "./l2-walk.ts";
import { COPIED_HI, L1_BYTES_MAX, l1EntriesFor, SECTOR_BYTES } from "./layout.ts";
import { type Build, rebuild } from "./rebuild.ts";
import {
  isPossibleL1,
  type L1Place,
  makeEntry,
  SNAPSHOT_TABLE_BYTES_MAX,
  type SnapshotEntry,
  tableBytesOf,
} from "./snapshot-table.ts";

const SNAPSHOTS_MAX = 65536;
/** QEMU keeps names in buffers of 256 bytes, and cuts what is longer. */
const NAME_BYTES_MAX = 255;

export function snapshotsOf(image: Image): SnapshotStore {
  const { mutex } = image;
  return {
    list: () => entriesOf(image).map(({ info }) => info),
    create: (name, taken) => mutex.run(() => create(image, name, taken)),
    apply: (id) => mutex.run(() => apply(image, find(image, id))),
    delete: (id) => mutex.run(() => remove(image, find(image, id))),
    load: (id) => load(image, find(image, id)),
  };
}

function entriesOf(image: Image): readonly SnapshotEntry[] {
  if (image.snapshotError) throw image.snapshotError;
  return image.snapshots;
}

function find(image: Image, id: string): SnapshotEntry {
  const entry = entriesOf(image).find(({ info }) => info.id === id);
  if (entry) return entry;
  throw new BlockError("ENOENT", `The image of node '${image.nodeName}' has no snapshot '${id}'`);
}

function checkSupported(image: Image): void {
  if (!image.externalData) return;
  throw new BlockError("ENOTSUP", "An image with an external data file cannot have snapshots");
}

/** The disk's own L1 table, without entries past the disk's end (a virtual machine's state). */
function diskL1(image: Image): L1Place {
  const { layout, header, l1 } = image;
  return { offset: l1.offset, entries: l1EntriesFor(layout, header.size) };
}

/** All of the active L1 table. */
export function wholeL1({ l1 }: Image): L1Place {
  return { offset: l1.offset, entries: l1.bytes / 8 };
}

/** @throws BlockError EINVAL if the table cannot be where its entry says */
function l1Of(image: Image, entry: SnapshotEntry): L1Place {
  if (isPossibleL1(entry, image.header)) return entry.l1;
  const { offset, entries } = entry.l1;
  throw new BlockError(
    "EINVAL",
    `The L1 table of snapshot '${entry.info.id}' cannot be ${entries} entries at ${offset}`,
  );
}

/** @throws BlockError EEXIST, EINVAL (name), ENOTSUP, EFBIG (refcounts, or too many snapshots) */
async function create(
  image: Image,
  name: string,
  { seconds, nanoseconds, ...counted }: SnapshotMoment,
): Promise<SnapshotInfo> {
  checkSupported(image);
  checkName(image, name);
  await image.beginChange();
  await image.epoch.finish();
  const info: SnapshotInfo = {
    id: String(nextId(image.snapshots)),
    name,
    vmStateBytes: 0,
    dateSeconds: seconds,
    dateNanoseconds: nanoseconds,
    clockNanoseconds: 0,
    diskBytes: image.header.size,
    ...counted,
  };
  const source = diskL1(image);
  const snapshots = [...image.snapshots, makeEntry(info, wholeL1(image))];
  checkTable(snapshots);
  await rebuild(image, {
    size: image.header.size,
    l1Entries: source.entries,
    l2Tables: await survey(image, source),
    snapshots,
    fill: (build) => share(image, build, source),
  });
  return info;
}

function checkName(image: Image, name: string): void {
  if (name === "") throw new BlockError("EINVAL", "A snapshot's name cannot be empty");
  if (new TextEncoder().encode(name).length > NAME_BYTES_MAX) {
    throw new BlockError("EINVAL", `A snapshot's name has at most ${NAME_BYTES_MAX} bytes`);
  }
  if (!image.snapshots.some(({ info }) => info.name === name)) return;
  throw new BlockError(
    "EEXIST",
    `The image of node '${image.nodeName}' has a snapshot '${name}' already`,
  );
}

function checkTable(snapshots: readonly SnapshotEntry[]): void {
  const bytes = tableBytesOf(snapshots);
  if (snapshots.length <= SNAPSHOTS_MAX && bytes <= SNAPSHOT_TABLE_BYTES_MAX) return;
  throw new BlockError("EFBIG", `An image has at most ${SNAPSHOTS_MAX} snapshots`);
}

function nextId(snapshots: readonly SnapshotEntry[]): number {
  let most = 0;
  for (const { info } of snapshots) {
    if (/^[0-9]{1,15}$/.test(info.id)) most = Math.max(most, Number(info.id));
  }
  return most + 1;
}

/** @throws BlockError EINVAL (its tables or size), ENOTSUP (another size, version 2), EFBIG */
async function apply(image: Image, entry: SnapshotEntry): Promise<void> {
  checkSupported(image);
  const { layout, header } = image;
  const { diskBytes } = entry.info;
  const l1 = l1Of(image, entry);
  if (diskBytes % SECTOR_BYTES !== 0) {
    throw new BlockError("EINVAL", `The snapshot's disk of ${diskBytes} bytes ends in a sector`);
  }
  if (diskBytes !== header.size && header.version === 2) {
    throw new BlockError("ENOTSUP", "A version 2 image with snapshots cannot change its size");
  }
  const l1Entries = l1EntriesFor(layout, diskBytes);
  if (l1Entries * 8 > L1_BYTES_MAX) {
    throw new BlockError(
      "EFBIG",
      `The snapshot's disk of ${diskBytes} bytes is larger than an L1 table can map`,
    );
  }
  await image.beginChange();
  await image.epoch.finish();
  // A shorter table has nothing behind its end.
  const source = { offset: l1.offset, entries: Math.min(l1Entries, l1.entries) };
  const old = wholeL1(image);
  await rebuild(image, {
    size: diskBytes,
    l1Entries,
    l2Tables: await survey(image, source),
    snapshots: image.snapshots,
    async fill(build) {
      await share(image, build, source);
      await giveUp(image, build, old);
    },
  });
}

/** The image in memory only: see SnapshotStore.load(). */
function load(image: Image, entry: SnapshotEntry): void {
  assert(image.readOnly, "only what is not written is read as a snapshot");
  const { diskBytes } = entry.info;
  const l1 = l1Of(image, entry);
  if (l1EntriesFor(image.layout, diskBytes) > l1.entries) {
    throw new BlockError(
      "EINVAL",
      `The L1 table of snapshot '${entry.info.id}' is too short for its ${diskBytes} bytes`,
    );
  }
  image.l1 = { kind: "l1", offset: l1.offset, bytes: l1.entries * 8 };
  image.header = { ...image.header, size: diskBytes };
}

/** @throws BlockError EINVAL if its tables cannot be right */
async function remove(image: Image, entry: SnapshotEntry): Promise<void> {
  checkSupported(image);
  const l1 = l1Of(image, entry);
  await image.beginChange();
  await image.epoch.finish();
  const active = wholeL1(image);
  let unflagged = 0;
  await eachL2(image, active, async (table) => {
    for (const { copied, packed } of referencesOf(image, table)) {
      if (copied || packed) continue;
      unflagged++;
      break;
    }
  });
  await rebuild(image, {
    size: image.header.size,
    l1Entries: active.entries,
    l2Tables: unflagged,
    snapshots: image.snapshots.filter((other) => other !== entry),
    async fill(build) {
      await giveUp(image, build, l1);
      await eachL2(image, active, (table) => reflag(image, build, table));
      await build.lowerRegion(active.offset, active.entries * 8);
    },
  });
}

/**
 * Looks at all that will get one more reference, before anything is changed.
 *
 * @returns how many L2 tables must be copied
 * @throws BlockError EFBIG if a refcount cannot go higher, EIO if tables make no sense
 */
async function survey(image: Image, source: L1Place): Promise<number> {
  const { refcounts, layout } = image;
  const check = async (cluster: number, count: number) => {
    for (let done = 0; done < count; ) {
      done += await refcounts.raiseRun(cluster + done, count - done, false);
    }
  };
  let copies = 0;
  await eachL2(image, source, async (table) => {
    let flagged = false;
    for (const { cluster, count, copied } of referencesOf(image, table)) {
      await check(cluster, count);
      flagged ||= copied;
    }
    if (flagged) copies++;
    else await check(table.offset / layout.clusterBytes, 1);
  });
  return copies;
}

/**
 * The disk gets these tables as well as whoever has them now: all behind them has more than one
 * reference then, so no COPIED flag may be left.
 */
async function share(image: Image, build: Build, source: L1Place): Promise<void> {
  const { layout, file } = image;
  await eachL2(image, source, async (table) => {
    let flagged = false;
    for (const reference of referencesOf(image, table)) {
      await build.raise(reference.cluster, reference.count);
      if (!reference.copied) continue;
      flagged = true;
      setFlags(image, table, reference, false);
    }
    if (!flagged) {
      await build.raise(table.offset / layout.clusterBytes, 1);
      return build.setL1(table.index, table.offset, false);
    }
    const copy = build.take();
    await file.write(table.bytes, copy);
    await build.setL1(table.index, copy, true);
  });
}

/** Nothing of these tables is referred to from there any more. */
export async function giveUp(image: Image, build: Build, l1: L1Place): Promise<void> {
  await eachL2(image, l1, async (table) => {
    // What lies in another file is not counted.
    if (image.externalData) return build.lowerRegion(table.offset, image.layout.clusterBytes);
    for (const { cluster, count } of referencesOf(image, table)) await build.lower(cluster, count);
    await build.lowerRegion(table.offset, image.layout.clusterBytes);
  });
  await build.lowerRegion(l1.offset, l1.entries * 8);
}

/** What is the disk's alone now gets its COPIED flag: in a copy of the table, if any is new. */
async function reflag(image: Image, build: Build, table: FoundTable): Promise<void> {
  const { refcounts, layout, file } = image;
  let changed = false;
  for (const reference of referencesOf(image, table)) {
    if (reference.copied || reference.packed) continue;
    for (let i = 0; i < reference.count; i++) {
      if ((await refcounts.get(reference.cluster + i)) !== 1) continue;
      setFlags(image, table, { ...reference, entry: reference.entry + i, count: 1 }, true);
      changed = true;
    }
  }
  if (!changed) {
    const alone = (await refcounts.get(table.offset / layout.clusterBytes)) === 1;
    return build.setL1(table.index, table.offset, alone);
  }
  const copy = build.take();
  await file.write(table.bytes, copy);
  await build.lowerRegion(table.offset, layout.clusterBytes);
  await build.setL1(table.index, copy, true);
}

function setFlags(image: Image, table: FoundTable, run: Reference, copied: boolean): void {
  const { l2EntryBytes } = image.layout;
  for (let i = 0; i < run.count; i++) {
    const at = (run.entry + i) * l2EntryBytes;
    const hi = readU32(table.bytes, at);
    writeU32(table.bytes, at, (copied ? hi | COPIED_HI : hi & ~COPIED_HI) >>> 0);
  }
}
