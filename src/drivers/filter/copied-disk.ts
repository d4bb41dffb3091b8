/**
 * The disk as it was when a copy-before-write filter was opened, put together from the two places
 * where it is now (QEMU: cbw_co_preadv_snapshot() and its kin in block/copy-before-write.c).
 *
 *   source    |old|NEW|old|old|NEW|
 *   target    |   |old|   |   |old|
 *   replaced       ^^^         ^^^      read these from the target
 *
 * To read from the source, a reader holds its range: a guest's write that has saved the old content
 * waits for those readers before it goes on.
 */

import { alignDown, alignUp } from "../../base/bytes.ts";
import { BlockError } from "../../base/errors.ts";
import type { BlockCopy } from "../../block/block-copy.ts";
import type { BlockChild } from "../../block/child.ts";
import type { DirtyBitmap } from "../../block/dirty-bitmap.ts";
import type { RequestOptions, SnapshotAccess, StoreStatus } from "../../block/driver.ts";
import type { RangeLock } from "../../block/range-lock.ts";
import { chainStatus } from "../../block/status.ts";

export interface CopiedDiskInit {
  /** Of the filter, for error texts. */
  readonly nodeName: string;
  readonly source: BlockChild;
  readonly target: BlockChild;
  /** What is part of the snapshot; shrinks with every discard. */
  readonly access: DirtyBitmap;
  /** What the target is to be asked for. Both bitmaps have the granularity of the copy. */
  readonly replaced: DirtyBitmap;
  readonly readers: RangeLock;
  readonly copy: BlockCopy;
  /** Why there is no snapshot any more; null while there is. */
  broken(): BlockError | null;
}

export class CopiedDisk implements SnapshotAccess {
  readonly #init: CopiedDiskInit;

  constructor(init: CopiedDiskInit) {
    this.#init = init;
  }

  async pread(buf: Uint8Array, offset: number, options: RequestOptions): Promise<void> {
    for (let done = 0; done < buf.length; ) {
      const left = buf.length - done;
      done += await this.#at(offset + done, left, options.signal, async (child, at, bytes) => {
        await child.read(buf.subarray(done, done + bytes), at, options);
        return bytes;
      });
    }
  }

  async status(offset: number, bytes: number): Promise<StoreStatus> {
    let zero = false;
    const run = await this.#at(offset, bytes, undefined, async (child, at, most) => {
      const status = await chainStatus(child.node, null, at, most);
      zero = status.zero;
      return status.bytes;
    });
    return { bytes: run, zero };
  }

  async pdiscard(offset: number, bytes: number): Promise<void> {
    const { access, copy, target } = this.#init;
    this.#checkWhole();
    const start = alignUp(offset, copy.clusterSize);
    const isLast = offset + bytes === copy.length;
    const end = isLast ? copy.length : alignDown(offset + bytes, copy.clusterSize);
    if (start >= end) return;
    access.reset(start, end - start);
    // Nobody will ask for it: what guests write there from now on need not be copied first.
    copy.leaveOut(start, end - start);
    await target.discard(start, end - start);
  }

  /**
   * Asks the one place that has the beginning of a range.
   *
   * @param ask handed the range in that place; answers how much of it it has dealt with
   */
  async #at(
    offset: number,
    bytes: number,
    signal: AbortSignal | undefined,
    ask: (child: BlockChild, offset: number, bytes: number) => Promise<number>,
  ): Promise<number> {
    const { source, target, replaced, readers } = this.#init;
    this.#check(offset, bytes);
    const run = replaced.status(offset, bytes);
    if (run.dirty) return ask(target, offset, run.bytes);
    // In the same turn, so that whoever replaces it from now on waits.
    const hold = await readers.acquire(offset, run.bytes, false, signal);
    try {
      const done = await ask(source, offset, run.bytes);
      // Once it is broken writes wait for nobody: this may be what they have written.
      this.#checkWhole();
      return done;
    } finally {
      readers.release(hold);
    }
  }

  #checkWhole(): void {
    const broken = this.#init.broken();
    if (!broken) return;
    throw new BlockError("EACCES", `The snapshot of node '${this.#init.nodeName}' is broken`, {
      cause: broken,
    });
  }

  /** @throws BlockError EACCES */
  #check(offset: number, bytes: number): void {
    const { access, nodeName } = this.#init;
    this.#checkWhole();
    const outside = access.nextClear(offset, offset + bytes);
    if (outside === null) return;
    throw new BlockError(
      "EACCES",
      `The snapshot of node '${nodeName}' does not have the byte at ${outside}`,
    );
  }
}
