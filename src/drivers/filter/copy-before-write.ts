/**
 * copy-before-write: keeps the disk of one moment, the moment it was opened, while guests go on
 * writing. What they are about to overwrite is first copied to the target.
 *
 *   guest ──▶ [copy-before-write] ──file──▶ [source]
 *                              └──target──▶ [target]   old clusters
 *
 * Who wants to see that moment asks snapshotAccess (the snapshot-access driver does): what has been
 * copied comes from the target, all else from the source, under a lock that writes wait for. A
 * backup job puts one of these over its source, and copies the rest in the background with `copy`.
 * (QEMU: block/copy-before-write.c.)
 */

import * as v from "valibot";
import { alignDown, alignUp } from "../../base/bytes.ts";
import { size } from "../../base/check.ts";
import type { Clock } from "../../base/clock.ts";
import { assert, BlockError } from "../../base/errors.ts";
import { BlockCopy, checkMinClusterSize, copyClusterSize } from "../../block/block-copy.ts";
import type { BlockChild } from "../../block/child.ts";
import { DirtyBitmap } from "../../block/dirty-bitmap.ts";
import type {
  BlockLimits,
  BlockState,
  OpenContext,
  RequestOptions,
  SnapshotAccess,
} from "../../block/driver.ts";
import type { BlockNode } from "../../block/node.ts";
import type { TypedDriver } from "../../block/option-types.ts";
import { Perm } from "../../block/permissions.ts";
import { RangeLock } from "../../block/range-lock.ts";
import { CopiedDisk } from "./copied-disk.ts";

/** When the old content cannot be copied: the guest's write fails, or the snapshot is given up. */
export const ON_CBW_ERROR = ["break-guest-write", "break-snapshot"] as const;
export type OnCbwError = (typeof ON_CBW_ERROR)[number];

const openOptions = {
  /** What of the disk is part of the snapshot; all of it if left out. The bitmap is only read. */
  bitmap: v.optional(v.strictObject({ node: v.string(), name: v.string() })),
  "on-cbw-error": v.optional(v.picklist(ON_CBW_ERROR)),
  /** Seconds that a guest's write waits for a copy at most; 0 is for ever. */
  "cbw-timeout": v.optional(
    v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(0xffffffff)),
  ),
  /** Bytes, a power of two; 0: as the target likes it. */
  "min-cluster-size": v.optional(size),
};

export interface CopyBeforeWriteOptions {
  readonly bitmap?: { readonly node: string; readonly name: string };
  readonly "on-cbw-error"?: OnCbwError;
  readonly "cbw-timeout"?: number;
  readonly "min-cluster-size"?: number;
}

/** What types are made of: see src/block/option-types.ts. */
interface Types {
  readonly name: "copy-before-write";
  readonly kind: "filter";
  readonly roles: { readonly file: true; readonly target: true };
  readonly openOptions: typeof openOptions;
}

/** What a job wants of the filter that it puts in. */
export interface FilterOwner {
  /** Told of the filter when it is opened. */
  opened(filter: CopyBeforeWrite): void;
  /** It gives back in the source what it has copied. */
  readonly discardSource: boolean;
}

/** Who answers for the copies after a crash. */
export interface CopyGuard {
  /** The range that is to be copied before a write to this one: whole clusters, perhaps past the end. */
  widen(offset: number, bytes: number): { readonly offset: number; readonly bytes: number };
  /** The range has been copied, and is about to be written. @throws BlockError */
  secure(offset: number, bytes: number, signal?: AbortSignal): Promise<void>;
  /** The snapshot is given up. */
  end(): void;
}

export function copyBeforeWriteDriver(
  owner?: FilterOwner,
): TypedDriver<Types, CopyBeforeWriteOptions> {
  return {
    name: "copy-before-write",
    kind: "filter",
    roles: { file: true, target: true },
    openOptions,

    childPermissions(role, above) {
      if (role === "target") return { take: Perm.write, share: Perm.all & ~Perm.resize };
      // While nobody uses the filter, guests still write to the source itself.
      if (above.take === Perm.none) return above;
      return {
        take: above.take | Perm.consistentRead | (owner?.discardSource ? Perm.write : Perm.none),
        share: above.share & ~(Perm.write | Perm.resize),
      };
    },

    async open(context) {
      const filter = new CopyBeforeWrite(context);
      owner?.opened(filter);
      return filter;
    },
  };
}

