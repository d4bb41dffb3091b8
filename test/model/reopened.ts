/**
 * The disks once more, by a new engine, from what the old one has left in the stores: the chain as it
 * was, as the images' headers have it; the bytes as the guest knows them; and no errors in the images,
 * as far as the real qemu-img can tell.
 */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkImage } from "../../scripts/qemu.ts";
import type { BlockNode } from "../../src/block/node.ts";
import type { MemoryStore } from "../../src/drivers/protocol/memory.ts";
import type { Engine } from "../../src/engine/engine.ts";
import type { Guest } from "./guest.ts";
import { readNode } from "./jobs.ts";

/** Images of one disk, from the top down. */
export interface LeftDisk {
  readonly guest: Guest;
  readonly images: readonly string[];
  /** A change of them has failed: nobody knows what is in them. */
  readonly doubtful: ReadonlySet<string>;
}

/** null unless all of them are images that can be opened again. To be called while they are open. */
export function leftDisk(guest: Guest): LeftDisk | null {
  const { chain } = guest;
  if (chain.some(({ driver }) => driver.name !== "qcow2")) return null;
  const doubtful = new Set(chain.filter(isDoubtful).map(({ name }) => name));
  return { guest, images: chain.map(({ name }) => name), doubtful };
}

function isDoubtful({ state }: BlockNode): boolean {
  const { data } = state.info?.()["format-specific"] ?? {};
  return (data as { corrupt?: boolean } | undefined)?.corrupt === true;
}

/** @throws if a disk does not read as its guest knows it, or an image is not what it should be */
export async function checkReopened(
  engine: Engine,
  { guest, images, doubtful }: LeftDisk,
  isWrongLabel: (label: string | undefined, backing: string | null) => boolean,
): Promise<void> {
  let backing: string | null = null;
  for (const name of [...images].reverse()) {
    const file = { driver: "weather", name };
    const node: BlockNode = await engine.graph.add({
      driver: "qcow2",
      "node-name": name,
      "read-only": true,
      file,
      backing,
    });
    const label = node.state.info?.()["backing-filename"];
    if (isWrongLabel(label, backing)) {
      throw new Error(`The header of ${name} names ${label}, but it stood on ${backing}`);
    }
    for (const bitmap of node.bitmaps.all()) {
      if (bitmap.inconsistent) throw new Error(`${bitmap.description} was not stored`);
    }
    backing = name;
  }
  // An image that has broken in a storm has lost what was not flushed by then.
  if (doubtful.size > 0) return;
  guest.compare(await readNode(engine, images[0]!, guest.size), 0);
}

/** @throws what qemu-img says of images with errors or leaks */
export async function judge(
  stores: ReadonlyMap<string, MemoryStore>,
  images: Iterable<string>,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "blocktab-model-"));
  try {
    for (const name of images) {
      const path = join(folder, name);
      writeFileSync(path, bytesOf(stores.get(name)!));
      const problem = await checkImage(path);
      if (problem !== null) throw new Error(`qemu-img check of ${name}: ${problem}`);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function bytesOf({ length, pages }: MemoryStore): Uint8Array {
  const PAGE = 65536;
  const bytes = new Uint8Array(length);
  for (const [page, data] of pages) {
    if (page * PAGE < length) bytes.set(data.subarray(0, length - page * PAGE), page * PAGE);
  }
  return bytes;
}
