/**
 * A disk as plain bytes, and random changes made to it and to a real one alike.
 */

import { KiB } from "../../../src/base/bytes.ts";
import { BlockError } from "../../../src/base/errors.ts";
import type { Random } from "../../../src/base/random.ts";
import type { BlockBackend } from "../../../src/block/backend.ts";

export interface Change {
  readonly kind: "write" | "zeroes" | "unmap" | "discard" | "packed" | "flush";
  readonly offset: number;
  readonly bytes: number;
  readonly fill: number;
}

export class Model {
  bytes: Uint8Array;
  /** 1 where a discard has made the content anything: nobody may rely on it. */
  anything: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes.slice();
    this.anything = new Uint8Array(bytes.length);
  }

  apply({ kind, offset, bytes, fill }: Change): void {
    const end = offset + bytes;
    if (kind === "flush") return;
    if (kind === "discard") {
      this.anything.fill(1, offset, end);
      return;
    }
    this.bytes.set(
      kind === "zeroes" || kind === "unmap" ? new Uint8Array(bytes) : pattern(bytes, fill),
      offset,
    );
    this.anything.fill(0, offset, end);
  }

  /** Takes over what was read where a discard has left it open. */
  settle(read: Uint8Array): void {
    const { anything } = this;
    for (let at = anything.indexOf(1); at >= 0; at = anything.indexOf(1, at)) {
      const next = anything.indexOf(0, at);
      const end = next < 0 ? anything.length : next;
      this.bytes.set(read.subarray(at, end), at);
      anything.fill(0, at, end);
    }
  }
}

/** Never zero, and packs well only for even fills. */
export function pattern(bytes: number, fill: number): Uint8Array {
  const data = new Uint8Array(bytes).fill(1 + (fill % 255));
  let state = fill | 1;
  if (fill % 2 === 1) {
    for (let i = 0; i < bytes; i++) {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      data[i] = (state >>> 24) | 1;
    }
  }
  return data;
}

export interface Chances {
  readonly length: number;
  readonly clusterBytes: number;
  readonly mostBytes?: number;
  readonly packed?: boolean;
}

export function randomChange(random: Random, chances: Chances): Change {
  const { length, clusterBytes } = chances;
  const dice = random.below(20);
  const fill = random.below(2 ** 31);
  if (dice === 0) return { kind: "flush", offset: 0, bytes: 0, fill };
  if (dice <= 3 && chances.packed) {
    const offset = random.below(Math.ceil(length / clusterBytes)) * clusterBytes;
    return { kind: "packed", offset, bytes: Math.min(clusterBytes, length - offset), fill };
  }
  const most = Math.min(chances.mostBytes ?? 300 * KiB, length);
  const size = 1 + random.below(random.below(3) === 0 ? most : Math.min(most, 3 * KiB));
  const offset = random.below(length - size + 1);
  const kind = dice < 12 ? "write" : dice < 15 ? "zeroes" : dice < 17 ? "unmap" : "discard";
  return { kind, offset, bytes: size, fill };
}

export async function perform(disk: BlockBackend, change: Change): Promise<void> {
  const { kind, offset, bytes, fill } = change;
  switch (kind) {
    case "write":
      return disk.write(pattern(bytes, fill), offset);
    case "packed":
      return performPacked(disk, change);
    case "zeroes":
      return disk.writeZeroes(offset, bytes);
    case "unmap":
      return disk.writeZeroes(offset, bytes, { mayUnmap: true });
    case "discard":
      return disk.discard(offset, bytes);
    case "flush":
      return disk.flush();
  }
}

/** Not every image takes packed clusters; then they are written as they are. */
async function performPacked(disk: BlockBackend, { offset, bytes, fill }: Change): Promise<void> {
  try {
    await disk.writeCompressed(pattern(bytes, fill), offset);
  } catch (error) {
    if (!(error instanceof BlockError) || error.errno !== "ENOTSUP") throw error;
    await disk.write(pattern(bytes, fill), offset);
  }
}