export class CopyBeforeWrite implements BlockState {
  /** What is below does its own rounding: here every request is one, and saved as one. */
  readonly limits: BlockLimits = { requestAlignment: 1, clusterSize: 0, growable: false };
  readonly copy: BlockCopy;
  /** Called when the snapshot is lost to an error. */
  onBroken: (() => void) | null = null;
  guard: CopyGuard | null = null;
  readonly snapshotAccess: SnapshotAccess;
  readonly #file: BlockChild;
  readonly #clock: Clock;
  readonly #policy: OnCbwError;
  readonly #timeoutMs: number;
  /** What the target is to be asked for: guests have written there since. */
  readonly #replaced: DirtyBitmap;
  /** Who reads the old content from the source: writes wait for them. */
  readonly #readers = new RangeLock();
  #broken: BlockError | null = null;

  /** @throws BlockError EINVAL, ENOENT for options and bitmaps that do not fit */
  constructor({ world, options, children, nodeName }: OpenContext<CopyBeforeWriteOptions>) {
    const { file, target } = children;
    assert(file && target, "blockdev-add gives copy-before-write a file and a target");
    const minClusterSize = options["min-cluster-size"] ?? 0;
    checkMinClusterSize(minClusterSize);
    if (target.length < file.length) {
      throw new BlockError(
        "EINVAL",
        `Node '${target.node.name}', the target of '${nodeName}', has ${target.length} bytes; ` +
          `node '${file.node.name}' has ${file.length}`,
      );
    }
    this.#file = file;
    this.#clock = world.clock;
    this.#policy = options["on-cbw-error"] ?? "break-guest-write";
    this.#timeoutMs = (options["cbw-timeout"] ?? 0) * 1000;
    const clusterSize = copyClusterSize(target.node, minClusterSize);
    this.copy = new BlockCopy({ source: file, target, clusterSize });
    if (options.bitmap) {
      const wanted = findBitmap(options.bitmap, [file.node, target.node], file.length);
      this.copy.dirty.clear();
      this.copy.dirty.merge(wanted);
    }
    const access = this.#bitmap();
    access.merge(this.copy.dirty);
    this.#replaced = this.#bitmap();
    this.snapshotAccess = new CopiedDisk({
      nodeName,
      source: file,
      target,
      access,
      replaced: this.#replaced,
      readers: this.#readers,
      copy: this.copy,
      broken: () => this.#broken,
    });
  }

  getLength(): number {
    return this.#file.length;
  }

  /** An engine before this one has copied what was wanted of the range: whole clusters, or to the end. */
  wasCopied(offset: number, bytes: number): void {
    this.copy.dirty.reset(offset, bytes);
    this.#replaced.set(offset, bytes);
  }

  /** Why the snapshot was given up; null while it is good. */
  get broken(): BlockError | null {
    return this.#broken;
  }

  pread(buf: Uint8Array, offset: number, options: RequestOptions): Promise<void> {
    return this.#file.read(buf, offset, options);
  }

  async pwrite(buf: Uint8Array, offset: number, options: RequestOptions): Promise<void> {
    await this.#save(offset, buf.length, options);
    await this.#file.write(buf, offset, options);
  }

  async pwriteZeroes(offset: number, bytes: number, options: RequestOptions): Promise<void> {
    await this.#save(offset, bytes, options);
    await this.#file.writeZeroes(offset, bytes, options);
  }

  async pdiscard(offset: number, bytes: number, options: RequestOptions): Promise<void> {
    await this.#save(offset, bytes, options);
    await this.#file.discard(offset, bytes, options);
  }

  async truncate(): Promise<void> {
    throw new BlockError("ENOTSUP", "A disk keeps its size while copy-before-write is over it");
  }

  /** A copy that nobody waited for any longer may still be under way. */
  close(): Promise<void> {
    return this.copy.idle();
  }

