/**
 * Several refcount blocks at once, whose entries in the refcount table lie in two sectors: a crash may keep
 * one of these and lose the other, and no block that is referred to may be left uncounted.
 */

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { KiB, MiB, readU32, readU64 } from "../../../../src/base/bytes.ts";
import { Graph } from "../../../../src/block/graph.ts";
import { qcow2Driver } from "../../../../src/drivers/format/qcow2/index.ts";
import type { Entry } from "../../../crash/log.ts";
import { StateMaker } from "../../../crash/states.ts";
import { LogStore, logStoreDriver } from "../log-store.ts";
import { hasQemu, openDisk, qemuCheck, qemuImg, testFolder, testWorld } from "../rig.ts";

const folder = testFolder();
const CORRUPT = 2;
const SECTOR_BYTES = 512;
/** What one block counts: 64 clusters of 512 bytes. */
const BLOCK_COVERS = 32 * KiB;
/** Its entry is the last one of a sector. */
const LAST_BLOCK = 255;

it.skipIf(!hasQemu)("no sector of new refcount table entries counts on another", async () => {
  const options = "cluster_size=512,refcount_bits=64";
  qemuImg(folder, "create", "-q", "-f", "qcow2", "-o", options, "start.qcow2", "9M");
  const store = new LogStore(new Uint8Array(readFileSync(join(folder, "start.qcow2"))));
  const graph = new Graph(await testWorld(), [qcow2Driver(), logStoreDriver(store)] as never);
  const disk = await openDisk(graph, { driver: "qcow2", file: { driver: "log-store" } as never });
  const filled = LAST_BLOCK * BLOCK_COVERS - 16 * KiB;
  for (let at = 0; store.bytes.length < filled; at += 8 * KiB) {
    await disk.backend.write(new Uint8Array(8 * KiB).fill(1), at);
  }
  await disk.backend.flush();
  const before = store.bytes.slice();
  store.log.length = 0;
  // An L1 table of a hundred clusters, which need two blocks.
  await disk.backend.truncate(200 * MiB);

  const entryAt = readU64(before, 48, "refcount_table_offset") + LAST_BLOCK * 8;
  expect(readU32(before, 56) * SECTOR_BYTES).toBeGreaterThan((LAST_BLOCK + 2) * 8);
  const linking = writesOf(store.log, entryAt, entryAt + 16);
  expect(linking.length).toBeGreaterThan(0);
  const maker = new StateMaker(new Map([["store", before]]), store.log);
  for (const { cut, index, sectors } of linking) {
    const torn = new Map([[index, sectors.slice(0, -1)]]);
    const state = maker.make({ cut, kept: [index], torn, lengthFirst: false }).get("store")!;
    writeFileSync(join(folder, "state.qcow2"), state);
    const { status, text } = qemuCheck(folder, "state.qcow2");
    expect(status, text).not.toBe(CORRUPT);
  }
  await disk.close();
  writeFileSync(join(folder, "end.qcow2"), store.bytes);
  const { status, text } = qemuCheck(folder, "end.qcow2");
  expect(status, text).toBe(0);
});

/** Writes to a stretch of the file, each with the flush that ends it and the sectors it has. */
function writesOf(log: readonly Entry[], from: number, to: number) {
  return [...log.entries()].flatMap(([index, entry]) => {
    if (entry.kind !== "write" || entry.offset >= to) return [];
    const end = entry.offset + entry.bytes.length;
    if (end <= from) return [];
    const first = Math.floor(entry.offset / SECTOR_BYTES);
    const count = Math.ceil(end / SECTOR_BYTES) - first;
    const cut = log.findIndex(({ kind }, i) => i > index && kind === "flush");
    return [{ index, cut, sectors: Array.from({ length: count }, (_, i) => i) }];
  });
}
