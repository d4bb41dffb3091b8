/**
 * The filter of a mirror job, between the source and all who use it. While it copies in the
 * background it lets everything pass: the source's dirty bitmap sees the writes. In copy mode
 * write-blocking it writes to both disks before the guest is told that it is done.
 *
 *   device ──▶ [mirror_top] ──▶ [source]          a guest's write:  1. source  2. target
 *                   └─────────▶ [target]
 *
 * The guest's write fails only where the source fails. What could not be written to the target is
 * dirty again, and the job's matter. (QEMU: bdrv_mirror_top in block/mirror.c.)
 */

import { alignDown, alignUp } from "../base/bytes.ts";
import { assert, BlockError } from "../base/errors.ts";
import type { BlockDriver, RequestOptions } from "../block/driver.ts";
import { Perm } from "../block/permissions.ts";
import type { BlockJob, JobSide } from "./block-job.ts";
import { copyRange, type MirrorDisks, type MirrorFailure } from "./mirror-copies.ts";

/** What the filter and its job share. */
export interface MirrorTap {
  /** null: nobody but the source is written to. */
  writes: GuestWrites | null;
  /** Active commit: the disks above the target may be inconsistent while it runs. */
  readonly isCommit: boolean;
}

/** The driver of one filter; no command knows it. */
export function mirrorTop(tap: MirrorTap): BlockDriver {
  return {
    name: "mirror_top",
    kind: "filter",
    roles: { file: true },
    openOptions: {},

    /** In a commit the target is below the source, and nobody may rely on what is between them. */
    childPermissions: (_role, above) =>
      tap.isCommit
        ? { take: above.take & ~Perm.consistentRead, share: above.share | Perm.write }
        : above,

    async open({ children }) {
      const { file } = children;
      assert(file, "the graph gives the filter a file");
      /** Copies from a backing file change nothing that the target would need. */
      const both = (request: RequestOptions) => (request.unchanged ? null : tap.writes);
      return {
        limits: { requestAlignment: 1, clusterSize: 0, growable: true },
        getLength: () => file.length,
        pread: (buf, offset, request) => file.read(buf, offset, request),
        async pwrite(buf, offset, request) {
          const source = (options: RequestOptions) => file.write(buf, offset, options);
          const writes = both(request);
          if (!writes?.isOn) return source(request);
          await writes.write(offset, buf.length, request, source, (target, options) =>
            target.write(buf, offset, options),
          );
        },
        async pwriteZeroes(offset, bytes, request) {
          const source = (options: RequestOptions) => file.writeZeroes(offset, bytes, options);
          const writes = both(request);
          if (!writes?.isOn) return source(request);
          const { mayUnmap = false } = request;
          await writes.write(offset, bytes, request, source, (target, options) =>
            target.writeZeroes(offset, bytes, { ...options, mayUnmap }),
          );
        },
        async pdiscard(offset, bytes, request) {
          const source = (options: RequestOptions) => file.discard(offset, bytes, options);
          const writes = both(request);
          if (!writes?.isOn) return source(request);
          await writes.discard(offset, bytes, request, source);
        },
      };
    },
  };
}

type ToSource = (options: RequestOptions) => Promise<void>;
/** @param doing whose I/O is under way */
type ToTarget = (signal: AbortSignal, doing: { side: JobSide }) => Promise<void>;

/** Writes of guests that go to both disks. */
export class GuestWrites {
  readonly #job: BlockJob;
  readonly #disks: MirrorDisks;
  readonly #fail: (failure: MirrorFailure) => void;
  /** One for each request to the target: Node warns of signals on which many wait. */
  readonly #stops = new Set<AbortController>();
  #isStopped = false;
  /** Copy mode write-blocking. */
  isOn: boolean;
  /**
   * Writes go to the source alone, and become dirty: while the job finds out what is dirty, and from
   * a failure on until a copy has gone well.
   */
  isHeldOff = true;
  #bytesInFlight = 0;

  /** @param fail the job's; the range is dirty by then */
  constructor(
    job: BlockJob,
    disks: MirrorDisks,
    isOn: boolean,
    fail: (failure: MirrorFailure) => void,
  ) {
    this.#job = job;
    this.#disks = disks;
    this.isOn = isOn;
    this.#fail = fail;
  }

  get bytesInFlight(): number {
    return this.#bytesInFlight;
  }

  /** For the job's end: no request to the target is begun from now on, and those there are called off. */
  stop(): void {
    this.#isStopped = true;
    for (const stop of this.#stops) stop.abort();
  }

  write(
    offset: number,
    bytes: number,
    request: RequestOptions,
    toSource: ToSource,
    toTarget: (target: MirrorDisks["target"], options: RequestOptions) => Promise<void>,
  ): Promise<void> {
    return this.#both(offset, bytes, request, toSource, (signal, doing) => {
      doing.side = "target";
      return toTarget(this.#disks.target, { signal });
    });
  }

  /** What is discarded reads as anything, but as the same on both disks. */
  discard(
    offset: number,
    bytes: number,
    request: RequestOptions,
    toSource: ToSource,
  ): Promise<void> {
    return this.#both(offset, bytes, request, toSource, (signal, doing) =>
      copyRange(this.#disks, offset, bytes, signal, doing),
    );
  }

  async #both(
    offset: number,
    bytes: number,
    request: RequestOptions,
    toSource: ToSource,
    toTarget: ToTarget,
  ): Promise<void> {
    const { dirty, locks } = this.#disks;
    const start = alignDown(offset, dirty.granularity);
    const end = alignUp(offset + bytes, dirty.granularity);
    const held = await locks.acquire(start, end - start, true, request.signal);
    try {
      if (!this.#mayReachTarget()) return await toSource(request);
      try {
        await toSource({ ...request, unrecorded: dirty.bitmap });
      } catch (error) {
        dirty.set(offset, bytes); // A part may have been written.
        throw error;
      }
      // The bitmap has not seen this write: it is in the target now, or dirty.
      await this.#writeTarget(offset, bytes, toTarget);
    } finally {
      locks.release(held);
    }
  }

  async #writeTarget(offset: number, bytes: number, toTarget: ToTarget): Promise<void> {
    const { dirty } = this.#disks;
    if (!this.#mayReachTarget()) return dirty.set(offset, bytes);
    const { progress } = this.#job;
    const doing: { side: JobSide } = { side: "source" };
    const stop = new AbortController();
    this.#stops.add(stop);
    dirty.touch(offset, bytes);
    progress.increaseRemaining(bytes);
    this.#bytesInFlight += bytes;
    try {
      await toTarget(stop.signal, doing);
      progress.workDone(bytes);
    } catch (error) {
      dirty.set(offset, bytes);
      if (!(error instanceof BlockError)) throw error;
      if (this.#isStopped) return;
      this.isHeldOff = true;
      this.#fail({ side: doing.side, error });
    } finally {
      this.#stops.delete(stop);
      this.#bytesInFlight -= bytes;
    }
  }

  /** Not while somebody keeps the target quiet: a drain of the target does not hold guests back. */
  #mayReachTarget(): boolean {
    return !this.isHeldOff && !this.#isStopped && !this.#disks.target.isDrained;
  }
}