  /** Until the old content of a range is safe, so that it may be changed. */
  async #save(offset: number, bytes: number, options: RequestOptions): Promise<void> {
    if (options.unchanged || this.#broken) return;
    const { guard } = this;
    const { clusterSize, length } = this.copy;
    const wide = guard?.widen(offset, bytes) ?? { offset, bytes };
    const start = alignDown(wide.offset, clusterSize);
    const span = Math.min(alignUp(wide.offset + wide.bytes, clusterSize), length) - start;
    try {
      await this.#copyInTime(start, span, options.signal);
      await guard?.secure(start, span, options.signal);
      this.#replaced.set(start, span);
    } catch (error) {
      if (!(error instanceof BlockError) || options.signal?.aborted) throw error;
      // It may have been given up while this request waited: then nobody needs the copy.
      if (!this.#broken) this.#fail(error);
    }
    // Those who began to read from the source before it was decided to read from the target.
    const hold = await this.#readers.acquire(start, span, true, options.signal);
    this.#readers.release(hold);
  }

  /**
   * Nobody wants the snapshot any more: what is under way for it is called off, and writes go on
   * without. So nobody waits for a target that does not answer.
   */
  giveUp(): void {
    this.#broken ??= new BlockError("ECANCELED", "The snapshot has been given up");
    this.guard?.end();
    this.copy.callOff();
  }

  /** @throws BlockError for the guest, if it is not the snapshot that is to suffer */
  #fail(error: BlockError): void {
    const told = error.prepend("The old content could not be copied before a write");
    if (this.#policy === "break-guest-write") throw told;
    this.#broken = told;
    this.guard?.end();
    this.onBroken?.();
  }

  /** @throws BlockError ETIMEDOUT: what is under way goes on, but nothing more is begun */
  async #copyInTime(offset: number, bytes: number, signal?: AbortSignal): Promise<void> {
    if (this.#timeoutMs === 0) return this.copy.copy(offset, bytes, signal);
    const call = new AbortController();
    const stop = () => call.abort();
    if (signal?.aborted) stop();
    signal?.addEventListener("abort", stop, { once: true });
    let isLate = false;
    const timer = this.#clock.setTimer(this.#timeoutMs, () => {
      isLate = true;
      stop();
    });
    try {
      await this.#abandonable(this.copy.copy(offset, bytes, call.signal), call.signal);
    } catch (error) {
      if (!isLate || signal?.aborted || !(error instanceof BlockError)) throw error;
      const seconds = this.#timeoutMs / 1000;
      throw new BlockError("ETIMEDOUT", `It took longer than the ${seconds} s allowed`);
    } finally {
      timer.cancel();
      signal?.removeEventListener("abort", stop);
    }
  }

  /** Settles like the work, or with ECANCELED at once when the signal is raised. */
  #abandonable(work: Promise<void>, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      signal.addEventListener(
        "abort",
        () => reject(new BlockError("ECANCELED", "Operation canceled")),
        { once: true },
      );
      work.then(resolve, (error) => {
        reject(error);
        // Nobody may be there any more to hear of a bug.
        if (signal.aborted && !(error instanceof BlockError)) throw error;
      });
    });
  }

  #bitmap(): DirtyBitmap {
    return new DirtyBitmap({
      node: this.#file.node,
      name: null,
      granularity: this.copy.clusterSize,
      size: this.copy.length,
      enabled: false,
    });
  }
}

/** A bitmap of a node at or below these, of a disk of so many bytes. */
function findBitmap(
  wanted: { readonly node: string; readonly name: string },
  tops: readonly BlockNode[],
  length: number,
): DirtyBitmap {
  const node = tops.map((top) => findBelow(top, wanted.node)).find((found) => found !== null);
  if (!node) {
    throw new BlockError(
      "ENOENT",
      `Cannot find node '${wanted.node}', with the bitmap, below copy-before-write`,
    );
  }
  const bitmap = node.bitmaps.get(wanted.name);
  bitmap.checkUsable("merge-source");
  if (bitmap.size === length) return bitmap;
  throw new BlockError(
    "EINVAL",
    `${bitmap.description} is of a disk of ${bitmap.size} bytes; this one has ${length}`,
  );
}

function findBelow(top: BlockNode, name: string): BlockNode | null {
  if (top.name === name) return top;
  for (const { node } of top.children.values()) {
    const found = findBelow(node, name);
    if (found) return found;
  }
  return null;
}
