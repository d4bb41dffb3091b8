/** For images that lie: one of ours, edits of its fields, and a store in memory to open it from. */

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { KiB, MiB, writeU32 } from "../../../../src/base/bytes.ts";
import type { World } from "../../../../src/block/driver.ts";
import { Graph } from "../../../../src/block/graph.ts";
import { qcow2Driver } from "../../../../src/drivers/format/qcow2/index.ts";
import { LogStore, logStoreDriver } from "../log-store.ts";
import { createImage, type Disk, openDisk, testWorld } from "../rig.ts";

let world: World | undefined;

export async function openBytes(
  bytes: Uint8Array,
  readOnly: boolean,
  store = new LogStore(bytes),
  passphrase?: string,
): Promise<Disk> {
  world ??= await testWorld();
  const graph = new Graph(world, [qcow2Driver(), logStoreDriver(store)] as never);
  if (passphrase !== undefined) graph.secrets.add("s", new TextEncoder().encode(passphrase));
  const encrypt = passphrase !== undefined && { encrypt: { format: "luks", "key-secret": "s" } };
  const file = { driver: "log-store" };
  return openDisk(graph, {
    driver: "qcow2",
    file,
    backing: null,
    "read-only": readOnly,
    ...encrypt,
  });
}

/** A small image of ours with data, in version 3 with 64 KiB clusters unless said otherwise. */
export async function image(options = {}): Promise<Uint8Array> {
  const store = new LogStore(await emptyImage({ size: MiB, ...options }));
  const disk = await openBytes(store.bytes, false, store);
  await disk.backend.write(new Uint8Array(100 * KiB).fill(7), 10 * KiB);
  await disk.close();
  return store.bytes.slice();
}

async function emptyImage(options: { readonly size: number }): Promise<Uint8Array<ArrayBuffer>> {
  const folder = mkdtempSync(join(tmpdir(), "blocktab-lies-"));
  try {
    await createImage(folder, "h.qcow2", options);
    return new Uint8Array(readFileSync(join(folder, "h.qcow2")));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

export type Edit = (bytes: Uint8Array) => void;
export const u32 =
  (at: number, value: number): Edit =>
  (bytes) =>
    writeU32(bytes, at, value);
export const u64 =
  (at: number, high: number, low: number): Edit =>
  (bytes) => {
    writeU32(bytes, at, high);
    writeU32(bytes, at + 4, low);
  };
/** A second L1 entry, past the disk's end, like the first. */
export const twoL1: Edit = (bytes) => {
  writeU32(bytes, 36, 2);
  bytes.copyWithin(3 * 65536 + 8, 3 * 65536, 3 * 65536 + 8);
};
export const all =
  (...edits: Edit[]): Edit =>
  (bytes) => {
    for (const edit of edits) edit(bytes);
  };
