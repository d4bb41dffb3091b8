/**
 * Carries the bytes of block-copy.ts from one disk to the other: zeroes as zeroes, data in pieces
 * that fit into a bounded amount of memory (QEMU: block_copy_do_copy() in block/block-copy.c).
 *
 *   source   |..........|##########|    |    . zeroes, or nothing   # data
 *                 │zeroes     │read, write
 *   target   |oooooooooo|##########|    |    whole clusters, or up to the disk's end
 */

import { Budget } from "../base/budget.ts";
import { alignDown, alignUp, MiB } from "../base/bytes.ts";
import { BlockError, throwIfAborted } from "../base/errors.ts";
import type { BlockChild } from "./child.ts";
import type { RequestOptions } from "./driver.ts";
import * as io from "./io.ts";
import type { BlockNode } from "./node.ts";
import { passDown, placed, withBuffer } from "./request.ts";
import { chainStatus, skipFilters } from "./status.ts";

/** Most bytes in one buffer, unless a cluster is to be packed. */
const PIECE_BYTES = 1 * MiB;
/**
 * Most bytes in all buffers of one mover. More is slower: read a long time before it is written, a
 * piece is in no cache any more (QEMU, which has several processors at it, takes 128 MiB).
 */
const MEMORY_BYTES = 8 * MiB;

/** Whose doing a failure is. */
export type CopySide = "source" | "target";

export interface MoverInit {
  readonly source: BlockChild;
  readonly target: BlockChild;
  /** Bytes of a cluster, of which a copy is never split. */
  readonly clusterSize: number;
  /** Bytes of disk. */
  readonly length: number;
}

/** The beginning of a range, and what is to be done about it: whole clusters, or up to the end. */
interface Run {
  readonly bytes: number;
  readonly kind: "skip" | "zero" | "data";
}

export class CopyMover {
  /** Pack whole clusters of the target. */
  compress = false;
  /** Give back in the source what has been copied. */
  discardSource = false;
  /** Leave out what the source inherits from here; undefined: leave out nothing. */
  base: BlockNode | null | undefined = undefined;
  readonly #init: MoverInit;
  readonly #memory = new Budget(MEMORY_BYTES);

  constructor(init: MoverInit) {
    this.#init = init;
  }

  /**
   * Copies whole clusters, or up to the disk's end. Nobody may write to them in the source meanwhile.
   *
   * @param failed told whose doing it was, before the error is thrown
   * @returns how many bytes were not left out
   */
  async move(
    offset: number,
    bytes: number,
    signal: AbortSignal | undefined,
    failed: (side: CopySide) => void,
  ): Promise<number> {
    const end = offset + bytes;
    const moved: { readonly at: number; readonly bytes: number }[] = [];
    for (let at = offset; at < end; ) {
      throwIfAborted(signal);
      const run = await this.#runAt(at, end);
      if (run.kind === "zero") await this.#zeroes(at, run.bytes, signal, failed);
      else if (run.kind === "data") await this.#data(at, run.bytes, signal, failed);
      if (run.kind !== "skip") moved.push({ at, bytes: run.bytes });
      at += run.bytes;
    }
    // Not before all of it is copied: after a failure the whole range is read once more.
    if (this.discardSource) for (const { at, bytes } of moved) await this.#discard(at, bytes);
    return moved.reduce((sum, run) => sum + run.bytes, 0);
  }

  /**
   * Whether anything of the cluster at `offset` comes from above `base`, and of how many whole
   * clusters the same is true.
   *
   * Not only the top layer is asked: since the copy began, a snapshot may have put another one on it.
   *
   * @param end whole clusters, or the end of the disk
   */
  async allocation(offset: number, end: number): Promise<{ bytes: number; allocated: boolean }> {
    const { source, clusterSize } = this.#init;
    const base = this.base ?? null;
    const most = end - offset;
    const first = await chainStatus(source.node, base, offset, most);
    if (first.node !== null) {
      return { bytes: Math.min(alignUp(first.bytes, clusterSize), most), allocated: true };
    }
    let clear = first.bytes;
    while (clear < clusterSize && clear < most) {
      const next = await chainStatus(source.node, base, offset + clear, most - clear);
      if (next.node !== null) return { bytes: Math.min(clusterSize, most), allocated: true };
      clear += next.bytes;
    }
    return { bytes: wholeClusters(clear, most, clusterSize), allocated: false };
  }

  async #runAt(offset: number, end: number): Promise<Run> {
    const { source, clusterSize } = this.#init;
    let most = end - offset;
    try {
      if (this.base !== undefined) {
        const { bytes, allocated } = await this.allocation(offset, end);
        if (!allocated) return { bytes, kind: "skip" };
        most = bytes;
      }
      const { bytes, zero } = await chainStatus(source.node, null, offset, most);
      const isWhole = bytes >= Math.min(clusterSize, most);
      const run = isWhole ? wholeClusters(bytes, most, clusterSize) : Math.min(clusterSize, most);
      return { bytes: run, kind: zero && isWhole ? "zero" : "data" };
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      // Then it is to be read, and that will tell what is wrong.
      return { bytes: Math.min(clusterSize, most), kind: "data" };
    }
  }

  async #zeroes(
    offset: number,
    bytes: number,
    signal: AbortSignal | undefined,
    failed: (side: CopySide) => void,
  ): Promise<void> {
    const { target } = this.#init;
    await told(failed, "target", () =>
      placed({ node: target.node.name, op: "write", offset, bytes }, () =>
        target.writeZeroes(offset, bytes, optionsOf(signal)),
      ),
    );
  }

  async #data(
    offset: number,
    bytes: number,
    signal: AbortSignal | undefined,
    failed: (side: CopySide) => void,
  ): Promise<void> {
    const most = Math.max(PIECE_BYTES, this.compress ? this.#packedCluster : 0);
    for (let done = 0; done < bytes; ) {
      const piece = Math.min(most, bytes - done);
      const at = offset + done;
      await this.#memory.run(piece, () => this.#piece(at, piece, signal, failed));
      done += piece;
    }
  }

  async #piece(
    offset: number,
    bytes: number,
    signal: AbortSignal | undefined,
    failed: (side: CopySide) => void,
  ): Promise<void> {
    throwIfAborted(signal); // It may have waited for its memory.
    const { source } = this.#init;
    await withBuffer(source.node, bytes, async (buf) => {
      await told(failed, "source", () =>
        placed({ node: source.node.name, op: "read", offset, bytes }, () =>
          source.read(buf, offset, optionsOf(signal)),
        ),
      );
      await told(failed, "target", () => this.#write(buf, offset, signal));
    });
  }

  async #write(buf: Uint8Array, offset: number, signal: AbortSignal | undefined): Promise<void> {
    const { target } = this.#init;
    const place = { node: target.node.name, op: "write", offset, bytes: buf.length } as const;
    if (!this.compress) {
      return placed(place, () => target.write(buf, offset, optionsOf(signal)));
    }
    const cluster = this.#packedCluster;
    for (let done = 0; done < buf.length; done += cluster) {
      throwIfAborted(signal);
      const piece = buf.subarray(done, Math.min(done + cluster, buf.length));
      await placed(place, () => io.writeCompressed(target.node, piece, offset + done));
    }
  }

  /** What the target packs at once; the clusters of a copy are made of whole ones. */
  get #packedCluster(): number {
    const { target, clusterSize } = this.#init;
    return skipFilters(target.node).state.limits.clusterSize || clusterSize;
  }

  async #discard(offset: number, bytes: number): Promise<void> {
    try {
      await this.#init.source.discard(offset, bytes);
    } catch (error) {
      // It is a hint. What could not be given back stays, and nobody is the worse for it.
      if (!(error instanceof BlockError)) throw error;
    }
  }
}

/** The whole clusters of `bytes`; all of it if it reaches the end of what was asked for. */
function wholeClusters(bytes: number, asked: number, clusterSize: number): number {
  return bytes >= asked ? asked : alignDown(bytes, clusterSize);
}

function optionsOf(signal: AbortSignal | undefined): RequestOptions {
  return signal ? passDown({ signal }) : {};
}

async function told<T>(
  failed: (side: CopySide) => void,
  side: CopySide,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    failed(side);
    throw error;
  }
}
